//! Backends as people name them, and what an operator's word for a drained one names: the supervisor takes it out of rotation
//! by that, and each worker gives its tunnels their time by that.

use std::net::IpAddr;

use crate::control::DrainedBackend;

impl DrainedBackend {
    /// Whether the word, an address or `address:port`, names this backend of this pool. Neither case matters nor the brackets
    /// that an IPv6 address has among people.
    pub fn names(&self, pool: &str, address: &str, port: u32) -> bool {
        let is = |name: &str| bare_address(name).eq_ignore_ascii_case(bare_address(address));
        let with_port = || {
            let (name, number) = self.backend.rsplit_once(':')?;
            Some(number.parse::<u32>().is_ok_and(|number| number == port) && is(name))
        };
        self.pool.eq_ignore_ascii_case(pool)
            && (is(&self.backend) || with_port().unwrap_or_default())
    }

    /// Whether both are the same word for the same pool, however it is spelt: who takes one back means the other.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.pool.eq_ignore_ascii_case(&other.pool) && spelt(&self.backend) == spelt(&other.backend)
    }
}

/// The one spelling of a word.
fn spelt(word: &str) -> String {
    let address = |word: &str| bare_address(word).parse::<IpAddr>();
    if let Ok(address) = address(word) {
        return address.to_string();
    }
    let with_port = word.rsplit_once(':').and_then(|(name, port)| {
        let port = port.parse().ok()?;
        let name = address(name).map_or_else(|_| name.to_owned(), |it| it.to_string());
        Some(endpoint(&name, port))
    });
    with_port.unwrap_or_else(|| word.to_owned()).to_ascii_lowercase()
}

/// An address without the brackets that an IPv6 address has among people.
pub fn bare_address(address: &str) -> &str {
    let inside = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.unwrap_or(address)
}

/// A backend as people, logs and tunnels name it: `address:port`, an IPv6 address in brackets.
pub fn endpoint(address: &str, port: u32) -> String {
    let address = bare_address(address);
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_has_brackets_beside_its_port_and_only_one_pair() {
        for (address, named) in [
            ("10.0.0.1", "10.0.0.1:80"),
            ("chat.test", "chat.test:80"),
            ("::1", "[::1]:80"),
            ("[::1]", "[::1]:80"),
        ] {
            assert_eq!(endpoint(address, 80), named);
        }
    }

    #[test]
    fn a_word_is_the_same_however_it_is_spelt() {
        let drained = |pool: &str, backend: &str| DrainedBackend {
            pool: pool.into(),
            backend: backend.into(),
        };
        for (one, other, same) in [
            ("::1", "[::1]", true),
            ("[0:0::1]:80", "[::1]:080", true),
            ("FE80::A", "fe80::a", true),
            ("Chat.Test:80", "chat.test:80", true),
            ("chat.test", "chat.test:80", false),
            ("10.0.0.1:80", "10.0.0.1:81", false),
            ("::1", "[::1]:80", false),
        ] {
            assert_eq!(
                drained("Chat", one).is_same_as(&drained("chat", other)),
                same,
                "{one} {other}"
            );
        }
        assert!(!drained("chat", "::1").is_same_as(&drained("games", "::1")));
    }

    #[test]
    fn a_word_names_an_address_with_or_without_its_port_and_brackets() {
        for (backend, address, names) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1:80", "10.0.0.1", true),
            ("10.0.0.1:81", "10.0.0.1", false),
            ("10.0.0.1:", "10.0.0.1", false),
            ("10.0.0.10", "10.0.0.1", false),
            ("Chat.Test:80", "chat.test", true),
            ("::1", "::1", true),
            ("[::1]", "::1", true),
            ("[::1]:80", "::1", true),
            ("[::1]:81", "::1", false),
            ("::1:80", "::1", true),
            ("", "10.0.0.1", false),
        ] {
            let drained = DrainedBackend { pool: "Chat".into(), backend: backend.into() };
            assert_eq!(drained.names("chat", address, 80), names, "{backend}");
            assert!(!drained.names("games", address, 80), "{backend} of another pool");
        }
    }
}
