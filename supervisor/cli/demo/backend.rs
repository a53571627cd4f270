//! One of the demo's backends: a plain HTTP server with an echo, a chat room and a page, in a process of its own.
//!
//! It reports where it listens as one line on standard output and takes orders as lines on standard input; the end
//! of standard input is the end of the backend, so none is left behind when the demo is killed.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::chat::{self, Room};
use super::page;
use crate::{logging, output};

/// Before the address in the line on standard output.
pub(super) const REPORT: &str = "listening ";

/// Before the other backend's address in a line on standard input.
pub(super) const PEER_ORDER: &str = "peer ";

/// Longest message that is echoed, bytes.
const LONGEST_ECHO: usize = 16 * 1024 * 1024;

/// Orders that may wait; there is one in a backend's life.
const WAITING_ORDERS: usize = 4;

/// After a failed accept (too many descriptors): time for connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Full<Bytes>>;

/// What the backend's connections share.
struct Backend {
    name: String,
    room: Room,
}

/// What a WebSocket is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Echo,
    Chat,
    Peer,
}

/// Serves until SIGTERM, or until standard input ends.
pub(crate) fn run(name: &str, listen: SocketAddr) -> anyhow::Result<()> {
    let _log = logging::start("backend");
    raise_descriptor_limit();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(async {
            let listener = TcpListener::bind(listen)
                .await
                .with_context(|| format!("the backend {name} cannot listen on {listen}"))?;
            let mut terminated =
                signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
            output::print(&format!("{REPORT}{}\n", listener.local_addr()?))?;
            let backend = Arc::new(Backend::new(name));
            // Cancel-safe in that nothing is to go on once one of them has ended.
            tokio::select! {
                () = accept(listener, Arc::clone(&backend)) => {}
                () = obey(orders(), &backend) => {}
                _ = terminated.recv() => {}
            }
            Ok(())
        })
}

/// Every tunnel costs a descriptor; a shell's usual soft limit is 1024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Lines of standard input; the channel closes where it ends. A thread, as a blocked read of a pipe cannot be
/// cancelled; it ends with the process.
fn orders() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(WAITING_ORDERS);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Follows whichever peer was named last; returns where the orders end.
async fn obey(mut orders: mpsc::Receiver<String>, backend: &Arc<Backend>) {
    let mut following = JoinSet::new();
    while let Some(order) = orders.recv().await {
        match order.trim().strip_prefix(PEER_ORDER).map(str::parse) {
            Some(Ok(peer)) => {
                following.abort_all();
                let backend = Arc::clone(backend);
                following.spawn(async move { backend.room.follow(peer).await });
            }
            _ => tracing::warn!(%order, "an order that this backend does not know"),
        }
    }
}

async fn accept(listener: TcpListener, backend: Arc<Backend>) {
    let mut connections = JoinSet::new();
    loop {
        // Cancel-safe: accept() takes no connection when dropped, join_next() no result.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(Arc::clone(&backend).serve(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

// === impl Backend ===

impl Backend {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), room: Room::new(name) }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let service = service_fn(move |request| {
            let answer = Arc::clone(&self).answer(request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection failed");
        }
    }

    fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let purpose = match request.uri().path() {
            "/echo" => Purpose::Echo,
            "/chat" => Purpose::Chat,
            "/peer" => Purpose::Peer,
            path => return self.answer_plainly(request.method(), path),
        };
        match accept_key(request.method(), request.headers()) {
            Ok(key) => {
                tokio::spawn(self.converse(request, purpose));
                switching(&key)
            }
            Err(refusal) => *refusal,
        }
    }

    fn answer_plainly(&self, method: &Method, path: &str) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET here\n".to_owned());
        }
        match path {
            "/" => page::response(),
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/whoami" => text(StatusCode::OK, self.name.clone()),
            _ => text(StatusCode::NOT_FOUND, "nothing here; try /\n".to_owned()),
        }
    }

    fn converse(
        self: Arc<Self>,
        request: Request<Incoming>,
        purpose: Purpose,
    ) -> impl Future<Output = ()> {
        let longest = match purpose {
            Purpose::Echo => LONGEST_ECHO,
            Purpose::Chat | Purpose::Peer => chat::LONGEST_MESSAGE,
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(longest))
            .max_frame_size(Some(longest));
        async move {
            let stream = match hyper::upgrade::on(request).await {
                Ok(upgraded) => TokioIo::new(upgraded),
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "no upgrade");
                    return;
                }
            };
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
            let ended = match purpose {
                Purpose::Echo => echo(socket).await,
                Purpose::Chat => Box::pin(self.room.serve(socket)).await,
                Purpose::Peer => Box::pin(self.room.serve_peer(socket)).await,
            };
            if let Err(error) = ended {
                tracing::debug!(?purpose, error = &error as &dyn std::error::Error, "ended");
            }
        }
    }
}

/// Sends back what comes, as it comes; a client that does not read is not read from either.
async fn echo<S>(mut socket: WebSocketStream<S>) -> Result<(), WsError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = socket.next().await {
        let message = message?;
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).await?;
        }
    }
    Ok(())
}

// === the opening handshake (RFC 6455, section 4.2) ===

/// The `Sec-WebSocket-Accept` of a request that is a proper opening handshake.
fn accept_key(method: &Method, headers: &HeaderMap) -> Result<String, Box<Answer>> {
    let refuse = |status, reason: &str| Err(Box::new(text(status, format!("{reason}\n"))));
    if method != Method::GET || !lists(headers, &UPGRADE, "websocket") {
        let mut answer = text(StatusCode::UPGRADE_REQUIRED, "a WebSocket lives here\n".to_owned());
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Err(Box::new(answer));
    }
    if !lists(headers, &CONNECTION, "upgrade") {
        return refuse(StatusCode::BAD_REQUEST, "Connection does not name Upgrade");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = text(StatusCode::UPGRADE_REQUIRED, "version 13 only\n".to_owned());
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(answer));
    }
    // 16 bytes in base64 are 24 characters.
    match headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24) {
        Some(key) => Ok(derive_accept_key(key.as_bytes())),
        None => refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing or malformed"),
    }
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

fn switching(accept_key: &str) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(key) = HeaderValue::from_str(accept_key) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    }
    response
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests;
