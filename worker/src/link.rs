//! One TCP connection, to a client or a backend, with or without TLS. It only passes on; what is said is others' matter.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::tls::bounded::Bounded;
use crate::tls::capture::Captured;
use crate::tls::names;
use crate::tls::profile::ClientIdentity;

/// A connection's byte stream.
#[derive(Debug)]
pub enum Link {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over TCP, handshake done; the session knows which side we are.
    Tls(Box<Secured>),
}

/// A TLS session with rustls, and what it takes for the session to leave it.
#[derive(Debug)]
pub struct Secured {
    pub(crate) stream: TlsStream<Bounded<TcpStream>>,
    pub(crate) captured: Arc<Captured>,
    shown: Shown,
}

/// What a client has let be seen of itself in its handshake; nothing of a backend.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Of a client that was asked for a certificate.
    pub(crate) identity: Option<Arc<ClientIdentity>>,
    /// What software it is, where backends are told.
    pub(crate) fingerprint: Option<HeaderValue>,
}

// === impl Link ===

impl Link {
    /// TLS with its handshake done, as either side, with the secrets that the handshake has left.
    pub(crate) fn tls(
        stream: impl Into<TlsStream<Bounded<TcpStream>>>,
        captured: Arc<Captured>,
    ) -> Self {
        Self::Tls(Box::new(Secured { stream: stream.into(), captured, shown: Shown::default() }))
    }

    /// The same to a client, with what it has shown.
    pub(crate) fn client(
        stream: impl Into<TlsStream<Bounded<TcpStream>>>,
        captured: Arc<Captured>,
        shown: Shown,
    ) -> Self {
        Self::Tls(Box::new(Secured { stream: stream.into(), captured, shown }))
    }

    /// Who the client has shown to be, where it was asked.
    pub(crate) fn identity(&self) -> Option<Arc<ClientIdentity>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secured) => secured.shown.identity.clone(),
        }
    }

    /// What software the client is, where backends are told.
    pub(crate) fn fingerprint(&self) -> Option<HeaderValue> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secured) => secured.shown.fingerprint.clone(),
        }
    }

    /// Protocol and cipher suite of the TLS session, by OpenSSL's names.
    pub(crate) fn negotiated(&self) -> Option<(&'static str, &'static str)> {
        let Self::Tls(secured) = self else { return None };
        let session = secured.stream.get_ref().1;
        let suite = session.negotiated_cipher_suite()?.suite();
        Some((names::protocol(session.protocol_version()?), names::cipher(suite)))
    }

    /// The TCP socket beneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(secured) => secured.stream.get_ref().0.get_ref(),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(secured) => secured.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_shutdown(cx),
        }
    }
}
