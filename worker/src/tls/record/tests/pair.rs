//! A session whose one end is still rustls's, while the other is our record layer's.

use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets,
    ExtractedSecrets, KeyLog, RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
};

use crate::tls::keys::{Protocol, Role, Secret, Suite, Version};
use crate::tls::record::{
    Cipher, Framed, Kind, MOST_PLAINTEXT, Message, Skip, Violation, frame, key_of, next_secret,
    read,
};

/// Our end, and what of the session rustls still has.
pub(super) struct Pair {
    pub(super) ours: Ours,
    pub(super) theirs: Connection,
}

pub(super) struct Ours {
    pub(super) protocol: Protocol,
    role: Role,
    tx: Direction,
    rx: Direction,
    skip: Skip,
    arrived: Vec<u8>,
}

struct Direction {
    secret: Secret,
    seq: u64,
}

/// What ring's provider has and its certificate of an elliptic curve allows: RSA changes nothing in records.
pub(super) fn suites() -> Vec<(SupportedCipherSuite, Protocol)> {
    use CipherSuite as Name;
    let known = |suite: &SupportedCipherSuite| {
        let (version, suite) = match suite.suite() {
            Name::TLS13_AES_128_GCM_SHA256 => (Version::Tls13, Suite::Aes128Gcm),
            Name::TLS13_AES_256_GCM_SHA384 => (Version::Tls13, Suite::Aes256Gcm),
            Name::TLS13_CHACHA20_POLY1305_SHA256 => (Version::Tls13, Suite::Chacha20Poly1305),
            Name::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => (Version::Tls12, Suite::Aes128Gcm),
            Name::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => (Version::Tls12, Suite::Aes256Gcm),
            Name::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
                (Version::Tls12, Suite::Chacha20Poly1305)
            }
            Name::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | Name::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            | Name::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => return None,
            other => panic!("ring has learned {other:?}"),
        };
        Some(Protocol { version, suite })
    };
    ring::ALL_CIPHER_SUITES
        .iter()
        .filter_map(|suite| known(suite).map(|protocol| (*suite, protocol)))
        .collect()
}

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for Kept {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), secret.to_vec()));
    }
}

impl Kept {
    fn secret(&self, of: Role) -> Secret {
        let label = match of {
            Role::Client => "CLIENT_TRAFFIC_SECRET_0",
            Role::Server => "SERVER_TRAFFIC_SECRET_0",
        };
        let kept = self.0.lock().unwrap();
        let (_, secret) = kept.iter().find(|(name, _)| name == label).unwrap();
        Secret::new(secret).unwrap()
    }
}

fn configs(suite: SupportedCipherSuite, log: &Arc<Kept>) -> (ClientConfig, ServerConfig) {
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(params, root_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["app.internal".to_owned()]).unwrap();
    let chain: Vec<CertificateDer<'static>> =
        vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
    let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();

    let provider =
        Arc::new(CryptoProvider { cipher_suites: vec![suite], ..ring::default_provider() });
    let versions = [suite.version()];
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.enable_secret_extraction = true;
    client.enable_secret_extraction = true;
    server.key_log = Arc::clone(log) as Arc<dyn KeyLog>;
    client.key_log = Arc::clone(log) as Arc<dyn KeyLog>;
    (client, server)
}

fn carry(from: &mut Connection, to: &mut Connection) {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets().unwrap();
    }
}

/// A client and a server that have just shaken hands. Tickets of the server are still in it.
fn shake_hands(suite: SupportedCipherSuite) -> (Connection, Connection, Arc<Kept>) {
    let log = Arc::new(Kept::default());
    let (client, server) = configs(suite, &log);
    let name = ServerName::try_from("app.internal").unwrap();
    let mut client: Connection = ClientConnection::new(Arc::new(client), name).unwrap().into();
    let mut server: Connection = ServerConnection::new(Arc::new(server)).unwrap().into();
    while client.is_handshaking() || server.is_handshaking() {
        carry(&mut client, &mut server);
        if client.is_handshaking() {
            carry(&mut server, &mut client);
        }
    }
    (client, server, log)
}

/// Whether rustls lets a session go whose peer has asked for a `KeyUpdate` that is not answered, and whether the keys
/// tell.
pub(super) fn lets_go_after_update(suite: SupportedCipherSuite, protocol: Protocol) -> [bool; 2] {
    let (mut client, mut server, log) = shake_hands(suite);
    carry(&mut server, &mut client);
    client.refresh_traffic_keys().unwrap();
    carry(&mut client, &mut server);
    assert!(!server.wants_write());
    let Ok(secrets) = server.dangerous_extract_secrets() else { return [false; 2] };
    let first = key_of(protocol, &log.secret(Role::Server)).unwrap();
    [true, first.key() != parts(&secrets.tx.1).0]
}

/// Key and nonce base.
fn parts(keys: &ConnectionTrafficSecrets) -> (&[u8], &[u8]) {
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = keys
    else {
        panic!("keys of a cipher that we do not know")
    };
    (key.as_ref(), iv.as_ref())
}

// === impl Pair ===

