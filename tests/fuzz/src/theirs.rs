//! rustls in the receiver's place: what it makes of the same bytes, from a session that is always the same.
//!
//! Of each protocol and role the peer's part of the handshake is kept, so that a receiver costs half a handshake.

use std::io::Read as _;
use std::sync::{Arc, LazyLock, Mutex};

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{
    CipherSuite as Name, ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets,
    Error, KeyLog, ServerConfig, ServerConnection, SupportedCipherSuite,
};

use crate::provider;
use crate::script::Script;
use crate::tls::keys::{Protocol, Role, Suite, Version};

/// A session at the end of its handshake, seen by one of its ends.
pub(crate) struct Kit {
    pub(crate) protocol: Protocol,
    /// Of the receiver.
    pub(crate) role: Role,
    config: Config,
    /// What the peer says in the handshake, flight by flight.
    flights: Vec<Vec<u8>>,
    /// What the peer seals with, in the form of our sessions.
    pub(crate) secret: Vec<u8>,
    /// Number of the peer's next record.
    pub(crate) seq: u64,
}

enum Config {
    Client(Arc<ClientConfig>),
    Server(Arc<ServerConfig>),
}

/// What rustls has made of a script's bytes.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) data: Vec<u8>,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    Waiting,
    Closed,
    Failed(Error),
}

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<(String, Vec<u8>)>>);

/// Every protocol in either role, always in this order.
pub(crate) fn kits() -> &'static [Kit] {
    static KITS: LazyLock<Vec<Kit>> = LazyLock::new(|| {
        let known = ring::ALL_CIPHER_SUITES.iter();
        let known = known.filter_map(|suite| Some((*suite, protocol(*suite)?)));
        known.flat_map(|(suite, protocol)| Kit::pair(suite, protocol)).collect()
    });
    &KITS
}

/// None: where the script begins, no session of rustls's can be.
pub(crate) fn receive(script: &Script) -> Option<Seen> {
    if script.seq != script.kit.seq {
        return None;
    }
    let mut connection = script.kit.receiver();
    let mut data = Vec::new();
    let end = read_all(&mut connection, &script.wire, &mut data);
    Some(Seen { data, end })
}

fn read_all(connection: &mut Connection, mut wire: &[u8], data: &mut Vec<u8>) -> End {
    while !wire.is_empty() {
        match connection.read_tls(&mut wire) {
            Ok(0) => return End::Closed,
            Ok(_) => {}
            // A message is longer than the room for one.
            Err(error) => return End::Failed(Error::General(error.to_string())),
        }
        let state = connection.process_new_packets();
        // It keeps what it had opened before the record that it refuses.
        let closed = loop {
            let mut some = [0; 4096];
            match connection.reader().read(&mut some) {
                Ok(0) => break true,
                Ok(count) => data.extend_from_slice(&some[..count]),
                Err(_) => break false,
            }
        };
        match state {
            Err(error) => return End::Failed(error),
            Ok(_) if closed => return End::Closed,
            Ok(_) => {}
        }
    }
    End::Waiting
}

fn protocol(suite: SupportedCipherSuite) -> Option<Protocol> {
    let (version, suite) = match suite.suite() {
        Name::TLS13_AES_128_GCM_SHA256 => (Version::Tls13, Suite::Aes128Gcm),
        Name::TLS13_AES_256_GCM_SHA384 => (Version::Tls13, Suite::Aes256Gcm),
        Name::TLS13_CHACHA20_POLY1305_SHA256 => (Version::Tls13, Suite::Chacha20Poly1305),
        Name::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => (Version::Tls12, Suite::Aes128Gcm),
        Name::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => (Version::Tls12, Suite::Aes256Gcm),
        Name::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            (Version::Tls12, Suite::Chacha20Poly1305)
        }
        _ => return None,
    };
    Some(Protocol { version, suite })
}

fn said(connection: &mut Connection) -> Vec<u8> {
    let mut wire = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut wire).unwrap();
    }
    wire
}

fn hear(connection: &mut Connection, mut wire: &[u8]) {
    while !wire.is_empty() {
        connection.read_tls(&mut wire).unwrap();
        connection.process_new_packets().unwrap();
    }
}

// === impl Kit ===

impl Kit {
    /// A handshake, from both ends.
    fn pair(suite: SupportedCipherSuite, protocol: Protocol) -> [Self; 2] {
        let log = Arc::new(Kept::default());
        let (client, server) = provider::configs(suite, Arc::clone(&log) as Arc<dyn KeyLog>);
        let configs = [Config::Client(Arc::new(client)), Config::Server(Arc::new(server))];
        let [mut client, mut server] = configs.each_ref().map(Config::connection);
        let mut flights = [Vec::new(), Vec::new()];
        while client.is_handshaking() || server.is_handshaking() {
            let wire = said(&mut client);
            hear(&mut server, &wire);
            flights[1].push(wire);
            let wire = said(&mut server);
            hear(&mut client, &wire);
            flights[0].push(wire);
        }
        let [for_client, for_server] = flights;
        let [to_client, to_server] = configs;
        let kit = |config, flights, connection: Connection, role, label| {
            let (seq, keys) = connection.dangerous_extract_secrets().unwrap().rx;
            let secret = match protocol.version {
                Version::Tls12 => key_and_iv(&keys),
                Version::Tls13 => log.secret(label),
            };
            Self { protocol, role, config, flights, secret, seq }
        };
        [
            kit(to_client, for_client, client, Role::Client, "SERVER_TRAFFIC_SECRET_0"),
            kit(to_server, for_server, server, Role::Server, "CLIENT_TRAFFIC_SECRET_0"),
        ]
    }

    fn receiver(&self) -> Connection {
        let mut connection = self.config.connection();
        for flight in &self.flights {
            said(&mut connection);
            hear(&mut connection, flight);
        }
        said(&mut connection);
        assert!(!connection.is_handshaking(), "a handshake is not always the same");
        connection
    }
}

fn key_and_iv(keys: &ConnectionTrafficSecrets) -> Vec<u8> {
    match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            [key.as_ref(), iv.as_ref()].concat()
        }
        _ => panic!("rustls has learned another suite"),
    }
}

// === impl Config ===

impl Config {
    fn connection(&self) -> Connection {
        match self {
            Self::Client(config) => {
                let name = ServerName::try_from("app.internal").unwrap();
                ClientConnection::new(Arc::clone(config), name).unwrap().into()
            }
            Self::Server(config) => ServerConnection::new(Arc::clone(config)).unwrap().into(),
        }
    }
}

// === impl Kept ===

impl KeyLog for Kept {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut kept = self.0.lock().unwrap();
        // Every handshake after the first has the same.
        if kept.iter().all(|(name, _)| name != label) {
            kept.push((label.to_owned(), secret.to_vec()));
        }
    }
}

impl Kept {
    fn secret(&self, label: &str) -> Vec<u8> {
        let kept = self.0.lock().unwrap();
        kept.iter().find(|(name, _)| name == label).unwrap().1.clone()
    }
}
