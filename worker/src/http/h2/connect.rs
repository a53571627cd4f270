//! `WebSockets` over HTTP/2 (RFC 8441): a CONNECT with `:protocol` becomes the handshake that a backend of HTTP/1.1 knows,
//! and its stream one end of a tunnel.
//!
//! ```text
//! client ──stream── bridge ──socket pair── engine ──backend
//! ```
//! The engine has a socket for each leg, and a stream has none: so there is a pair between them, and a task that copies.
//! Such a tunnel is pinned, since its stream ends with this process. It keeps its connection from being idle.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::fault::{Fault, FaultKind};
use crate::gate::GateHandle;
use crate::http::body::Reply;
use crate::http::clock::STALL;
use crate::http::note::Note;
use crate::http::opening::{self, PendingTunnel};
use crate::http::{Conversation, RequestInFlight, service};
use crate::pool::connect::is_exhaustion;
use crate::tunnel::OpenError;
use crate::websocket::{self, BeginError};

/// A WebSocket that a client of HTTP/2 asks for.
#[derive(Debug)]
pub(super) struct Bootstrap {
    stream: OnUpgrade,
}

/// Marks a request that was a CONNECT: any success tells its client that the stream is a tunnel's.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct ByConnect;

/// A client's stream, whose bytes count as carried, either way.
struct Counted<Io> {
    io: Io,
    carried: Arc<AtomicU64>,
}

// === impl Bootstrap ===

impl Bootstrap {
    /// Recognizes a CONNECT for a WebSocket, and makes it the handshake of HTTP/1.1 (RFC 8441, section 5). The stream of
    /// any other CONNECT, which is refused, is let go of.
    pub(super) fn of(request: &mut Request<Incoming>, offered: bool) -> Option<Self> {
        let stream = request.extensions_mut().remove::<OnUpgrade>()?;
        let protocol = request.extensions_mut().remove::<Protocol>();
        let is_websocket =
            |protocol: &Protocol| protocol.as_str().eq_ignore_ascii_case("websocket");
        if !offered
            || request.method() != Method::CONNECT
            || !protocol.as_ref().is_some_and(is_websocket)
        {
            return None;
        }
        request.extensions_mut().insert(ByConnect);
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        if let Ok(key) = HeaderValue::try_from(key) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        Some(Self { stream })
    }

    /// Asks the backend. Where it agrees and the tunnel is open, the answer is a 200, and the stream is the tunnel's.
    pub(super) async fn answer(
        self,
        request: Request<Incoming>,
        connection: &Arc<Conversation>,
        in_flight: RequestInFlight,
    ) -> Response<Reply> {
        // Of its own: on a connection of HTTP/1.1 a 101 ends all other talk, here it concerns one stream.
        let gate = GateHandle::detached();
        let (shared, peer) = (connection.shared.clone(), connection.peer);
        let own = Conversation::new(
            shared,
            peer,
            connection.session.clone(),
            connection.identity.clone(),
            gate,
        );
        let mut response = service::answer(request, &own, in_flight).await;
        let Some(pending) = own.tunnel().take() else { return response };
        let site = pending.facts.site.clone();
        // A task, which a client that leaves meanwhile does not end: there would be half a tunnel.
        let opened = match tokio::spawn(open(pending, connection.clone())).await {
            Ok(opened) => opened,
            // It has panicked; what it had noted is told as it is.
            Err(_) => Err((Fault::new(FaultKind::Internal), Note::default())),
        };
        let ours = match opened {
            Ok(ours) => ours,
            Err((fault, note)) => {
                let mut in_flight = connection.begin_request();
                in_flight.note = note;
                return service::refuse_unopened(&fault, &site, connection, in_flight);
            }
        };
        response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        *response.status_mut() = StatusCode::OK;
        // Until the tunnel's end the connection is busy.
        let busy = connection.begin_request();
        let connection = connection.clone();
        tokio::spawn(async move {
            bridge(self.stream, ours, &connection).await;
            drop(busy);
        });
        response
    }
}

/// Opens the tunnel: its client is the pair's other end, which is returned. What is noted of it comes back where it has not
/// come about, and the client can still be told so.
async fn open(
    pending: PendingTunnel,
    connection: Arc<Conversation>,
) -> Result<UnixStream, (Fault, Note)> {
    let PendingTunnel { backend, facts, lingers, held, note } = pending;
    let opened = async {
        let (ours, engines) = UnixStream::pair().map_err(BeginError::Socket)?;
        let engines = engines.into_std().map_err(BeginError::Socket)?;
        let tunnels = &connection.shared.tunnels;
        let id = websocket::begin_behind(engines.into(), backend, facts, held, tunnels).await?;
        Ok::<_, BeginError>((ours, id))
    };
    match opened.await {
        Ok((ours, id)) => {
            opening::tell(&connection, id, note, lingers);
            Ok(ours)
        }
        Err(begun) => {
            let error: &dyn std::error::Error = &begun;
            tracing::debug!(client = %connection.peer.client, error, "no tunnel came about");
            Err((fault_of(&begun), note))
        }
    }
}

