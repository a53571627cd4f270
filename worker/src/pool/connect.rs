//! Making one connection to one backend: addresses, TCP (`race`), TLS.
//!
//! Running out of descriptors or ports is the gateway's trouble and an error of its own: it must never be taken for
//! a backend that is down.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{Backend, Binding};
use crate::fault::{Fault, FaultKind};
use crate::link::Link;
use crate::socket;
use crate::tls::bounded::Bounded;
use crate::tls::capture::Captured;

pub(crate) mod race;

/// Between two words about a shortage in the log.
const NEWS_EVERY: Duration = Duration::from_secs(1);

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

/// Connects to a backend of a binding. `client_host` is the client's Host header, as sent, which may decide the TLS
/// name; `patience` bounds everything, TLS included.
pub async fn connect(
    binding: &Binding,
    backend: &Backend,
    client_host: &str,
    patience: Duration,
) -> Result<Link, ConnectError> {
    match timeout(patience, establish(binding, backend, client_host)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::TimedOut { backend: backend.label() }),
    }
}

async fn establish(
    binding: &Binding,
    backend: &Backend,
    client_host: &str,
) -> Result<Link, ConnectError> {
    let stream = dial(backend).await?;
    let (Some(tls), Some(name)) = (&binding.transport.tls, binding.tls_name(backend, client_host))
    else {
        return Ok(Link::Plain(stream));
    };
    let Ok(server_name) = ServerName::try_from(name.clone()) else {
        return Err(ConnectError::ServerName { backend: backend.label(), name });
    };
    let (config, captured) = Captured::client(&tls.config);
    let stream = TlsConnector::from(config)
        .connect(server_name, Bounded::new(stream))
        .await
        .map_err(|source| ConnectError::Tls { backend: backend.label(), source })?;
    Ok(Link::tls(stream, captured))
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
    let stream = race::first_of(addresses, backend.port).await.map_err(failed)?;
    socket::prepare(&stream).map_err(failed)?;
    Ok(stream)
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

/// Whether to log a shortage: a worker without descriptors meets one with every request.
pub fn exhaustion_is_news() -> bool {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let is_news = last.is_none_or(|last| now.duration_since(last) >= NEWS_EVERY);
    if is_news {
        *last = Some(now);
    }
    is_news
}

#[cfg(test)]
mod tests;
