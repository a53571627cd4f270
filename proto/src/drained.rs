//! What an operator's word for a drained backend names: the supervisor takes it out of rotation by that, and each worker
//! gives its tunnels their time by that.

use crate::control::DrainedBackend;

impl DrainedBackend {
    /// Whether the word, an address or `address:port`, names this backend of this pool. Neither case matters nor the brackets
    /// that an IPv6 address has among people.
    pub fn names(&self, pool: &str, address: &str, port: u32) -> bool {
        let is = |name: &str| bare(name).eq_ignore_ascii_case(bare(address));
        let with_port = || {
            let (name, number) = self.backend.rsplit_once(':')?;
            Some(number.parse::<u32>().is_ok_and(|number| number == port) && is(name))
        };
        self.pool.eq_ignore_ascii_case(pool)
            && (is(&self.backend) || with_port().unwrap_or_default())
    }
}

fn bare(address: &str) -> &str {
    let inside = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

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
