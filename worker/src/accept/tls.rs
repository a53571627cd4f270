//! The client's TLS session: which certificate, which protocol, how long a handshake may take.
//!
//! A connection has its place (`admission`) from the moment that it has begun to speak TLS until its handshake is over.
//! The name that the client asks for decides which site's certificate and profile it gets, in the table that is served at
//! that moment, so neither needs a new acceptor. What the session carries is http's; its secrets go with it, and nobody here looks at them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;

use super::admission::{Admission, Crowded};
use crate::fault::{Fault, FaultKind};
use crate::http::{Shared, linger, note};
use crate::link::{Link, Shown};
use crate::metrics::Unsecured;
use crate::snapshot::Current;
use crate::tls::bounded::Bounded;
use crate::tls::capture::Captured;
use crate::tls::fingerprint;
use crate::tls::profile::ClientIdentity;

/// First byte of a TLS record that can open a session (RFC 8446 section 5.1, `handshake`).
const HANDSHAKE_RECORD: u8 = 22;
/// HTTP/2 as ALPN calls it (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";

/// Opens TLS sessions for this listener; clones and connections share the places for handshakes.
#[derive(Clone)]
pub(crate) struct Acceptor {
    current: Arc<Current>,
    admission: Arc<Admission>,
}

/// What a client's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Tls,
    Other,
}

/// Why a connection has no TLS session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the client did not finish its TLS handshake in time")]
    TimedOut,
    #[error(transparent)]
    Crowded(#[from] Crowded),
    #[error("the TLS handshake failed")]
    Failed(#[source] io::Error),
    #[error("no site of this listener speaks TLS any more")]
    NotServed,
    #[error("what the client's site offers cannot be set up")]
    SetUp(#[source] rustls::Error),
    #[error("the client spoke plain HTTP to a TLS listener")]
    Plain,
    #[error("the client left without a word")]
    Silent,
}

// === impl HandshakeError ===

impl HandshakeError {
    /// As the metrics have it; a client that said nothing and left wanted no session.
    pub(crate) fn why(&self) -> Option<Unsecured> {
        Some(match self {
            Self::TimedOut => Unsecured::TimedOut,
            Self::Crowded(_) => Unsecured::Crowded,
            Self::Failed(_) => Unsecured::Failed,
            Self::NotServed | Self::SetUp(_) => Unsecured::NotServed,
            Self::Plain => Unsecured::Plain,
            Self::Silent => return None,
        })
    }
}

// === impl Acceptor ===

impl Acceptor {
    /// An acceptor that always serves the table in force, on so many threads.
    pub(crate) fn new(current: Arc<Current>, threads: usize) -> Self {
        Self { current, admission: Arc::new(Admission::new(threads)) }
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
        note::unrouted(&shared.access_log, client, None, &fault);
        let answer = shared.last_words(&fault);
        let saying = linger::say_and_close(Link::Plain(stream), &answer);
        let said = timeout_at(deadline, Box::pin(saying)).await;
        return Err(said.map_or(HandshakeError::TimedOut, |()| HandshakeError::Plain));
    }
    let place = acceptor.admission.enter(deadline, patience).await?;
    timeout_at(place.deadline, Box::pin(handshake(stream, &acceptor.current)))
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

async fn handshake(stream: TcpStream, current: &Current) -> Result<Link, HandshakeError> {
    let hello =
        LazyConfigAcceptor::new(rustls::server::Acceptor::default(), Bounded::listening(stream));
    let mut begun = hello.await.map_err(HandshakeError::Failed)?;
    let said = begun.io.take_heard();
    let (wanted, http2) = {
        let serving = current.load();
        let wanted = serving.table.handshake_for(begun.client_hello().server_name());
        (wanted, serving.table.http2)
    };
    let (mut config, profile) =
        wanted.ok_or(HandshakeError::NotServed)?.map_err(HandshakeError::SetUp)?;
    if http2 {
        config.alpn_protocols.insert(0, HTTP2.to_vec());
    }
    let fingerprint = profile.tells_fingerprint().then(|| fingerprint::of(&said)).flatten();
    drop(said);
    let (config, captured) = Captured::own(config);
    let session = begun.into_stream(config).await.map_err(HandshakeError::Failed)?;
    let identity = ClientIdentity::of(session.get_ref().1, &profile).map(Arc::new);
    if let Some(identity) = &identity {
        let certificate = identity.certificate();
        let fingerprint = certificate.map(|it| it.fingerprint.as_str());
        let verdict = identity.verdict().map(tracing::field::display);
        tracing::debug!(verdict, fingerprint, "client was asked for a certificate");
    }
    Ok(Link::client(session, captured, Shown { identity, fingerprint }))
}