/// What a client that has not been told of its tunnel is told instead.
fn fault_of(error: &BeginError) -> Fault {
    Fault::new(match error {
        BeginError::Socket(source) if is_exhaustion(source) => FaultKind::Busy,
        BeginError::Open(OpenError::Full | OpenError::Refused) => FaultKind::Busy,
        BeginError::Upgrade(_) | BeginError::Session(_) => FaultKind::BackendClosed,
        _ => FaultKind::Internal,
    })
}

/// Copies between a tunnel and its client's stream, until both directions have ended or the stream has broken.
async fn bridge(stream: OnUpgrade, ours: UnixStream, connection: &Conversation) {
    let client = connection.peer.client;
    match stream.await {
        Ok(stream) => {
            let carried = connection.carried.clone();
            let stream = Counted { io: TokioIo::new(stream), carried };
            // Its end, and what became of it, is the engine's to tell.
            let ended = copy(ours, stream).await;
            tracing::debug!(%client, ?ended, "a stream's tunnel has ended");
        }
        Err(error) => tracing::debug!(%client, %error, "a stream has not come back"),
    }
}

/// Copies either way, half-closes included, until the engine has closed its end. A stream that breaks leaves the engine an
/// end without more.
async fn copy<Stream: AsyncRead + AsyncWrite>(ours: UnixStream, stream: Stream) -> io::Result<()> {
    // Another descriptor, with readiness of its own: what is cleared of it is not missed by those who write.
    let watch = StdUnixStream::from(ours.as_fd().try_clone_to_owned()?);
    let watch = UnixStream::from_std(watch)?;
    let (mut from_engine, mut to_engine) = ours.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let mut outward = pin!(async {
        tokio::io::copy(&mut from_engine, &mut to_client).await?;
        to_client.shutdown().await?;
        closed(&watch).await
    });
    let mut inward = pin!(async {
        tokio::io::copy(&mut from_client, &mut to_engine).await?;
        to_engine.shutdown().await
    });
    let mut stuck = pin!(async {
        closed(&watch).await?;
        tokio::time::sleep(STALL).await;
        Err(io::Error::from(io::ErrorKind::TimedOut))
    });
    let mut finished = false;
    loop {
        tokio::select! {
            ended = &mut outward => return ended,
            // The tunnel is over, and the client takes nothing of what is left.
            ended = &mut stuck => return ended,
            ended = &mut inward, if !finished => {
                ended?;
                finished = true;
            }
        }
    }
}

/// Waits until the other end of a pair is closed, and not only its sending half.
async fn closed(watch: &UnixStream) -> io::Result<()> {
    while !watch.ready(Interest::WRITABLE).await?.is_write_closed() {
        let clear = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        drop(watch.try_io(Interest::WRITABLE, clear));
    }
    Ok(())
}

// === impl Counted ===

impl<Io: AsyncRead + Unpin> AsyncRead for Counted<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        self.carried.fetch_add(read as u64, Ordering::Relaxed);
        outcome
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Counted<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &outcome {
            self.carried.fetch_add(*written as u64, Ordering::Relaxed);
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tokio::io::AsyncReadExt as _;

    /// The engine's end, the client's end, and what copies between them.
    fn bridged() -> (UnixStream, tokio::io::DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (ours, engine) = UnixStream::pair().unwrap();
        let (stream, client) = tokio::io::duplex(1000);
        (engine, client, tokio::spawn(copy(ours, stream)))
    }

    #[tokio::test]
    async fn bytes_go_either_way_and_a_half_close_ends_one_of_them() {
        let (mut engine, mut client, copying) = bridged();
        client.write_all(b"in").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        engine.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"in");
        engine.write_all(&[7; 5000]).await.unwrap();
        drop(engine);
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 2 + 5000);
        copying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_backend_that_has_ended_may_still_be_told_something() {
        let (mut engine, mut client, copying) = bridged();
        engine.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        client.write_all(b"late").await.unwrap();
        let mut got = [0; 4];
        engine.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"late");
        assert!(!copying.is_finished());
        drop(engine);
        copying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_tunnel_that_is_ended_ends_its_stream_whatever_the_client_does() {
        let (engine, client, copying) = bridged();
        drop(engine);
        copying.await.unwrap().unwrap();
        drop(client);
    }
}
