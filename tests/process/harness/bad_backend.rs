//! Backends that break the rules. They answer probes well, so that the gateway sends them clients.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// What is done to a request that is no probe.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Misbehaviour {
    /// Never a byte.
    Silent,
    /// Bytes that are no HTTP.
    Garbage,
    /// 200 with a body, to an upgrade too.
    PlainOk,
    /// 101 with a `Sec-WebSocket-Accept` of another key.
    WrongAccept,
    /// 101 without an `Upgrade` header.
    NoUpgradeHeader,
    /// The connection ends in the middle of the answer's head.
    ClosesInHead,
    /// The connection ends in the middle of the answer's body.
    ClosesInBody,
    /// A good 101, then never a read.
    NeverReads,
    /// A good 101, then FIN at once.
    FinishesAtOnce,
    /// An answer of 64 MiB, or a good 101 to an upgrade, with no echo.
    Large,
}

/// A misbehaving backend; its threads end with the test's process.
pub(crate) struct BadBackend {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicU32>,
}

impl BadBackend {
    /// Starts it on 127.0.0.1.
    pub(crate) fn start(misbehaviour: Misbehaviour) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let requests = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let count = Arc::clone(&count);
                thread::spawn(move || drop(serve(&stream, misbehaviour, &count)));
            }
        });
        Self { address, requests }
    }

    /// How many requests other than probes have come.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: &TcpStream,
    misbehaviour: Misbehaviour,
    count: &AtomicU32,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        if head.contains(" /healthz ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        count.fetch_add(1, Ordering::SeqCst);
        return misbehave(
            stream,
            misbehaviour,
            head.to_ascii_lowercase().contains("upgrade:"),
            &head,
        );
    }
}

fn misbehave(
    mut stream: &TcpStream,
    misbehaviour: Misbehaviour,
    upgrade: bool,
    head: &str,
) -> std::io::Result<()> {
    let switch = |accept: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    };
    match misbehaviour {
        Misbehaviour::Silent => hold(),
        Misbehaviour::Garbage => stream.write_all(b"\x00\x01garbage\r\n\r\n")?,
        Misbehaviour::PlainOk => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")?;
            hold();
        }
        Misbehaviour::WrongAccept => {
            stream.write_all(switch("AAAAAAAAAAAAAAAAAAAAAAAAAAA=").as_bytes())?;
            hold();
        }
        Misbehaviour::NoUpgradeHeader => {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
            hold();
        }
        Misbehaviour::ClosesInHead => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")?,
        Misbehaviour::ClosesInBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
        }
        Misbehaviour::Large if !upgrade => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")?;
            stream.write_all(&vec![b'z'; 64 << 20])?;
            return serve(stream, misbehaviour, &AtomicU32::new(0));
        }
        Misbehaviour::NeverReads | Misbehaviour::Large => {
            stream.write_all(switch(&accept_of(head)).as_bytes())?;
            hold();
        }
        Misbehaviour::FinishesAtOnce => {
            stream.write_all(switch(&accept_of(head)).as_bytes())?;
        }
    }
    Ok(())
}

/// The tests' clients all use the key of RFC 6455 section 1.3; a gateway may pass it on or use its own.
fn accept_of(head: &str) -> String {
    assert!(head.contains("dGhlIHNhbXBsZSBub25jZQ=="), "the gateway changed Sec-WebSocket-Key");
    "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned()
}

/// Keeps the connection open for longer than any test.
fn hold() {
    thread::park_timeout(Duration::from_secs(600));
}
