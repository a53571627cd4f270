//! Making one connection to one backend: addresses, TCP, TLS.
//!
//! Running out of descriptors or ports is the gateway's trouble and an error of its own: it must never be taken for
//! a backend that is down.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{Backend, Binding};
use crate::fault::{Fault, FaultKind};

/// Silence after which the kernel probes a peer, the pause between probes, and how many go unanswered: a vanished
/// peer is noticed within two minutes, and middleboxes that forget after four see traffic.
const KEEP_ALIVE_IDLE_SECS: u32 = 60;
const KEEP_ALIVE_INTERVAL_SECS: u32 = 15;
const KEEP_ALIVE_PROBES: u32 = 4;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The backend's name has no address, now or ever before.
    #[error("{backend}: the name was not resolved")]
    Resolve {
        /// `ADDRESS:PORT`.
        backend: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Descriptors, memory or local ports are used up: nothing is wrong with the backend.
    #[error("{backend}: the gateway is out of resources")]
    Exhausted {
        /// `ADDRESS:PORT`.
        backend: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No address of the backend took the connection.
    #[error("{backend}: not connected")]
    Tcp {
        /// `ADDRESS:PORT`.
        backend: String,
        /// What the last address gave.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("{backend}: not connected in time")]
    TimedOut {
        /// `ADDRESS:PORT`.
        backend: String,
    },
    /// The name to check the certificate against is not a DNS name or an IP address.
    #[error("{backend}: {name:?} cannot be a TLS server name")]
    ServerName {
        /// `ADDRESS:PORT`.
        backend: String,
        /// The name.
        name: String,
    },
    /// The TLS handshake failed.
    #[error("{backend}: TLS handshake failed")]
    Tls {
        /// `ADDRESS:PORT`.
        backend: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// HTTP could not be set up on the connection.
    #[error("{backend}: HTTP not set up")]
    Http {
        /// `ADDRESS:PORT`.
        backend: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
}

impl ConnectError {
    /// The fault of a request that met this error.
    pub const fn fault(&self) -> Fault {
        Fault::new(match self {
            Self::Exhausted { .. } => FaultKind::Busy,
            _ => FaultKind::ConnectFailed,
        })
    }
}

impl From<ConnectError> for Fault {
    fn from(error: ConnectError) -> Self {
        error.fault()
    }
}

/// A connection to a backend.
#[derive(Debug)]
pub enum BackendIo {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to a backend of a binding. `client_host` is the client's Host header, as sent, which may decide the TLS
/// name; `patience` bounds everything, TLS included.
pub async fn connect(
    binding: &Binding,
    backend: &Backend,
    client_host: &str,
    patience: Duration,
) -> Result<BackendIo, ConnectError> {
    match timeout(patience, establish(binding, backend, client_host)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::TimedOut { backend: backend.label() }),
    }
}

async fn establish(
    binding: &Binding,
    backend: &Backend,
    client_host: &str,
) -> Result<BackendIo, ConnectError> {
    let stream = dial(backend).await?;
    let (Some(tls), Some(name)) = (&binding.transport.tls, binding.tls_name(backend, client_host))
    else {
        return Ok(BackendIo::Plain(stream));
    };
    let Ok(server_name) = ServerName::try_from(name.clone()) else {
        return Err(ConnectError::ServerName { backend: backend.label(), name });
    };
    let stream = TlsConnector::from(Arc::clone(&tls.config))
        .connect(server_name, stream)
        .await
        .map_err(|source| ConnectError::Tls { backend: backend.label(), source })?;
    Ok(BackendIo::Tls(Box::new(stream)))
}

async fn dial(backend: &Backend) -> Result<TcpStream, ConnectError> {
    let failed = |source: io::Error| {
        let backend = backend.label();
        if is_exhaustion(&source) {
            ConnectError::Exhausted { backend, source }
        } else {
            ConnectError::Tcp { backend, source }
        }
    };
    let resolved;
    let addresses: &[IpAddr] = if let Some(address) = &backend.literal {
        std::slice::from_ref(address)
    } else {
        resolved = backend.resolved.of(&backend.address).await.map_err(|source| {
            let backend = backend.label();
            if is_exhaustion(&source) {
                ConnectError::Exhausted { backend, source }
            } else {
                ConnectError::Resolve { backend, source }
            }
        })?;
        &resolved
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(SocketAddr::new(*address, backend.port)).await {
            Ok(stream) => {
                tune(&stream).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) if is_exhaustion(&error) => return Err(failed(error)),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// Sets what every leg needs from its first byte: no delay, keep-alive, urgent bytes in line (they would break the
/// kernel's counters that a tunnel is resumed by).
pub fn tune(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEP_ALIVE_IDLE_SECS)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &KEEP_ALIVE_INTERVAL_SECS)?;
    setsockopt(socket, sockopt::TcpKeepCount, &KEEP_ALIVE_PROBES)?;
    socket2::SockRef::from(socket).set_out_of_band_inline(true)
}

/// Whether an error says that this process or machine has run out of something.
pub fn is_exhaustion(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw).is_some_and(|errno| {
        matches!(
            errno,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL
        )
    })
}

// === impl BackendIo ===

impl BackendIo {
    /// The TCP socket beneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for BackendIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for BackendIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
