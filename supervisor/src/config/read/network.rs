//! Frontends, ports and sites: where the gateway listens and for whom. Binding is not its business, nor whether two
//! sites get in each other's way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::identity::{FILES_MEND, Held};
use super::pages::Pages;
use super::tls::Tls;
use crate::config::gateway::{Certificate, ClientSource, Frontend, Port, Protocol, Site};
use crate::config::reference::Table;
use crate::config::report::{Place, Report};
use crate::config::shape::{Placed, Shape};

/// Azure's limit for the hosts of one site.
const HOSTS_LIMIT: usize = 5;

/// A site before the rule that routes it is known.
#[derive(Debug)]
pub(in crate::config) struct SiteDraft {
    pub(in crate::config) site: Site,
    pub(in crate::config) place: Place,
}

pub(super) fn frontends(root: &Shape<'_>, report: &mut Report) -> Table<Frontend> {
    super::collection(root, "frontendIPConfigurations", &[], report, |shape, name, report| {
        shape.pass_over(&[
            "privateIPAllocationMethod",
            "subnet",
            "publicIPAddress",
            "privateLinkConfiguration",
            "privateIPAddressVersion",
            "publicIPAddressVersion",
            "httpListeners",
        ]);
        let own = shape.inner("holdfast", report);
        let address = own.as_ref().and_then(|own| {
            let address = own.text("address", report);
            own.finish(report);
            address
        });
        let private = shape.text("privateIPAddress", report);
        if let Some(Placed { value, place }) = address {
            let bare = value.trim().trim_start_matches('[').trim_end_matches(']');
            let Ok(address) = bare.parse() else {
                report.error(
                    &place,
                    format!("{value:?} is not an IP address"),
                    "write an address of this host, 0.0.0.0 or ::, without a port",
                );
                return None;
            };
            return Some(Frontend { name, address });
        }
        let six = |shape: &Shape<'_>, name: &str, report: &mut Report| {
            shape.text(name, report).is_some_and(|v| v.value.eq_ignore_ascii_case("IPv6"))
        };
        let is_six = private.as_ref().is_some_and(|p| p.value.trim().parse::<Ipv6Addr>().is_ok())
            || six(shape, "privateIPAddressVersion", report)
            || six(shape, "publicIPAddressVersion", report);
        let address = if is_six {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let (place, why) = match private {
            Some(private) => {
                (private.place, "privateIPAddress is an address of Azure's, not of this host, and")
            }
            None => (shape.place.clone(), "the frontend has no address of this host, and"),
        };
        report.warn(
            &place,
            format!("{why} every address is bound ({address})"),
            format!(
                "to bind one, write \"holdfast\": {{\"address\": \"IP\"}} beside the name {name:?}"
            ),
        );
        Some(Frontend { name, address })
    })
}

pub(super) fn ports(root: &Shape<'_>, report: &mut Report) -> Table<Port> {
    super::collection(root, "frontendPorts", &[], report, |shape, name, report| {
        let port = port(shape, "port", report).ok()?;
        let Some(port) = port else {
            report.error(&shape.place, "the entry has no port", "write \"port\": 80");
            return None;
        };
        Some(Port { name, port })
    })
}

/// `Err`: given, but wrong, and reported.
pub(super) fn port(shape: &Shape<'_>, name: &str, report: &mut Report) -> Result<Option<u16>, ()> {
    let number = shape.number(name, 1..=65_535, report)?;
    Ok(number.and_then(|number| u16::try_from(number).ok()))
}

/// `None`: given, but wrong, and reported.
pub(super) fn protocol(shape: &Shape<'_>, report: &mut Report) -> Option<Protocol> {
    match shape.word("protocol", &["Http", "Https"], report).ok()? {
        Some("Https") => Some(Protocol::Https),
        _ => Some(Protocol::Http),
    }
}

