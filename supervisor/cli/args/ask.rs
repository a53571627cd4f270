//! What questions to a running gateway may be narrowed down by: which request, which tunnels, once or again and again.
//!
//! Only what clap has to know; what a filter means is decided where it is used.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Admin;

/// `holdfast explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The URL that a client would open: http, https, ws or wss
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The Host that it sends [default: the URL's]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// The request's method
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET")]
    pub(crate) method: String,
    /// A header that it sends; may be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(crate) header: Vec<(String, String)>,
    /// The client's address [default: 127.0.0.1]
    #[arg(long, value_name = "IP[:PORT]", value_parser = parse_client)]
    pub(crate) client: Option<String>,
    /// The name that the TLS handshake asks for [default: the Host's]
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// The listener that the request comes to [default: the one on the URL's port]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listener: Option<SocketAddr>,
    /// Explain by this document instead of a running gateway; no health is known then
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast status` and `holdfast health`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Show it again whenever it changes, until Ctrl-C; with --json a line each time
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// `holdfast tunnels`.
#[derive(Debug, Args)]
pub(crate) struct TunnelsArgs {
    #[command(flatten)]
    pub(crate) filter: TunnelFilter,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

/// Which tunnels are meant: those that every given option fits. Names may be written in any case.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TunnelFilter {
    /// Only those of this site
    #[arg(long, value_name = "NAME")]
    pub(crate) site: Option<String>,
    /// Only those to this pool
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// Only those to this backend: its address, with or without the port
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub(crate) backend: Option<String>,
    /// Only those of clients in this network, or of this one
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    pub(crate) client: Option<Network>,
    /// Only those that have been open for so long: 90s, 5m, 12h, 3d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) min_age: Option<Duration>,
    /// Only those that have not been open for longer
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) max_age: Option<Duration>,
}

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u8,
}

// === impl Network ===

impl Network {
    /// Whether an address is in it; one of the other family never is.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                u32::from(own) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                u128::from(own) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

fn parse_network(text: &str) -> Result<Network, String> {
    let wrong =
        || "expected an address or a network, for example 203.0.113.9 or 2001:db8::/32".to_owned();
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        // `+24` and the like are no prefixes, though numbers.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| wrong())?
        }
        Some(_) => return Err(wrong()),
        None => longest,
    };
    if prefix > longest {
        return Err(format!("a prefix of this family is at most {longest} bits long"));
    }
    Ok(Network { address, prefix })
}

fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and its unit, for example 90s, 5m, 12h or 3d".to_owned();
    let units = [('s', 1), ('m', 60), ('h', 60 * 60), ('d', 24 * 60 * 60)];
    let stripped =
        units.iter().find_map(|&(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (digits, seconds) = stripped.unwrap_or((text, 1));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected NAME: VALUE, for example `Cookie: session=7`".to_owned()),
    }
}

fn parse_client(text: &str) -> Result<String, String> {
    let is_address = text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
    is_address
        .then(|| text.to_owned())
        .ok_or_else(|| "expected IP or IP:PORT, for example 203.0.113.9".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3/0", "192.0.2.1", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "127.0.0.1"),
            ("127.0.0.0/8", "::ffff:127.0.0.1", "::1"),
        ] {
            let parsed = parse_network(network).unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "/", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "ten", "1/8"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_age_has_one_unit() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200)] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_age("3d"), Ok(Duration::from_secs(259_200)));
        for text in ["", "s", "-1s", "1h30m", "1.5h", "5x", "99999999999999999999d", "5 m"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_has_a_name_and_may_have_colons_in_its_value() {
        let parsed = parse_header("Origin:  https://a.test ").unwrap();
        assert_eq!(parsed, ("Origin".to_owned(), "https://a.test".to_owned()));
        assert_eq!(parse_header("Empty:").unwrap().1, "");
        assert!(parse_header("none").is_err());
        assert!(parse_header(": x").is_err());
    }
}