impl Pair {
    /// Shakes hands. Our end is `role`; what the other has sent last, tickets, waits for us in it.
    pub(super) fn new(suite: SupportedCipherSuite, protocol: Protocol, role: Role) -> Self {
        let (client, server, log) = shake_hands(suite);
        let (mut leaving, mut theirs, other) = match role {
            Role::Client => (client, server, Role::Server),
            Role::Server => (server, client, Role::Client),
        };
        // rustls lets nothing go that it still has to send.
        carry(&mut leaving, &mut theirs);
        let secrets = leaving.dangerous_extract_secrets().unwrap();
        let ExtractedSecrets { tx: (tx_seq, tx), rx: (rx_seq, rx) } = secrets;
        let direction = |seq, keys: &ConnectionTrafficSecrets, sender| {
            let (key, iv) = parts(keys);
            let secret = match protocol.version {
                Version::Tls12 => Secret::new(&[key, iv].concat()).unwrap(),
                Version::Tls13 => log.secret(sender),
            };
            let derived = key_of(protocol, &secret).unwrap();
            assert_eq!(derived.key(), key);
            assert_eq!(derived.iv(), iv);
            Direction { secret, seq }
        };
        let ours = Ours {
            protocol,
            role,
            tx: direction(tx_seq, &tx, role),
            rx: direction(rx_seq, &rx, other),
            skip: Skip::default(),
            arrived: Vec::new(),
        };
        Self { ours, theirs }
    }

    /// Hands bytes to rustls. What it makes of them: plaintext.
    pub(super) fn deliver(&mut self, mut wire: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plaintext = Vec::new();
        while !wire.is_empty() {
            self.theirs.read_tls(&mut wire).unwrap();
            self.theirs.process_new_packets()?;
            match self.theirs.reader().read_to_end(&mut plaintext) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => drop(other.unwrap()),
            }
        }
        Ok(plaintext)
    }

    /// What rustls has to send.
    pub(super) fn collect(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.theirs.wants_write() {
            self.theirs.write_tls(&mut wire).unwrap();
        }
        wire
    }

    /// Lets rustls send, and us receive, in pieces of some length. What has arrived: plaintext and messages.
    pub(super) fn receive(
        &mut self,
        plaintext: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, Vec<Message>), Violation> {
        self.theirs.writer().write_all(plaintext).unwrap();
        let wire = self.collect();
        self.arrive(&wire, piece)
    }

    /// The same for bytes of rustls that were collected.
    pub(super) fn arrive(
        &mut self,
        wire: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, Vec<Message>), Violation> {
        let mut all = (Vec::new(), Vec::new());
        for piece in wire.chunks(piece) {
            self.ours.receive(piece, &mut all.0, &mut all.1)?;
        }
        Ok(all)
    }
}

// === impl Ours ===

impl Ours {
    /// Data in as many records as it needs.
    pub(super) fn data(&mut self, plaintext: &[u8]) -> Vec<u8> {
        plaintext.chunks(MOST_PLAINTEXT).flat_map(|chunk| self.record(Kind::Data, chunk)).collect()
    }

    pub(super) fn record(&mut self, kind: Kind, plaintext: &[u8]) -> Vec<u8> {
        let cipher = Cipher::new(self.protocol, &self.tx.secret).unwrap();
        let mut wire = Vec::new();
        cipher.seal(self.tx.seq, kind, plaintext, &mut wire).unwrap();
        self.tx.seq += 1;
        wire
    }

    /// What we would send next as data if we were rustls.
    pub(super) fn forecast(&self, plaintext: &[u8]) -> Vec<u8> {
        let cipher = Cipher::new(self.protocol, &self.rx.secret).unwrap();
        let mut wire = Vec::new();
        for (seq, chunk) in (self.rx.seq..).zip(plaintext.chunks(MOST_PLAINTEXT)) {
            cipher.seal(seq, Kind::Data, chunk, &mut wire).unwrap();
        }
        wire
    }

    /// What follows a `KeyUpdate` of ours.
    pub(super) fn update(&mut self) {
        let secret = next_secret(self.protocol, &self.tx.secret).unwrap();
        self.tx = Direction { secret, seq: 0 };
    }

    fn receive(
        &mut self,
        wire: &[u8],
        plaintext: &mut Vec<u8>,
        messages: &mut Vec<Message>,
    ) -> Result<(), Violation> {
        self.arrived.extend_from_slice(wire);
        while let Framed::Whole { len } = frame(self.protocol, &self.arrived)? {
            let mut record: Vec<u8> = self.arrived.drain(..len).collect();
            let cipher = Cipher::new(self.protocol, &self.rx.secret).unwrap();
            let opened = cipher.open(self.rx.seq, &mut record)?;
            self.rx.seq += 1;
            let message = read(self.protocol, self.role, &opened, &mut self.skip)?;
            match message {
                Message::Data => plaintext.extend_from_slice(opened.plaintext),
                Message::KeyUpdate { .. } => {
                    let secret = next_secret(self.protocol, &self.rx.secret).unwrap();
                    self.rx = Direction { secret, seq: 0 };
                }
                _ => {}
            }
            messages.push(message);
        }
        Ok(())
    }
}