pub(super) fn sites(
    root: &Shape<'_>,
    frontends: &Table<Frontend>,
    ports: &Table<Port>,
    certificates: &Table<Held<Certificate>>,
    tls: &Tls,
    pages: &mut Pages<'_>,
    report: &mut Report,
) -> Table<SiteDraft> {
    let sites = super::collection(root, "httpListeners", &[], report, |shape, name, report| {
        shape.no_effect("firewallPolicy", "requests are NOT inspected by a WAF", report);
        let error_pages = pages.read(shape, report);
        let require_sni = shape.flag("requireServerNameIndication", false, report);
        let frontend = required(shape, "frontendIPConfiguration", frontends, report);
        let port = required(shape, "frontendPort", ports, report);
        let protocol = protocol(shape, report);
        let hosts = hosts(shape, report);
        let source = source(shape, report);
        let certificate = shape
            .reference("sslCertificate", report)
            .map(|reference| certificates.find(&reference, report));
        let protocol = protocol?;
        let certificate = match (protocol, certificate) {
            (Protocol::Https, None) => {
                report.error(
                    &shape.place,
                    format!("{name:?} speaks Https, but has no certificate"),
                    "add sslCertificate: {\"id\": \"…/sslCertificates/NAME\"}, or make the protocol Http",
                );
                return None;
            }
            (Protocol::Https, Some(certificate)) => Some(certificate?.needed(FILES_MEND, report)?),
            (Protocol::Http, Some(_)) => {
                report.warn(
                    shape.place_of("sslCertificate"),
                    "the protocol is Http, so the certificate has no effect",
                    "make the protocol Https, or take the certificate out",
                );
                None
            }
            (Protocol::Http, None) => None,
        };
        let tls_profile = tls.of_site(shape, protocol, certificate.as_deref(), report).ok()?;
        let site = Site {
            name,
            frontend: frontend?,
            port: port?,
            protocol,
            hosts: hosts?,
            certificate,
            tls_profile,
            require_sni,
            source,
            error_pages,
            rule: None,
        };
        Some(SiteDraft { site, place: shape.place.clone() })
    });
    let none = |(node, _): (&crate::config::json::Node, &Place)| {
        node.value == crate::config::json::Value::List(Vec::new())
    };
    if root.get("httpListeners").is_none_or(none) {
        report.error(
            root.place_of("httpListeners"),
            "there are no httpListeners, so nothing would be served",
            "give the gateway resource, its properties, or the output of az network application-gateway show",
        );
    }
    sites
}

/// What Holdfast adds to a listener.
fn source(shape: &Shape<'_>, report: &mut Report) -> ClientSource {
    let Some(own) = shape.inner("holdfast", report) else { return ClientSource::default() };
    let source = super::client_source::read(&own, report);
    own.finish(report);
    source
}

/// A reference that must be there.
pub(super) fn required<T>(
    shape: &Shape<'_>,
    name: &str,
    table: &Table<T>,
    report: &mut Report,
) -> Option<Arc<T>> {
    if shape.get(name).is_none() {
        report.error(&shape.place, format!("{name} is missing"), "write {\"id\": \"…/NAME\"}");
        return None;
    }
    shape.reference(name, report).and_then(|reference| table.find(&reference, report))
}

/// `None`: wrong, and reported.
fn hosts(shape: &Shape<'_>, report: &mut Report) -> Option<Vec<String>> {
    let single = shape.text("hostName", report);
    let list = shape.list("hostNames", report);
    let mut sound = true;
    let mut hosts: Vec<String> = Vec::new();
    if let (Some(single), false) = (&single, list.is_empty()) {
        report.error(
            &single.place,
            "hostName and hostNames are both given",
            "keep hostNames alone",
        );
        sound = false;
    }
    if list.len() > HOSTS_LIMIT {
        report.error(
            shape.place_of("hostNames"),
            format!("a listener has at most {HOSTS_LIMIT} host names"),
            "spread them over several listeners",
        );
        sound = false;
    }
    let listed = list.into_iter().filter_map(|(node, place)| match &node.value {
        crate::config::json::Value::Text(text) => Some(Placed { value: text.clone(), place }),
        other => {
            report.error(
                &place,
                format!("{} stands where a host name should", other.kind()),
                "write \"…\"",
            );
            None
        }
    });
    let listed: Vec<_> = listed.collect();
    if let Some(single) = single.filter(|single| single.value.contains(['*', '?'])) {
        report.error(&single.place, "hostName takes no wildcards", "write it into hostNames");
        return None;
    } else if let Some(single) = shape.text("hostName", report) {
        sound &= host(&single, &mut hosts, report);
    }
    for name in &listed {
        sound &= host(name, &mut hosts, report);
    }
    sound.then_some(hosts)
}

/// Azure's rules for host names with wildcards (reference: multiple-site overview).
fn host(name: &Placed<String>, hosts: &mut Vec<String>, report: &mut Report) -> bool {
    let host = name.value.trim().trim_end_matches('.').to_ascii_lowercase();
    let wild = |c: char| c == '*' || c == '?';
    let stars = host.matches('*').count();
    let wrong = if host.is_empty() {
        Some("it is empty")
    } else if host.len() > 253 {
        Some("it is longer than 253 characters")
    } else if !host.chars().all(|c| c.is_ascii_alphanumeric() || "-.*?_".contains(c)) {
        Some("only letters, digits, -, ., * and ? may stand in it (no port, no scheme)")
    } else if host.split('.').any(str::is_empty) {
        Some("it has an empty label")
    } else if ["**", "*?", "?*"].iter().any(|pair| host.contains(pair)) {
        Some("a * has no other wildcard beside it")
    } else if stars > 2 {
        Some("it has more than two *")
    } else if host.split('.').any(|label| label.matches('*').count() > 1) {
        Some("a label has at most one *")
    } else if host.chars().filter(|c| wild(*c)).count() > 4 {
        Some("it has more than four wildcard characters")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        report.error(
            &name.place,
            format!("{:?} is not a host name: {wrong}", name.value),
            "write a name such as www.contoso.com, or *.contoso.com in hostNames",
        );
        return false;
    }
    if !hosts.contains(&host) {
        hosts.push(host);
    }
    true
}
