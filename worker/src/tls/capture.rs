//! The traffic secrets of one connection, caught where rustls would log them.
//!
//! rustls gives out the keys of a session and not the secrets that they come from, but whoever cannot make the next
//! key cannot follow a peer's `KeyUpdate` (RFC 8446 section 7.2). No other secret is taken, none of these is ever
//! shown, and each connection has its own place for them: no table of secrets exists.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, KeyLog, ServerConfig};

use super::keys::{Role, Secret};

/// Labels of the secrets that both ends of a TLS 1.3 session begin with, as key logs call them.
const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

/// What one connection's handshake has agreed on; empty for TLS 1.2, which has no such secrets.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    client: OnceLock<Secret>,
    server: OnceLock<Secret>,
}

// === impl Captured ===

impl Captured {
    #[cfg(test)]
    /// The configuration of one more connection of a server. All but the place of the secrets is shared with the
    /// other connections: tickets and sessions, so that clients can resume, and certificates.
    pub(crate) fn server(config: &ServerConfig) -> (Arc<ServerConfig>, Arc<Self>) {
        Self::own(config.clone())
    }

    /// The same of a configuration that was made for this connection.
    pub(crate) fn own(mut config: ServerConfig) -> (Arc<ServerConfig>, Arc<Self>) {
        let captured = Arc::<Self>::default();
        config.key_log = captured.clone();
        (Arc::new(config), captured)
    }

    /// The same for a client, whose sessions can be resumed by its next connection.
    pub(crate) fn client(config: &ClientConfig) -> (Arc<ClientConfig>, Arc<Self>) {
        let captured = Arc::<Self>::default();
        let mut config = config.clone();
        config.key_log = captured.clone();
        (Arc::new(config), captured)
    }

    /// The first secret of what this end sends.
    pub(super) fn first(&self, of: Role) -> Option<&Secret> {
        match of {
            Role::Client => self.client.get(),
            Role::Server => self.server.get(),
        }
    }

    fn place(&self, label: &str) -> Option<&OnceLock<Secret>> {
        match label {
            CLIENT => Some(&self.client),
            SERVER => Some(&self.server),
            _ => None,
        }
    }
}

impl KeyLog for Captured {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        // One handshake has one such secret; were there a second one, the keys would not match and nothing would leave.
        if let (Some(place), Some(secret)) = (self.place(label), Secret::new(secret)) {
            place.get_or_init(|| secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        self.place(label).is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn only_traffic_secrets_are_taken() {
        let captured = Captured::default();
        for label in
            ["CLIENT_RANDOM", "EXPORTER_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "", "CLIENT"]
        {
            assert!(!captured.will_log(label), "{label}");
            captured.log(label, &[1; 32], &[2; 32]);
        }
        assert!(captured.will_log(CLIENT) && captured.will_log(SERVER));
        assert!(captured.first(Role::Client).is_none() && captured.first(Role::Server).is_none());
        captured.log(CLIENT, &[1; 32], &[3; 32]);
        captured.log(SERVER, &[1; 32], &[4; 48]);
        captured.log(SERVER, &[1; 32], &[5; 300]);
        assert_eq!(captured.first(Role::Client).unwrap().bytes(), [3; 32]);
        assert_eq!(captured.first(Role::Server).unwrap().bytes(), [4; 48]);
        let shown = format!("{captured:?}");
        assert!(!shown.contains('3') && !shown.contains('4'), "{shown}");
    }
}
