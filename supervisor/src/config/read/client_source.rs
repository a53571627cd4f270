//! Who may tell a site who its clients are: `proxyProtocol`, `trustedProxies`, `trustForwardedHeaders` of a listener.

use std::net::IpAddr;

use crate::config::gateway::{ClientSource, Network};
use crate::config::json::Value;
use crate::config::report::{Place, Report};
use crate::config::shape::Shape;

/// More is a list of addresses that somebody has pasted, looked through for every connection.
const NETWORKS_LIMIT: usize = 256;

/// Of a listener's `holdfast` object.
pub(super) fn read(own: &Shape<'_>, report: &mut Report) -> ClientSource {
    let word = own.word("proxyProtocol", &["off", "required"], report);
    let forwarded_headers = own.flag("trustForwardedHeaders", false, report);
    let trusted = networks(own, report);
    let proxy_protocol = word == Ok(Some("required"));
    if trusted.is_empty() && !own.says("trustedProxies") {
        for (wanted, name) in
            [(proxy_protocol, "proxyProtocol"), (forwarded_headers, "trustForwardedHeaders")]
        {
            if wanted {
                report.error(
                    own.place_of(name),
                    format!("{name} needs trustedProxies: anybody could claim to be anybody"),
                    "add \"trustedProxies\": [\"10.0.0.0/8\"] with the addresses of what stands in front",
                );
            }
        }
    } else if !proxy_protocol && !forwarded_headers && word.is_ok() {
        report.warn(
            own.place_of("trustedProxies"),
            "nothing is taken from trustedProxies, so they have no effect",
            "add \"proxyProtocol\": \"required\" or \"trustForwardedHeaders\": true",
        );
    }
    ClientSource { proxy_protocol, trusted, forwarded_headers }
}

fn networks(own: &Shape<'_>, report: &mut Report) -> Vec<Network> {
    let list = own.list("trustedProxies", report);
    if list.len() > NETWORKS_LIMIT {
        report.error(
            own.place_of("trustedProxies"),
            format!("there are more than {NETWORKS_LIMIT} trustedProxies"),
            "write larger blocks",
        );
        return Vec::new();
    }
    let mut networks = Vec::new();
    for (node, place) in list {
        let network = match &node.value {
            Value::Text(text) => network(text.trim(), &place, report),
            _ => None,
        };
        match network {
            Some(network) if networks.contains(&network) => {}
            Some(network) => networks.push(network),
            None => report.error(
                &place,
                "this is neither an IP address nor a block of addresses",
                "write \"10.0.0.4\", \"10.0.0.0/8\" or \"2001:db8::/32\"",
            ),
        }
    }
    networks
}

/// `ADDRESS` or `ADDRESS/BITS`.
fn network(text: &str, place: &Place, report: &mut Report) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) if prefix.bytes().all(|digit| digit.is_ascii_digit()) => {
            (address, Some(prefix.parse::<u8>().ok()?))
        }
        Some(_) => return None,
        None => (text, None),
    };
    let given: IpAddr = address.parse().ok()?;
    let longest = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(longest(given));
    if prefix > longest(given) {
        return None;
    }
    // Peers are compared as IPv4 addresses however they came.
    let (address, prefix) = match given.to_canonical() {
        IpAddr::V4(mapped) if given.is_ipv6() => (mapped.into(), prefix.checked_sub(96)?),
        same => (same, prefix),
    };
    let first = first(address, prefix);
    if first != address {
        report.warn(
            place,
            format!("{text} has bits beyond its prefix; {first}/{prefix} is meant"),
            format!("write \"{first}/{prefix}\""),
        );
    }
    Some(Network { address: first, prefix })
}

/// The first address of a block.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read_network(text: &str) -> (Option<String>, usize) {
        let mut report = Report::default();
        let place = Place { path: String::new(), line: 1, column: 1 };
        let network = network(text, &place, &mut report).map(|network| network.to_string());
        (network, report.into_sorted().len())
    }

    #[test]
    fn blocks_and_single_addresses_are_read() {
        for (text, meant) in [
            ("10.0.0.4", "10.0.0.4/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(read_network(text), (Some(meant.to_owned()), 0), "{text}");
        }
        assert_eq!(read_network("10.1.2.3/8"), (Some("10.0.0.0/8".to_owned()), 1));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "host",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "/8",
            "10.0.0.0/+8",
            "10.0.0.0/999",
            "::ffff:10.0.0.0/95",
            "010.0.0.1",
        ] {
            assert_eq!(read_network(text).0, None, "{text}");
        }
    }
}
