//! A session on its way out of rustls: what must be true before, what is taken, what is left behind.
//!
//! Taking the secrets ends rustls's connection. So everything that can be decided is decided first, and a session that
//! cannot leave is given back as it was. Nothing that the peer has said may be lost on the way, and nothing that
//! rustls still has to say to it.

use std::io::{self, BufRead as _, Write as _};

use holdfast_proto::planted;
use rustls::{CipherSuite, Connection, ConnectionTrafficSecrets, ProtocolVersion};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::bounded::Bounded;
use super::capture::Captured;
use super::keys::{Protocol, Role, Secret, Suite, Version};
use super::record;

/// How often a peer may have changed its keys while rustls had the session.
const GENERATIONS: usize = 1000;

/// One direction of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Of TLS 1.3 the traffic secret in force; of TLS 1.2 the key, and behind it the nonce base as rustls gives it out.
    pub(crate) secret: Secret,
    /// Number of the next record under this secret.
    pub(crate) seq: u64,
}

/// All that it takes to go on with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) role: Role,
    pub(crate) protocol: Protocol,
    /// What we send.
    pub(crate) tx: Flow,
    /// What the peer sends.
    pub(crate) rx: Flow,
}

/// What has left rustls, and what has come from the peer so far.
pub(crate) struct Left {
    pub(crate) socket: TcpStream,
    /// Plaintext that rustls had opened and nobody had read.
    pub(crate) early: Vec<u8>,
    pub(crate) departed: Departed,
}

/// A session that has left rustls, where it stands.
#[derive(Debug)]
pub(crate) struct Departed {
    pub(crate) session: Session,
    /// Ciphertext of a record that is not complete, read from the socket already.
    pub(crate) partial: Vec<u8>,
    /// The peer's `close_notify` has been seen, behind `early`: what still comes is to be ignored (RFC 8446 section
    /// 6.1).
    pub(crate) peer_closed: bool,
}

/// A session has not left rustls.
#[derive(Debug, Error)]
pub(crate) enum Stayed {
    /// It can go on there, in this process. What the peer has said is all inside the connection.
    #[error("the session stays with rustls")]
    Pinned {
        connection: Box<Connection>,
        socket: TcpStream,
        #[source]
        why: Why,
    },
    /// It cannot go on anywhere.
    #[error("the session is lost")]
    Lost(#[source] Loss),
}

/// Why a session cannot leave.
#[derive(Debug, Error)]
pub(crate) enum Why {
    #[error("the handshake has not finished")]
    Handshaking,
    #[error("the protocol is another one than ours: {0:?}, {1:?}")]
    Unknown(Option<ProtocolVersion>, Option<CipherSuite>),
    #[error("the traffic secrets were not captured")]
    NotCaptured,
    /// Whatever ended it, rustls will say it again.
    #[error("the session has already failed")]
    Failed(#[source] io::Error),
}

/// How a session was lost.
#[derive(Debug, Error)]
pub(crate) enum Loss {
    #[error("rustls did not give the secrets out")]
    Refused(#[source] rustls::Error),
    /// The captured secrets do not lead to the keys that rustls gave out.
    #[error("the keys in force come from no captured secret")]
    NoGeneration,
}

/// What is known of a session before it leaves.
#[derive(Clone, Copy)]
enum Plan<'a> {
    Tls12(Suite),
    /// With the first secrets of what we send and of what the peer sends.
    Tls13(Suite, &'a Secret, &'a Secret),
}

/// Takes a session out of rustls. Waits until the peer's TCP has room for what rustls has still to say; the caller
/// bounds that time. Whatever is dropped by then is the connection.
pub(crate) async fn leave(
    mut stream: TlsStream<Bounded<TcpStream>>,
    captured: &Captured,
) -> Result<Left, Stayed> {
    let settled = settle(&mut stream).await;
    let (socket, partial, mut connection) = take_apart(stream);
    let planned = settled.and_then(|()| Plan::of(&connection, captured));
    let plan = match planned {
        Ok(plan) => plan,
        Err(why) => {
            return Err(Stayed::Pinned { connection: Box::new(connection), socket, why });
        }
    };
    let role = role(&connection);
    let (early, peer_closed) = drain(&mut connection);
    let secrets = connection
        .dangerous_extract_secrets()
        .map_err(|error| Stayed::Lost(Loss::Refused(error)))?;
    let (tx, rx) = (plan.flow(Way::Out, &secrets.tx), plan.flow(Way::In, &secrets.rx));
    let (Some(tx), Some(rx)) = (tx, rx) else { return Err(Stayed::Lost(Loss::NoGeneration)) };
    let session = Session { role, protocol: plan.protocol(), tx, rx };
    Ok(Left { socket, early, departed: Departed { session, partial, peer_closed } })
}

/// The socket, the copy of what it has given of an incomplete record, and rustls's connection, which has read those
/// bytes too.
pub(crate) fn take_apart(
    stream: TlsStream<Bounded<TcpStream>>,
) -> (TcpStream, Vec<u8>, Connection) {
    let (stream, connection) = match stream {
        TlsStream::Client(stream) => {
            let (stream, connection) = stream.into_inner();
            (stream, Connection::Client(connection))
        }
        TlsStream::Server(stream) => {
            let (stream, connection) = stream.into_inner();
            (stream, Connection::Server(connection))
        }
    };
    let (socket, partial) = stream.into_parts();
    (socket, partial, connection)
}

/// Puts everything on the wire that rustls has to say. Nothing is read meanwhile, so nothing new comes up.
async fn settle(stream: &mut TlsStream<Bounded<TcpStream>>) -> Result<(), Why> {
    // Its answer to a KeyUpdate is made under the old key and waits for the next write; `wants_write` does not tell.
    // The new key is in force already, so the peer would never follow us. A write of nothing lets the answer go.
    let queued = match stream {
        TlsStream::Client(stream) => stream.get_mut().1.writer().write(&[]),
        TlsStream::Server(stream) => stream.get_mut().1.writer().write(&[]),
    };
    queued.map_err(Why::Failed)?;
    stream.flush().await.map_err(Why::Failed)
}

const fn role(connection: &Connection) -> Role {
    match connection {
        Connection::Client(_) => Role::Client,
        Connection::Server(_) => Role::Server,
    }
}

/// Takes what rustls has opened, and whether the peer has ended behind it.
fn drain(connection: &mut Connection) -> (Vec<u8>, bool) {
    let mut early = Vec::new();
    let mut reader = connection.reader();
    loop {
        let count = match reader.fill_buf() {
            Ok([]) => return (early, true),
            Ok(opened) => {
                early.extend_from_slice(opened);
                opened.len()
            }
            // Nothing more, or the end of TCP without a word, which the socket will show again.
            Err(_) => return (early, false),
        };
        reader.consume(count);
    }
}

// === impl Plan ===

#[derive(Clone, Copy)]
enum Way {
    Out,
    In,
}

impl<'a> Plan<'a> {
    fn of(connection: &Connection, captured: &'a Captured) -> Result<Self, Why> {
        if connection.is_handshaking() {
            return Err(Why::Handshaking);
        }
        let version = connection.protocol_version();
        let negotiated = connection.negotiated_cipher_suite().map(|negotiated| negotiated.suite());
        let Some(protocol) = version.zip(negotiated).and_then(|(version, negotiated)| {
            Some(Protocol { version: version_of(version)?, suite: suite_of(negotiated)? })
        }) else {
            return Err(Why::Unknown(version, negotiated));
        };
        let Protocol { version: Version::Tls13, suite } = protocol else {
            return Ok(Self::Tls12(protocol.suite));
        };
        let (ours, theirs) = match role(connection) {
            Role::Client => (Role::Client, Role::Server),
            Role::Server => (Role::Server, Role::Client),
        };
        let first = captured.first(ours).zip(captured.first(theirs));
        let first = first.filter(|_| !planted!("pin-session"));
        let (tx, rx) = first.ok_or(Why::NotCaptured)?;
        Ok(Self::Tls13(suite, tx, rx))
    }

