//! The client's TLS session: which certificate, which protocol, how long a handshake may take.
//!
//! The certificate is looked up in the table that is served at the moment of the handshake, so a new certificate
//! needs no new acceptor. What the session carries is http's; its secrets go with it, and nobody here looks at them.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::fault::{Fault, FaultKind};
use crate::http::{Shared, linger};
use crate::link::Link;
use crate::pool::tls::provider;
use crate::respond;
use crate::snapshot::Current;
use crate::tls::bounded::Bounded;
use crate::tls::capture::Captured;

/// First byte of a TLS record that can open a session (RFC 8446 section 5.1, `handshake`).
const HANDSHAKE_RECORD: u8 = 22;

/// Opens TLS sessions for this listener; clones and connections share the ticket keys.
#[derive(Clone)]
pub(crate) struct Acceptor(Arc<ServerConfig>);

/// Chooses the certificate by SNI.
#[derive(Debug)]
struct ServedCertificates(Arc<Current>);

/// Why this process cannot speak TLS at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot set TLS up")]
pub struct TlsError(#[source] rustls::Error);

/// Why a connection has no TLS session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the client did not finish its TLS handshake in time")]
    TimedOut,
    #[error("the TLS handshake failed")]
    Failed(#[source] io::Error),
    #[error("the client spoke plain HTTP to a TLS listener")]
    Plain,
    #[error("the client left without a word")]
    Silent,
}

// === impl Acceptor ===

impl Acceptor {
    /// An acceptor that always serves the table in force.
    pub(crate) fn new(current: Arc<Current>) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ServedCertificates(current)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError)?;
        // A tunnel takes its session out of rustls, to survive this process.
        config.enable_secret_extraction = true;
        Ok(Self(Arc::new(config)))
    }
}

// === impl ServedCertificates ===

impl ResolvesServerCert for ServedCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().table.certificate_for(hello.server_name()).cloned()
    }
}

/// The client's byte stream: as it came on a plain listener, else after the handshake.
pub(crate) async fn open(
    stream: TcpStream,
    acceptor: Option<&Acceptor>,
    shared: &Shared,
) -> Result<Link, HandshakeError> {
    let Some(acceptor) = acceptor else { return Ok(Link::Plain(stream)) };
    let patience = shared.current.load().table.limits.handshake_timeout;
    timeout(patience, handshake(stream, acceptor, shared))
        .await
        .map_err(|_| HandshakeError::TimedOut)?
}

async fn handshake(
    stream: TcpStream,
    acceptor: &Acceptor,
    shared: &Shared,
) -> Result<Link, HandshakeError> {
    let mut first = [0; 1];
    match stream.peek(&mut first).await.map_err(HandshakeError::Failed)? {
        0 => return Err(HandshakeError::Silent),
        _ if first != [HANDSHAKE_RECORD] => {
            let fault = Fault::new(FaultKind::HttpToHttps);
            let hide_server = shared.current.load().table.hide_server_header;
            linger::say_and_close(stream, &respond::raw_fault(&fault, hide_server)).await;
            return Err(HandshakeError::Plain);
        }
        _ => {}
    }
    let (config, captured) = Captured::server(&acceptor.0);
    let session = TlsAcceptor::from(config).accept(Bounded::new(stream)).await;
    Ok(Link::tls(session.map_err(HandshakeError::Failed)?, captured))
}
