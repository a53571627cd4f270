//! Backends as people name them, and what an operator's word for a drained one names: the supervisor takes it out of rotation
//! by that, and each worker gives its tunnels their time by that.

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
