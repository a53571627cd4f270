//! Connections of operators over TCP, from accept to their end: never more than so many, and each can be ended from here.
//!
//! No byte is read here; a connection counts as admitted when the TLS above it has verified its client's certificate.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use futures_util::stream::unfold;
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::transport::server::Connected;

/// Open connections, those that still shake hands among them. Operators are few; who finds no place waits in the queue
/// of the socket, and the unix socket is not concerned.
const MOST: usize = 64;
/// Before the next accept when there are no descriptors left: they come back when something is closed.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about callers that were turned away: anybody can be one, as often as he likes.
const QUIET: Duration = Duration::from_secs(1);

/// The connections of one door.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<BTreeMap<u64, OwnedFd>>,
    next: AtomicU64,
    /// Those that are not admitted yet.
    shaking: watch::Sender<usize>,
    /// No more are accepted.
    closed: watch::Sender<bool>,
    turned_away: Mutex<TurnedAway>,
}

/// Callers that were not told of in the log, since the last one that was.
#[derive(Debug, Default)]
struct TurnedAway {
    last: Option<Instant>,
    untold: u64,
}

/// Where a call comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    number: u64,
    address: SocketAddr,
    admitted: AtomicBool,
    all: Arc<Connections>,
    _place: OwnedSemaphorePermit,
}

// === impl Connections ===

impl Connections {
    /// Whoever dials, for ever; never an error, which would end who asks.
    pub(super) fn incoming(
        self: Arc<Self>,
        listener: TcpListener,
    ) -> impl Stream<Item = io::Result<Connection>> {
        let places = Arc::new(Semaphore::new(MOST));
        unfold((self, listener, places, false), |(all, listener, places, mut short)| async move {
            loop {
                // Nobody closes it.
                let place = places.clone().acquire_owned().await.ok()?;
                // Cancel-safe: who is not accepted here stays in the queue.
                let accepted = tokio::select! {
                    biased;
                    // Not the end of it: that would end those that shake hands.
                    () = all.is_closed() => pending().await,
                    accepted = accept(&listener, &all, place) => accepted,
                };
                match accepted {
                    Ok(connection) => {
                        return Some((Ok(connection), (all, listener, places, false)));
                    }
                    // Nobody listens any more on what was given back.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => pending().await,
                    Err(error) => {
                        // Once a shortage: it is asked for many times.
                        if !std::mem::replace(&mut short, true) {
                            tracing::warn!(%error, "cannot accept operators over the network: they wait in the queue");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        })
    }

    /// Accepts no more, and waits for those that shake hands: who has come in time is served.
    pub(super) async fn close(&self) {
        self.closed.send_replace(true);
        // Its sender is here.
        drop(self.shaking.subscribe().wait_for(|shaking| *shaking == 0).await);
    }

    async fn is_closed(&self) {
        drop(self.closed.subscribe().wait_for(|closed| *closed).await);
    }

    fn has_shaken(&self) {
        self.shaking.send_modify(|shaking| *shaking = shaking.saturating_sub(1));
    }

    /// Ends all of them, whatever is under way.
    pub(super) fn cut(&self) {
        for socket in lock(&self.open).values() {
            // One that its peer has ended meanwhile is as good.
            rustix::net::shutdown(socket, Shutdown::Both).unwrap_or_default();
        }
    }

    fn tell_turned_away(&self, address: SocketAddr) {
        let mut turned_away = lock(&self.turned_away);
        if turned_away.last.is_some_and(|last| last.elapsed() < QUIET) {
            turned_away.untold += 1;
            return;
        }
        turned_away.last = Some(Instant::now());
        let others = std::mem::take(&mut turned_away.untold);
        tracing::info!(
            %address,
            others,
            "admin over the network: a caller was turned away, which has shown no certificate that is good here"
        );
    }
}

async fn accept(
    listener: &TcpListener,
    all: &Arc<Connections>,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    let (stream, address) = listener.accept().await?;
    // Without it a short answer waits for an acknowledgement.
    stream.set_nodelay(true)?;
    let number = all.next.fetch_add(1, Ordering::Relaxed);
    lock(&all.open).insert(number, stream.as_fd().try_clone_to_owned()?);
    all.shaking.send_modify(|shaking| *shaking += 1);
    let (all, admitted) = (all.clone(), AtomicBool::new(false));
    Ok(Connection { stream, number, address, admitted, all, _place: place })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Connection ===

impl Connected for Connection {
    type ConnectInfo = Peer;

    /// Asked for once TLS is established.
    fn connect_info(&self) -> Peer {
        if !self.admitted.swap(true, Ordering::Relaxed) {
            self.all.has_shaken();
        }
        Peer { address: self.address }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.all.open).remove(&self.number);
        if !self.admitted.load(Ordering::Relaxed) {
            self.all.has_shaken();
            self.all.tell_turned_away(self.address);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