    const fn protocol(self) -> Protocol {
        match self {
            Self::Tls12(suite) => Protocol { version: Version::Tls12, suite },
            Self::Tls13(suite, ..) => Protocol { version: Version::Tls13, suite },
        }
    }

    /// A direction from what rustls has given out. None: that is not what was planned.
    fn flow(self, way: Way, given: &(u64, ConnectionTrafficSecrets)) -> Option<Flow> {
        let (seq, keys) = given;
        let (suite, keys) = key_and_iv(keys)?;
        if suite != self.protocol().suite {
            return None;
        }
        let secret = match (self, way) {
            (Self::Tls12(_), _) => keys,
            (Self::Tls13(_, first, _), Way::Out) | (Self::Tls13(_, _, first), Way::In) => {
                generation(self.protocol(), first, &keys)?
            }
        };
        Some(Flow { secret, seq: *seq })
    }
}

/// Steps from the first secret to the one whose key and nonce base are in force.
fn generation(protocol: Protocol, first: &Secret, in_force: &Secret) -> Option<Secret> {
    let mut secret = first.clone();
    for _ in 0..GENERATIONS {
        let keys = record::key_of(protocol, &secret).ok()?;
        if in_force.bytes().split_at_checked(keys.key().len()) == Some((keys.key(), keys.iv())) {
            return Some(secret);
        }
        secret = record::next_secret(protocol, &secret)?;
    }
    None
}

fn key_and_iv(keys: &ConnectionTrafficSecrets) -> Option<(Suite, Secret)> {
    let (suite, key, iv) = match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Suite::Chacha20Poly1305, key, iv)
        }
        _ => return None,
    };
    let both = zeroize::Zeroizing::new([key.as_ref(), iv.as_ref()].concat());
    Some((suite, Secret::new(&both)?))
}

/// Whether a session with this suite could leave.
pub(super) const fn is_known(suite: CipherSuite) -> bool {
    suite_of(suite).is_some()
}

const fn version_of(negotiated: ProtocolVersion) -> Option<Version> {
    match negotiated {
        ProtocolVersion::TLSv1_2 => Some(Version::Tls12),
        ProtocolVersion::TLSv1_3 => Some(Version::Tls13),
        _ => None,
    }
}

const fn suite_of(negotiated: CipherSuite) -> Option<Suite> {
    match negotiated {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(Suite::Aes128Gcm),
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(Suite::Aes256Gcm),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(Suite::Chacha20Poly1305),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
