//! Load for the measurements in `tests/bench`: many idle connections, or messages that come back.
//!
//! `load idle PORT COUNT AT_ONCE [CA]` opens them, so many at a time, and holds them; for each line on standard input it
//! lets every one of them echo and says how many did, and at its end it leaves.
//! `load opens PORT COUNT AT_ONCE [CA]` opens so many in all, and closes each as soon as it is open; no TLS session is resumed.
//! `load echo PORT CONNECTIONS SECONDS [CA]` sends 128-byte messages, one at a time each, and prints how many came back.
//! `load connects PORT RATE CLIENTS [CA]` makes RATE connections a second, one request each, until standard input ends,
//! and prints what became of them.
//! With CA, a PEM file, the connections speak TLS.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measuring tool: what goes wrong ends the run"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const PAYLOAD: usize = 128;
/// How long a connection may be silent while something is due on it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection's bytes, in either dress.
trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}
type Stream = BufReader<Box<dyn Wire>>;

/// Where connections go.
struct Target {
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments[index].parse::<u64>().unwrap();
    let tls = arguments.get(4).map(|file| trusting(file));
    let target = Target { port: u16::try_from(number(1)).unwrap(), tls };
    match arguments[0].as_str() {
        "idle" => idle(&target, number(2), number(3)),
        "opens" => opens(&target, number(2), number(3)),
        "echo" => echo(&target, number(2), Duration::from_secs(number(3))),
        "connects" => connects(&target, number(2), number(3)),
        other => panic!("unknown mode {other}"),
    }
}

fn trusting(file: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Connects from a loopback address of its block, so that 28,000 ephemeral ports are no bound.
fn dial(target: &Target, index: u64) -> io::Result<Stream> {
    let block = u8::try_from(index / 20_000 % 200).unwrap();
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 1, block + 1, 0))?;
    connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, target.port))?;
    let socket = TcpStream::from(fd);
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let wire: Box<dyn Wire> = match &target.tls {
        None => Box::new(socket),
        Some(config) => {
            let name = ServerName::try_from("localhost").unwrap();
            let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(session, socket))
        }
    };
    Ok(BufReader::with_capacity(512, wire))
}

/// Opens a WebSocket.
fn open(target: &Target, index: u64) -> io::Result<Stream> {
    let mut stream = dial(target, index)?;
    stream.get_mut().write_all(
        b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if !line.contains(" 101 ") {
        return Err(io::Error::other(format!("connection {index}: {line:?}")));
    }
    while line.trim_end() != "" {
        line.clear();
        stream.read_line(&mut line)?;
    }
    Ok(stream)
}

fn idle(target: &Target, count: u64, at_once: u64) {
    let share = |first: u64| {
        let mine = (first..count).step_by(usize::try_from(at_once).unwrap());
        mine.map(|index| open(target, index).unwrap()).collect::<Vec<_>>()
    };
    let mut open: Vec<Stream> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..at_once).map(|first| scope.spawn(move || share(first))).collect();
        openers.into_iter().flat_map(|opener| opener.join().unwrap()).collect()
    });
    println!("open {count}");
    for _ in io::stdin().lines() {
        let echoes = open.iter_mut().filter_map(|stream| round_trip(stream, &message()).ok());
        println!("echoed {}", echoes.count());
    }
}

fn opens(target: &Target, count: u64, at_once: u64) {
    std::thread::scope(|scope| {
        for first in 0..at_once {
            scope.spawn(move || {
                for index in (first..count).step_by(usize::try_from(at_once).unwrap()) {
                    open(target, index).unwrap();
                }
            });
        }
    });
    println!("opened {count}");
}

fn echo(target: &Target, connections: u64, span: Duration) {
    let streams: Vec<_> = (0..connections).map(|index| open(target, index).unwrap()).collect();
    println!("open {connections}");
    let end = Instant::now() + span;
    let total: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> =
            streams.into_iter().map(|stream| scope.spawn(move || repeat(stream, end))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    println!("messages {total}");
}

/// What became of connections, by outcome: a status, or what went wrong at which step.
type Outcomes = std::collections::BTreeMap<String, u64>;

fn connects(target: &Target, rate: u64, clients: u64) {
    let over = std::sync::atomic::AtomicBool::new(false);
    let begin = Instant::now();
    let outcomes = std::sync::Mutex::new(Outcomes::new());
    let client = |first: u64| {
        let mut own = Outcomes::new();
        let mut late = Duration::ZERO;
        for index in (first..).step_by(usize::try_from(clients).unwrap()) {
            // Each has its due time, so that a slow answer is caught up with and not left out.
            let due = begin + Duration::from_secs(index) / u32::try_from(rate).unwrap();
            let now = Instant::now();
            if due > now {
                std::thread::park_timeout(due - now);
            }
            if over.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            *own.entry(request(target, index)).or_default() += 1;
            late = late.max(due.elapsed());
        }
        let mut all = outcomes.lock().unwrap();
        for (outcome, count) in own {
            *all.entry(outcome).or_default() += count;
        }
        late
    };
    let longest = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..clients).map(|first| scope.spawn(move || client(first))).collect();
        io::stdin().lines().for_each(drop);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        running.into_iter().map(|client| client.join().unwrap()).max().unwrap()
    });
    let outcomes = outcomes.into_inner().unwrap();
    let total: u64 = outcomes.values().sum();
    println!("connects {total} in {:.1} s", begin.elapsed().as_secs_f64());
    for (outcome, count) in &outcomes {
        println!("{outcome} {count}");
    }
    println!("longest from due to answered {} ms", longest.as_millis());
}

/// One connection with one request on it, to the end of both.
fn request(target: &Target, index: u64) -> String {
    let told = |step: &str, error: &io::Error| format!("{step}: {}", error.kind());
    let mut stream = match dial(target, index) {
        Ok(stream) => stream,
        Err(error) => return told("connect", &error),
    };
    let head = b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if let Err(error) = stream.get_mut().write_all(head) {
        return told("send", &error);
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => return told("before the first byte", &error),
        Err(error) => return told("after the first byte", &error),
        Ok(0) => return "ended before the first byte".to_owned(),
        Ok(_) => {}
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status = line.get(9..12).unwrap_or_default();
    format!("status {}", String::from_utf8_lossy(status))
}

fn repeat(mut stream: Stream, end: Instant) -> u64 {
    let message = message();
    let mut count = 0;
    while Instant::now() < end {
        round_trip(&mut stream, &message).unwrap();
        count += 1;
    }
    count
}

/// A masked binary frame, with the mask 0.
fn message() -> Vec<u8> {
    let mut frame = vec![0x82, 0x80 + 126, 0, u8::try_from(PAYLOAD).unwrap(), 0, 0, 0, 0];
    frame.resize(8 + PAYLOAD, b'm');
    frame
}

fn round_trip(stream: &mut Stream, message: &[u8]) -> io::Result<()> {
    stream.get_mut().write_all(message)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[1] != 126 || length != PAYLOAD {
        return Err(io::Error::other("another message came back"));
    }
    stream.read_exact(&mut [0; PAYLOAD])
}
