//! From two upgraded connections to a tunnel.
//!
//! Both hyper connections are taken apart into their sockets, their TLS sessions and the bytes that hyper had read
//! ahead. The client's 101, captured by the gate, becomes the first bytes of the tunnel towards it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::gate::{Gate, GateHandle};
use crate::link::Link;
use crate::load::Held;
use crate::tls::session::{self, Stayed};
use crate::tunnel::{Leg, OpenError, Preludes, TunnelFacts, TunnelId, Tunnels};

/// How long a peer may take to read what rustls has still to say to it: a few hundred bytes, mostly none.
const LEAVING: Duration = Duration::from_secs(10);

/// Why two upgraded connections did not become a tunnel. The client has not heard the 101.
#[derive(Debug, Error)]
pub enum BeginError {
    /// The service returned its 101 with the gate open.
    #[error("the gate was open when the 101 was written")]
    GateOpen,
    /// A side of the tunnel went away between its handshake and the tunnel.
    #[error("an upgrade did not come about")]
    Upgrade(#[source] hyper::Error),
    /// The client did not take what was sent to it before.
    #[error("an upgrade did not come about in {0:?}")]
    Slow(Duration),
    /// A connection of ours runs over a stream of another type than expected.
    #[error("the {0} stream has an unknown type")]
    Foreign(&'static str),
    /// A socket could not be taken from the runtime.
    #[error("a socket could not be taken over")]
    Socket(#[source] io::Error),
    /// A TLS session did not leave rustls, and was lost over it.
    #[error("a TLS session could not be taken over")]
    Session(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The engine did not take the tunnel.
    #[error("the tunnel could not be opened")]
    Open(#[source] OpenError),
}

/// Awaits both upgrades and hands the tunnel to the engine, which then says the 101 to the client.
///
/// `held` counts the handshake with its backend until then. The wait is bounded by the tunnel's idle timeout: a client may still have to read an earlier response.
pub async fn begin(
    client: OnUpgrade,
    gate: GateHandle,
    backend: OnUpgrade,
    facts: TunnelFacts,
    held: Held,
    tunnels: &Tunnels,
) -> Result<TunnelId, BeginError> {
    if !gate.is_capturing() {
        return Err(BeginError::GateOpen);
    }
    let both = futures_util::future::try_join(client, backend);
    let (client, backend) = if facts.idle_timeout.is_zero() {
        both.await
    } else {
        let limit = facts.idle_timeout;
        tokio::time::timeout(limit, both).await.map_err(|_| BeginError::Slow(limit))?
    }
    .map_err(BeginError::Upgrade)?;
    let both = futures_util::future::try_join(take_client(client), take_backend(backend));
    let both = tokio::time::timeout(LEAVING, both).await.map_err(|_| BeginError::Slow(LEAVING))?;
    let ((client, head, from_client), (backend, from_backend)) = both?;
    let preludes = Preludes { head, to_client: from_backend, to_backend: from_client };
    // The tunnel is counted itself from here on.
    drop(held);
    tunnels.open(client, backend, preludes, facts).await.map_err(BeginError::Open)
}

/// The same for a client that has no socket of its own, but one end of a pair. It hears of the 101 by other means.
pub async fn begin_behind(
    client: OwnedFd,
    backend: OnUpgrade,
    facts: TunnelFacts,
    held: Held,
    tunnels: &Tunnels,
) -> Result<TunnelId, BeginError> {
    let backend = async { take_backend(backend.await.map_err(BeginError::Upgrade)?).await };
    let (backend, from_backend) =
        tokio::time::timeout(LEAVING, backend).await.map_err(|_| BeginError::Slow(LEAVING))??;
    let preludes = Preludes { to_client: from_backend, ..Preludes::default() };
    drop(held);
    tunnels.open(Leg::plain(client), backend, preludes, facts).await.map_err(BeginError::Open)
}

async fn take_client(upgraded: Upgraded) -> Result<(Leg, Vec<u8>, Vec<u8>), BeginError> {
    let parts =
        upgraded.downcast::<TokioIo<Gate>>().map_err(|_| BeginError::Foreign("client's"))?;
    let (link, head) = parts.io.into_inner().into_parts();
    let mut early = parts.read_buf.to_vec();
    Ok((leg(link, &mut early).await?, head, early))
}

async fn take_backend(upgraded: Upgraded) -> Result<(Leg, Vec<u8>), BeginError> {
    let parts =
        upgraded.downcast::<TokioIo<Link>>().map_err(|_| BeginError::Foreign("backend's"))?;
    let mut early = parts.read_buf.to_vec();
    Ok((leg(parts.io.into_inner(), &mut early).await?, early))
}

/// The leg of a connection; `early` gets what rustls had opened behind what hyper has read.
async fn leg(link: Link, early: &mut Vec<u8>) -> Result<Leg, BeginError> {
    let socket = |stream: TcpStream| stream.into_std().map_err(BeginError::Socket);
    let secured = match link {
        Link::Plain(stream) => return Ok(Leg::plain(socket(stream)?.into())),
        Link::Tls(secured) => secured,
    };
    match session::leave(secured.stream, &secured.captured).await {
        Ok(left) => {
            early.extend_from_slice(&left.early);
            Ok(Leg::departed(socket(left.socket)?.into(), left.departed))
        }
        Err(Stayed::Pinned { connection, socket: stream, why }) => {
            let why: &dyn std::error::Error = &why;
            tracing::debug!(why, "a TLS session stays with this process: its tunnel is pinned");
            Ok(Leg::tls(socket(stream)?.into(), *connection))
        }
        Err(Stayed::Lost(loss)) => Err(BeginError::Session(loss.into())),
    }
}
