//! The chat room: what anybody says reaches everybody, on this backend and on its peer.
//!
//! Each backend follows its peer by one WebSocket of its own and passes what it hears there to its own people only,
//! so nothing goes round in circles. Invariant: memory is bounded by the two broadcast channels; who reads too slowly
//! to keep up is told so and closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Messages that a slow reader may be behind: some minutes of a lively room, at most about 1 MiB.
const MOST_BEHIND: usize = 256;

/// Longest text and name, characters; more is cut.
const LONGEST_TEXT: usize = 2000;
const LONGEST_NAME: usize = 40;

/// Longest message taken from a client, bytes: room for the longest text with every character escaped.
pub(super) const LONGEST_MESSAGE: usize = 64 * 1024;

/// A client that takes no byte for this long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(30);

/// A slow client's time to hear that it is closed.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// Before the peer is dialled again: it may be restarting, and nobody waits for it.
const REDIAL_AFTER: Duration = Duration::from_millis(500);

/// The room.
pub(super) struct Room {
    backend: String,
    /// What people here are to hear.
    everybody: broadcast::Sender<Arc<str>>,
    /// What was said here, for the peer.
    ours: broadcast::Sender<Arc<str>>,
    next_guest: AtomicU64,
}

/// What a client may say.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Said {
    /// To everybody.
    Chat { name: String, text: String },
    /// To be answered at once, with the same number.
    Ping { n: u64 },
}

/// What a client hears.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Told<'a> {
    Hello { backend: &'a str, guest: String },
    Chat { name: &'a str, text: &'a str, backend: &'a str },
    Pong { n: u64, backend: &'a str },
    Error { reason: &'a str },
}

impl Room {
    /// An empty room.
    pub(super) fn new(backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            everybody: broadcast::Sender::new(MOST_BEHIND),
            ours: broadcast::Sender::new(MOST_BEHIND),
            next_guest: AtomicU64::new(1),
        }
    }

    /// Serves one person until either side ends it.
    pub(super) async fn serve<S>(&self, mut socket: WebSocketStream<S>) -> Result<(), WsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Before the greeting, so that whoever has been greeted misses nothing.
        let mut heard = self.everybody.subscribe();
        let number = self.next_guest.fetch_add(1, Ordering::Relaxed);
        let guest = format!("{}-{number}", self.backend);
        tell(&mut socket, &Told::Hello { backend: &self.backend, guest }).await?;
        loop {
            // Both arms are cancel-safe: a stream's next() and a broadcast's recv() lose nothing when dropped.
            tokio::select! {
                said = socket.next() => match said {
                    Some(Ok(Message::Text(text))) => self.hear(&mut socket, &text).await?,
                    Some(Ok(Message::Binary(_))) => {
                        tell(&mut socket, &Told::Error { reason: "text messages only" }).await?;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                line = heard.recv() => match line {
                    Ok(line) => send(&mut socket, Message::text(&*line)).await?,
                    Err(RecvError::Lagged(_)) => return dismiss(&mut socket).await,
                    Err(RecvError::Closed) => return Ok(()),
                },
            }
        }
    }

    /// Tells the peer what is said here, until it goes.
    pub(super) async fn serve_peer<S>(&self, mut socket: WebSocketStream<S>) -> Result<(), WsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut said = self.ours.subscribe();
        loop {
            tokio::select! {
                // Cancel-safe, as above. A peer says nothing here; reading answers pings and notices its end.
                end = socket.next() => match end {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                line = said.recv() => match line {
                    Ok(line) => send(&mut socket, Message::text(&*line)).await?,
                    Err(RecvError::Lagged(_)) => return dismiss(&mut socket).await,
                    Err(RecvError::Closed) => return Ok(()),
                },
            }
        }
    }

    /// Passes on what is said at the peer; dials again whenever it goes. Ends only when dropped.
    pub(super) async fn follow(&self, peer: SocketAddr) {
        loop {
            if let Err(error) = self.follow_once(peer).await {
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "the peer is away");
            }
            sleep(REDIAL_AFTER).await;
        }
    }

    async fn follow_once(&self, peer: SocketAddr) -> Result<(), WsError> {
        let stream = TcpStream::connect(peer).await?;
        let config = WebSocketConfig::default().max_message_size(Some(LONGEST_MESSAGE));
        let (mut socket, _) =
            client_async_with_config(format!("ws://{peer}/peer"), stream, Some(config)).await?;
        tracing::debug!(%peer, "following the peer");
        while let Some(message) = socket.next().await {
            if let Message::Text(line) = message? {
                self.overhear(&line);
            }
        }
        Ok(())
    }

    async fn hear<S>(&self, socket: &mut WebSocketStream<S>, text: &str) -> Result<(), WsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match serde_json::from_str(text) {
            Ok(Said::Ping { n }) => tell(socket, &Told::Pong { n, backend: &self.backend }).await,
            Ok(Said::Chat { name, text }) => {
                let (name, text) = (cut(&name, LONGEST_NAME), cut(&text, LONGEST_TEXT));
                let told = Told::Chat { name, text, backend: &self.backend };
                let line: Arc<str> = serde_json::to_string(&told).unwrap_or_default().into();
                pass_on(&self.ours, Arc::clone(&line));
                pass_on(&self.everybody, line);
                Ok(())
            }
            Err(_) => {
                let reason = "expected {\"type\":\"chat\",\"name\":…,\"text\":…}";
                tell(socket, &Told::Error { reason }).await
            }
        }
    }

    /// Tells everybody here.
    pub(super) fn overhear(&self, line: &str) {
        pass_on(&self.everybody, line.into());
    }
}

fn pass_on(to: &broadcast::Sender<Arc<str>>, line: Arc<str>) {
    // Fails only while nobody listens, and then nobody misses it.
    drop(to.send(line));
}

fn cut(text: &str, longest: usize) -> &str {
    text.char_indices().nth(longest).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

async fn tell<S>(socket: &mut WebSocketStream<S>, told: &Told<'_>) -> Result<(), WsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(socket, Message::text(serde_json::to_string(told).unwrap_or_default())).await
}

async fn send<S>(socket: &mut WebSocketStream<S>, message: Message) -> Result<(), WsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(SEND_LIMIT, socket.send(message)).await {
        Ok(sent) => sent,
        Err(_) => Err(WsError::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Says why before closing; whoever does not read will not hear that either.
async fn dismiss<S>(socket: &mut WebSocketStream<S>) -> Result<(), WsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame =
        CloseFrame { code: CloseCode::Again, reason: "too slow: you missed messages".into() };
    match timeout(FAREWELL_LIMIT, socket.close(Some(frame))).await {
        Ok(closed) => closed,
        Err(_) => Ok(()),
    }
}
