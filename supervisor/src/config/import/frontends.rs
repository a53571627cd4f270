//! Addresses of this host for the frontends. Azure's addresses, public or private, are not this host's: without
//! `--listen` every address is bound, of the same family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::findings::{FindingKind, Findings};
use super::given::Given;
use super::item::{Item, Member, Value};

/// What a frontend says about Azure's network.
const OF_AZURE: [&str; 6] = [
    "privateIPAddress",
    "privateIPAddressVersion",
    "privateIPAllocationMethod",
    "publicIPAddress",
    "publicIPAddressVersion",
    "subnet",
];

/// Gives every frontend an address; `six` are the names of public addresses of IPv6.
pub(super) fn bind(gateway: &mut Item, given: &Given, six: &[String], findings: &mut Findings) {
    let mut unknown: Vec<&String> = given.listen_on.keys().collect();
    let frontends = gateway
        .get_mut("properties")
        .and_then(|properties| properties.get_mut("frontendIPConfigurations"));
    for (frontend, at) in frontends.map_or(&mut [][..], Item::entries_mut).iter_mut().zip(0..) {
        let name = frontend.word("name").unwrap_or_default().to_owned();
        let key = name.to_lowercase();
        unknown.retain(|it| **it != key);
        let place = (frontend.line, frontend.column);
        let of_azure = frontend.get_mut("properties").map(|properties| {
            let is_six = is_six(properties, six);
            let had = OF_AZURE.iter().filter(|name| properties.remove(name).is_some()).count() > 0;
            (is_six, had)
        });
        let (is_six, had) = of_azure.unwrap_or_default();
        let chosen = given.listen_on.get(&key).copied().or(given.listen);
        let own = frontend.get("holdfast").is_some_and(|own| own.word("address").is_some());
        if chosen.is_none() && own {
            continue;
        }
        let every = if is_six {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let address = chosen.unwrap_or(every);
        if chosen.is_none() {
            let azure = if had { "its address in Azure is not this host's, and " } else { "" };
            findings.add(
                FindingKind::LeftOut,
                &format!("properties.frontendIPConfigurations[{at}]"),
                place,
                format!("the frontend {name:?} listens on every address ({address})"),
                format!("{azure}--listen {name}=ADDRESS chooses one"),
            );
        }
        let address = Item::text(&address.to_string()).at(place.0, place.1);
        let own = Value::object(vec![Member::new("address", address)]);
        put_own(frontend, Item::new(own).at(place.0, place.1));
    }
    for name in unknown {
        findings.add(
            FindingKind::Warning,
            "properties.frontendIPConfigurations",
            (0, 0),
            format!("no frontend is named {name:?}, as --listen has it"),
            "correct the name",
        );
    }
}

/// Puts `holdfast` behind the name.
pub(super) fn put_own(child: &mut Item, own: Item) {
    let properties = child.remove("properties");
    child.set("holdfast", own);
    if let Some(properties) = properties {
        child.set("properties", properties);
    }
}

fn is_six(properties: &Item, six: &[String]) -> bool {
    let version = |name| properties.word(name).is_some_and(|it| it.eq_ignore_ascii_case("IPv6"));
    let public = properties.get("publicIPAddress").and_then(|public| public.word("id"));
    let public = public.map(|id| id.rsplit('/').next().unwrap_or(id).to_ascii_lowercase());
    version("privateIPAddressVersion")
        || version("publicIPAddressVersion")
        || properties
            .word("privateIPAddress")
            .is_some_and(|it| it.trim().parse::<Ipv6Addr>().is_ok())
        || public.is_some_and(|name| six.contains(&name))
}
