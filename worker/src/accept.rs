//! From the listening socket to connections: the accept loop, the limit on connections, what to do without descriptors.
//!
//! # Invariants
//! - A socket that `accept` has returned is served: the drain is looked at only between two of them, and what is
//!   still in the kernel's queue belongs to the successor, which accepts from the same queue.
//! - The loop ends only when the drain has begun *and* each connection that it spawned has ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};

use crate::drain::Order;
use crate::http::{self, Peer, Shared};
use crate::socket;
use crate::tunnel::round_trip;

mod admission;
mod source;
mod tls;

pub(crate) use tls::Acceptor;

/// How long to leave the queue alone when there is no descriptor or memory for its next connection: it waits there,
/// and something has to end before a new try can do better.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the drain begins, then waits until every connection has ended.
pub(crate) async fn accept(listener: TcpListener, acceptor: Acceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    if let Err(error) = socket::set(&listener) {
        tracing::debug!(%error, "connections are prepared one by one");
    }
    take_connections(&listener, &acceptor, &shared, &mut connections).await;
    // This process's handle only: the supervisor and the successor have theirs, so the queue stays open.
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note_end(ended);
    }
}

async fn take_connections(
    listener: &TcpListener,
    acceptor: &Acceptor,
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
) {
    let drain = shared.drain.clone();
    let mut begun = std::pin::pin!(drain.begun());
    let mut short = false;
    loop {
        let full = is_full(shared, connections.len());
        // Every arm is cancel-safe: accept(2) is only called by a poll that returns what it took.
        tokio::select! {
            biased;
            () = &mut begun => return,
            Some(ended) = connections.join_next(), if !connections.is_empty() => note_end(ended),
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, client)) => {
                    short = false;
                    let serving = connection(stream, client, acceptor.clone(), shared.clone());
                    connections.spawn(serving);
                }
                Err(error) if is_shortage(&error) => {
                    if !std::mem::replace(&mut short, true) {
                        tracing::warn!(%error, "out of descriptors or memory: connections wait in the queue");
                    }
                    pause(&mut begun).await;
                }
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    // It listens no more: the supervisor has given the address back. Its word is on the way, unless it died
                    // before that, and then the next one must not take this worker for one that serves.
                    tracing::debug!("the listening socket was shut down");
                    let reason = "its address was given back".to_owned();
                    shared.drain.begin(Order { tunnel_deadline: None, reason });
                    return;
                }
                // The connection was gone before it was taken (accept(2), "Error handling"): not our loss.
                Err(error) => tracing::debug!(%error, "a connection ended before it was accepted"),
            },
            () = tokio::time::sleep(SHORTAGE_PAUSE), if full => {}
        }
    }
}

/// Tunnels have left their connection's task but still hold its client.
fn is_full(shared: &Shared, connections: usize) -> bool {
    let tunnels = usize::try_from(shared.tunnels.active()).unwrap_or(usize::MAX);
    connections.saturating_add(tunnels) >= shared.current.load().table.limits.max_connections
}

async fn pause(begun: &mut (impl Future<Output = ()> + Unpin)) {
    tokio::select! {
        () = begun => {}
        () = tokio::time::sleep(SHORTAGE_PAUSE) => {}
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task died");
    }
}

/// One client connection from its first byte to its last.
async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    acceptor: Acceptor,
    shared: Arc<Shared>,
) {
    let counted = shared.metrics.connection();
    if let Err(error) = socket::prepare(&stream) {
        tracing::debug!(client = %peer, %error, "client was gone at once");
        return;
    }
    let local = match stream.local_addr() {
        Ok(local) => local,
        Err(error) => {
            tracing::debug!(client = %peer, %error, "client was gone at once");
            return;
        }
    };
    let Some(client) = learn_client(&mut stream, peer, &shared).await else { return };
    if let Some(taken) = round_trip(&stream) {
        shared.metrics.observe_round_trip(taken);
    }
    let tls = shared.is_tls();
    match tls::open(stream, client, tls.then_some(&acceptor), &shared).await {
        // Boxed, as the handshake is: thousands may wait before either, and their tasks have no room for it until then.
        Ok(io) if tls::speaks_http2(&io) => {
            Box::pin(http::h2::serve(io, Peer { client, local, tls }, shared)).await;
        }
        Ok(io) => Box::pin(http::serve(io, Peer { client, local, tls }, shared)).await,
        Err(error) => {
            if let Some(why) = error.why() {
                shared.metrics.count_unsecured(why);
            }
            let error: &dyn std::error::Error = &error;
            tracing::debug!(%client, error, "no TLS session");
        }
    }
    drop(counted);
}

/// `None`: it is to be closed.
async fn learn_client(
    stream: &mut TcpStream,
    peer: SocketAddr,
    shared: &Shared,
) -> Option<SocketAddr> {
    let serving = shared.current.load();
    let patience = serving.table.limits.handshake_timeout;
    match source::learn(stream, peer, &serving.table.client_source, patience).await {
        Ok(client) => Some(client),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            if source::is_news() {
                tracing::warn!(%peer, error, "a connection was closed before it was served; more such within a minute \
                    are not told");
            } else {
                tracing::debug!(%peer, error, "a connection was closed before it was served");
            }
            None
        }
    }
}
