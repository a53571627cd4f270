//! Backends in the test's own process that say who they are: in each answer, in each message of a WebSocket, and in
//! answers that go on for as long as the test wants.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::certs::Certificate;
use super::mirror::field;
use super::ports::free_port;
use super::teller::serving;

/// Length of a piece of a long body.
const PIECE: usize = 4096;

/// Backends, and what they do together; they end with this value.
pub(crate) struct Criers {
    runtime: Runtime,
    stage: Arc<Stage>,
}

/// What the test directs.
struct Stage {
    /// So many pieces of long answers may be sent, and whether that is all.
    score: watch::Sender<(usize, bool)>,
    /// Handshakes for `/held` are accepted.
    released: watch::Sender<bool>,
    asked: Mutex<BTreeSet<String>>,
}

/// A piece of a long body: each is another one.
pub(crate) fn piece(index: usize) -> Vec<u8> {
    format!("{index:08}").into_bytes().repeat(PIECE / 8)
}

// === impl Criers ===

impl Criers {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let stage = Stage {
            score: watch::Sender::new((0, false)),
            released: watch::Sender::new(false),
            asked: Mutex::default(),
        };
        Self { runtime, stage: Arc::new(stage) }
    }

    /// Starts backends of these names on one port, as one pool or several under the same settings may have them; with a
    /// certificate they speak TLS.
    pub(crate) fn group(
        &self,
        names: &[&str],
        certificate: Option<&Certificate>,
    ) -> Vec<SocketAddr> {
        let acceptor = certificate.map(|it| TlsAcceptor::from(serving(it)));
        let port = free_port();
        let start = |(name, last): (&&str, u8)| {
            let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
            let socket = self.runtime.block_on(TcpListener::bind(address)).unwrap();
            let (name, stage) = (Arc::from(*name), self.stage.clone());
            self.runtime.spawn(accept(socket, acceptor.clone(), name, stage));
            address
        };
        names.iter().zip(2..).map(start).collect()
    }

    /// Lets every long answer have one more piece.
    pub(crate) fn go_on(&self) {
        self.stage.score.send_modify(|(pieces, _)| *pieces += 1);
    }

    /// Lets every long answer end after that.
    pub(crate) fn finish(&self) {
        self.stage.score.send_modify(|(_, over)| *over = true);
    }

    /// Accepts the handshakes for `/held`.
    pub(crate) fn release(&self) {
        self.stage.released.send_replace(true);
    }

    /// Whether anybody was asked for a path.
    pub(crate) fn were_asked(&self, path: &str) -> bool {
        self.stage.asked.lock().unwrap().contains(path)
    }
}

async fn accept(
    socket: TcpListener,
    acceptor: Option<TlsAcceptor>,
    name: Arc<str>,
    stage: Arc<Stage>,
) {
    while let Ok((stream, _)) = socket.accept().await {
        let (acceptor, name, stage) = (acceptor.clone(), name.clone(), stage.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            match acceptor {
                None => converse(BufReader::new(stream), &name, &stage).await,
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await?;
                    converse(BufReader::new(stream), &name, &stage).await
                }
            }
        });
    }
}

/// Answers requests, the last of which may be for a WebSocket.
async fn converse<Stream: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<Stream>,
    name: &str,
    stage: &Stage,
) -> io::Result<()> {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        stage.asked.lock().unwrap().insert(path.clone());
        let lower = head.to_ascii_lowercase();
        if lower.contains("\r\nupgrade: websocket\r\n") {
            if path.starts_with("/held") {
                stage.released.subscribe().wait_for(|released| *released).await.unwrap();
            }
            let key = field(&head, "sec-websocket-key").unwrap_or_default();
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            say(&mut stream, answer.as_bytes()).await?;
            return echo(stream, name).await;
        }
        match path.as_str() {
            "/long" => long(&mut stream, stage).await?,
            "/silent" => std::future::pending().await,
            _ => {
                let pieces = if lower.contains("\r\ntransfer-encoding: chunked\r\n") {
                    pieces(&mut stream).await?
                } else {
                    0
                };
                let body = format!("{name}\n{pieces} pieces\n{head}");
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                say(&mut stream, answer.as_bytes()).await?;
            }
        }
    }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// An answer of as many pieces as the test wants, when it wants them.
async fn long(stream: &mut (impl AsyncWrite + Unpin), stage: &Stage) -> io::Result<()> {
    say(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let mut score = stage.score.subscribe();
    for index in 0.. {
        let due = |&(pieces, over): &(usize, bool)| pieces > index || over;
        if score.wait_for(due).await.is_ok_and(|now| now.0 <= index) {
            break;
        }
        let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &piece(index), b"\r\n"].concat();
        say(stream, &chunk).await?;
    }
    say(stream, b"0\r\n\r\n").await
}

/// How many pieces a chunked body has; one that has anything else is an error.
async fn pieces<Stream: AsyncRead + Unpin>(stream: &mut BufReader<Stream>) -> io::Result<usize> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let begin = body.len();
        body.resize(begin + size, 0);
        stream.read_exact(&mut body[begin..]).await?;
        stream.read_line(&mut line).await?;
        if size == 0 {
            break;
        }
    }
    let whole: Vec<u8> = (0..body.len() / PIECE).flat_map(piece).collect();
    let same = whole == body;
    same.then_some(body.len() / PIECE).ok_or_else(|| io::Error::other("other bytes than were sent"))
}

/// Sends messages back with the name before them, and without the mask of zeroes that the tests' clients use.
async fn echo<Stream: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<Stream>,
    name: &str,
) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let length = match head[1] & 0x7f {
            126 => usize::from(stream.read_u16().await?),
            127 => usize::try_from(stream.read_u64().await?).map_err(io::Error::other)?,
            short => usize::from(short),
        };
        let mut payload = vec![0; length + 4];
        stream.read_exact(&mut payload).await?;
        let back = [name.as_bytes(), b" ", &payload[4..]].concat();
        let mut frame = vec![0x81];
        match u16::try_from(back.len()) {
            Ok(short @ 0..126) => frame.push(u8::try_from(short).unwrap()),
            Ok(medium) => {
                frame.push(126);
                frame.extend_from_slice(&medium.to_be_bytes());
            }
            Err(_) => {
                frame.push(127);
                frame.extend_from_slice(&(back.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&back);
        say(&mut stream, &frame).await?;
    }
}
