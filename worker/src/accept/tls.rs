//! The client's TLS session: which certificate, which protocol, how long a handshake may take.
//!
//! A connection has its place (`admission`) from the moment that it has begun to speak TLS until its handshake is over.
//! The certificate is looked up in the table that is served at the moment of the handshake, so a new certificate
//! needs no new acceptor. What the session carries is http's; its secrets go with it, and nobody here looks at them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::admission::{Admission, Crowded};
use crate::fault::{Fault, FaultKind};
use crate::http::{Shared, linger, note};
use crate::link::Link;
use crate::pool::tls::provider;
use crate::snapshot::Current;
use crate::tls::bounded::Bounded;
use crate::tls::capture::Captured;

/// First byte of a TLS record that can open a session (RFC 8446 section 5.1, `handshake`).
const HANDSHAKE_RECORD: u8 = 22;
/// HTTP/2 as ALPN calls it (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";

/// Opens TLS sessions for this listener; clones and connections share the ticket keys, and the places for handshakes.
#[derive(Clone)]
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    admission: Arc<Admission>,
}

/// Chooses the certificate by SNI.
#[derive(Debug)]
struct ServedCertificates(Arc<Current>);

/// What a client's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Tls,
    Other,
}

/// Why this process cannot speak TLS at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot set TLS up")]
pub struct TlsError(#[source] rustls::Error);

/// Why a connection has no TLS session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the client did not finish its TLS handshake in time")]
    TimedOut,
    #[error(transparent)]
    Crowded(#[from] Crowded),
    #[error("the TLS handshake failed")]
    Failed(#[source] io::Error),
    #[error("the client spoke plain HTTP to a TLS listener")]
    Plain,
    #[error("the client left without a word")]
    Silent,
}

// === impl Acceptor ===

impl Acceptor {
    /// An acceptor that always serves the table in force, on so many threads.
    pub(crate) fn new(current: Arc<Current>, threads: usize) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ServedCertificates(current)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError)?;
        // A tunnel takes its session out of rustls, to survive this process.
        config.enable_secret_extraction = true;
        Ok(Self { config: Arc::new(config), admission: Arc::new(Admission::new(threads)) })
    }
}

// === impl ServedCertificates ===

impl ResolvesServerCert for ServedCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().table.certificate_for(hello.server_name()).cloned()
    }
}

/// Whether the client has chosen HTTP/2.
pub(crate) fn speaks_http2(io: &Link) -> bool {
    match io {
        Link::Plain(_) => false,
        Link::Tls(secured) => secured.stream.get_ref().1.alpn_protocol() == Some(HTTP2),
    }
}

/// The client's byte stream: as it came on a plain listener, else after the handshake.
pub(crate) async fn open(
    stream: TcpStream,
    client: SocketAddr,
    acceptor: Option<&Acceptor>,
    shared: &Shared,
) -> Result<Link, HandshakeError> {
    let Some(acceptor) = acceptor else { return Ok(Link::Plain(stream)) };
    let patience = shared.current.load().table.limits.handshake_timeout;
    let deadline = Instant::now() + patience;
    // Who says nothing takes nobody's place.
    let first = timeout_at(deadline, first_word(&stream)).await;
    if first.map_err(|_| HandshakeError::TimedOut)?? == First::Other {
        let fault = Fault::new(FaultKind::HttpToHttps);
        note::unrouted(&shared.access_log, client, false, None, &fault);
        let answer = shared.last_words(&fault);
        let said = timeout_at(deadline, Box::pin(linger::say_and_close(stream, &answer))).await;
        return Err(said.map_or(HandshakeError::TimedOut, |()| HandshakeError::Plain));
    }
    let place = acceptor.admission.enter(deadline, patience).await?;
    let preferred = shared.current.load().table.http2.then_some(HTTP2);
    timeout_at(place.deadline, Box::pin(handshake(stream, &acceptor.config, preferred)))
        .await
        .map_err(|_| HandshakeError::TimedOut)?
}

/// Waits for the first byte, which stays where it is.
async fn first_word(stream: &TcpStream) -> Result<First, HandshakeError> {
    let mut first = [0; 1];
    match stream.peek(&mut first).await.map_err(HandshakeError::Failed)? {
        0 => Err(HandshakeError::Silent),
        _ if first == [HANDSHAKE_RECORD] => Ok(First::Tls),
        _ => Ok(First::Other),
    }
}

async fn handshake(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    preferred: Option<&'static [u8]>,
) -> Result<Link, HandshakeError> {
    let (config, captured) = Captured::server(config, preferred);
    let session = TlsAcceptor::from(config).accept(Bounded::new(stream)).await;
    Ok(Link::tls(session.map_err(HandshakeError::Failed)?, captured))
}
