//! Names of what the manager keeps: `listener-ADDR`, `arena-LAYOUT-ADDR`, `tally-ADDR`, `tunnels-NUMBER`. A manager's names
//! have no colons, so addresses are written with underscores.

use std::fmt;
use std::net::SocketAddr;

/// What a stored descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A listening socket.
    Listener(SocketAddr),
    /// An arena of that layout.
    Arena { listener: SocketAddr, version: u32 },
    /// A listener's tally.
    Tally(SocketAddr),
    /// A page of tunnels.
    Tunnels(u64),
}

impl Name {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('-')?;
        match kind {
            "listener" => address(rest).map(Self::Listener),
            "tally" => address(rest).map(Self::Tally),
            "tunnels" => rest.parse().ok().map(Self::Tunnels),
            "arena" => {
                let (version, rest) = rest.split_once('-')?;
                Some(Self::Arena { listener: address(rest)?, version: version.parse().ok()? })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |address: &SocketAddr| address.to_string().replace(':', "_");
        match self {
            Self::Listener(listener) => write!(f, "listener-{}", plain(listener)),
            Self::Arena { listener, version } => write!(f, "arena-{version}-{}", plain(listener)),
            Self::Tally(listener) => write!(f, "tally-{}", plain(listener)),
            Self::Tunnels(number) => write!(f, "tunnels-{number}"),
        }
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    text.replace('_', ":").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is_and_suits_the_manager() {
        for address in ["127.0.0.1:80", "[::1]:443", "[2001:db8::7]:65535"] {
            let listener = address.parse().unwrap();
            for name in [
                Name::Listener(listener),
                Name::Arena { listener, version: 7 },
                Name::Tally(listener),
                Name::Tunnels(u64::MAX),
            ] {
                let text = name.to_string();
                assert_eq!(Name::parse(&text), Some(name), "{text}");
                // As systemd's fdname_is_valid() has it.
                assert!(text.len() <= 255 && text.bytes().all(|it| (32..127).contains(&it)));
                assert!(!text.contains(':'), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_name_of_ours_is_none() {
        for text in
            ["", "holdfast.socket", "arena-1", "arena-x-127.0.0.1_80", "tunnels--1", "tally-"]
        {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
