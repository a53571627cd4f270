//! Hostile clients of HTTP/2, and a victim beside them, for `tests/bench/floods`.
//!
//! `floods victim PORT CA SECONDS EVERY_MS` echoes 128 bytes over a WebSocket (wss) every so often and prints
//! `MESSAGES P50 P99 MAX`, in µs from when each message was due.
//! `floods KIND PORT CA SECONDS REDIALS MANY` floods: as fast as it can, and after it was cut off again, on at most REDIALS
//! connections a second. `slow` has MANY connections at once, a byte of a head a second each. It says `ready` on standard
//! error when it begins, and in the end prints
//! `DIALS CUT FRAMES BYTES MS MOST_FRAMES MOST_BYTES MOST_MS OPEN`: connections, how many of them were cut off, the medians and the largest
//! of what it could send before, and the connections that were not cut off at the end. What was still on the way counts.
//! All ends with the first of SECONDS, or with a panic.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a measuring tool: what goes wrong ends the run"
)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is made frames at a time: a TLS record.
const BATCH: usize = 16 * 1024;
/// Little, so that what is on the way to the gateway is little beside what it has taken.
const ROOM: usize = 16 * 1024;
const PAYLOAD: usize = 128;
const SECOND: Duration = Duration::from_secs(1);
/// Of a slow client: what its head announces.
const ANNOUNCED: u32 = 8 * 1024;
const GOAWAY: u8 = 7;

/// A GET of `/`, as HPACK writes it (RFC 7541, without a table).
const GET: &[u8] = b"\x82\x87\x84\x01\x09localhost";

/// What a hostile client does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    RapidReset,
    Continuation,
    Ping,
    Settings,
    EmptyData,
    WindowUpdate,
    Slow,
}

/// One hostile connection.
struct Hostile {
    stream: StreamOwned<ClientConnection, TcpStream>,
    began: Instant,
    next_stream: u32,
    frames: u64,
    bytes: u64,
    heard: Vec<u8>,
}

/// What a connection could send before it was cut off.
#[derive(Clone, Copy, Default)]
struct Cut {
    frames: u64,
    bytes: u64,
    ms: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port: u16 = arguments[1].parse().unwrap();
    let span = Duration::from_secs(arguments[3].parse().unwrap());
    if arguments[0] == "victim" {
        let every = Duration::from_millis(arguments[4].parse().unwrap());
        return victim(port, &trusting(&arguments[2], &[]), span, every);
    }
    let config = trusting(&arguments[2], &[b"h2"]);
    let kind = match arguments[0].as_str() {
        "rapid-reset" => Kind::RapidReset,
        "continuation" => Kind::Continuation,
        "ping" => Kind::Ping,
        "settings" => Kind::Settings,
        "empty-data" => Kind::EmptyData,
        "window-update" => Kind::WindowUpdate,
        "slow" => Kind::Slow,
        other => panic!("unknown kind {other}"),
    };
    let (redials, many): (u32, usize) =
        (arguments[4].parse().unwrap(), arguments[5].parse().unwrap());
    let (dials, mut cuts, open) = if kind == Kind::Slow {
        slow(port, &config, span, many)
    } else {
        eprintln!("ready");
        flood(kind, port, &config, Instant::now() + span, SECOND / redials)
    };
    let mut column = |of: fn(&Cut) -> f64| {
        cuts.sort_by(|one, other| of(one).total_cmp(&of(other)));
        let at = |index: usize| cuts.get(index).map_or(0.0, of);
        (at(cuts.len() / 2), at(cuts.len().saturating_sub(1)))
    };
    let (frames, most_frames) = column(|cut| cut.frames as f64);
    let (bytes, most_bytes) = column(|cut| cut.bytes as f64);
    let (ms, most_ms) = column(|cut| cut.ms);
    println!(
        "{dials} {} {frames} {bytes} {ms:.1} {most_frames} {most_bytes} {most_ms:.1} {open}",
        cuts.len()
    );
}

fn trusting(file: &str, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Each redial costs the gateway what a stranger's does.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

fn dial(
    port: u16,
    config: &Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

// === the victim ===

fn victim(port: u16, config: &Arc<ClientConfig>, span: Duration, every: Duration) {
    let mut stream = dial(port, config).unwrap();
    stream
        .write_all(
            b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let mut message = vec![0x82, 0x80 + 126, 0, u8::try_from(PAYLOAD).unwrap(), 0, 0, 0, 0];
    message.resize(8 + PAYLOAD, b'm');
    // The backend of the measurements returns every byte, mask and all.
    let mut echo = vec![0; message.len()];
    let (end, mut due, mut late) = (Instant::now() + span, Instant::now(), Vec::new());
    while due < end {
        // A slow answer makes those behind it late: nothing is left out.
        while let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(wait);
        }
        stream.write_all(&message).unwrap();
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(echo, message, "another message came back");
        late.push(due.elapsed());
        due += every;
    }
    late.sort_unstable();
    let at = |percent: usize| late[(late.len() - 1) * percent / 100].as_micros();
    println!("{} {} {} {}", late.len(), at(50), at(99), at(100));
}

// === hostile ones ===

/// RFC 9113, section 4.1.
fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    into.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

impl Hostile {
    fn dial(kind: Kind, port: u16, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let stream = dial(port, config)?;
        setsockopt(&stream.sock, sockopt::SndBuf, &ROOM).map_err(io::Error::from)?;
        let (began, heard) = (Instant::now(), Vec::new());
        let mut this = Self { stream, began, next_stream: 1, frames: 0, bytes: 0, heard };
        let mut opening = PREFACE.to_vec();
        frame(&mut opening, 4, 0, 0, &[]);
        match kind {
            // Heads that have no end: the rest is CONTINUATION.
            Kind::Continuation => frame(&mut opening, 1, 1, 1, GET),
            // A POST whose body never comes to an end.
            Kind::EmptyData => frame(&mut opening, 1, 4, 1, &[b"\x83", &GET[1..]].concat()),
            Kind::Slow => {
                opening.extend_from_slice(&ANNOUNCED.to_be_bytes()[1..]);
                opening.extend_from_slice(&[1, 5, 0, 0, 0, 1]);
            }
            _ => {}
        }
        this.stream.write_all(&opening)?;
        this.stream.sock.set_nonblocking(true)?;
        Ok(this)
    }

    /// As many frames as fit into a record; how many.
    fn batch(&mut self, kind: Kind, into: &mut Vec<u8>) -> u64 {
        into.clear();
        let mut frames = 0;
        while into.len() < BATCH - 64 {
            match kind {
                Kind::RapidReset => {
                    frame(into, 1, 5, self.next_stream, GET);
                    frame(into, 3, 0, self.next_stream, &[0, 0, 0, 8]);
                    self.next_stream += 2;
                    frames += 1;
                }
                // A literal field without indexing, `a: b`.
                Kind::Continuation => frame(into, 9, 0, 1, b"\x00\x01a\x01b"),
                Kind::Ping => frame(into, 6, 0, 0, &[0; 8]),
                Kind::Settings => frame(into, 4, 0, 0, &[0, 3, 0, 0, 0, 100]),
                Kind::EmptyData => frame(into, 0, 0, 1, &[]),
                Kind::WindowUpdate => frame(into, 8, 0, 0, &[0, 0, 0, 1]),
                Kind::Slow => unreachable!("it does not send batches"),
            }
            frames += 1;
        }
        frames
    }

    /// Sends what there is room for. `false`: what it has in hand has not all gone.
    fn send(&mut self) -> io::Result<bool> {
        while self.stream.conn.wants_write() {
            match self.stream.conn.write_tls(&mut self.stream.sock) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads what has come; an error where the gateway has ended the connection, or said that it will.
    fn listen(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            while let Some([0, high, low, kind]) = self.heard.first_chunk().copied() {
                let length = 9 + usize::from(u16::from_be_bytes([high, low]));
                if kind == GOAWAY {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                if self.heard.len() < length {
                    break;
                }
                self.heard.drain(..length);
            }
        }
    }

    fn cut(&self) -> Cut {
        let ms = self.began.elapsed().as_secs_f64() * 1000.0;
        Cut { frames: self.frames, bytes: self.bytes, ms }
    }
}

/// Floods until `end`: connections, what each could send before it was cut off, and whether the last one still is open.
fn flood(
    kind: Kind,
    port: u16,
    config: &Arc<ClientConfig>,
    end: Instant,
    pause: Duration,
) -> (usize, Vec<Cut>, usize) {
    let (mut dials, mut cuts, mut batch) = (0, Vec::new(), Vec::with_capacity(BATCH));
    let mut due = Instant::now();
    while Instant::now() < end {
        while let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(wait);
        }
        due = Instant::now() + pause;
        dials += 1;
        let Ok(mut hostile) = Hostile::dial(kind, port, config) else {
            cuts.push(Cut::default());
            continue;
        };
        loop {
            let outcome = pour(&mut hostile, kind, &mut batch);
            if outcome.is_err() {
                cuts.push(hostile.cut());
                break;
            }
            if Instant::now() >= end {
                return (dials, cuts, 1);
            }
        }
    }
    (dials, cuts, 0)
}

/// A batch, or what of it there is room for, and what has come meanwhile.
fn pour(hostile: &mut Hostile, kind: Kind, batch: &mut Vec<u8>) -> io::Result<()> {
    if hostile.send()? {
        let frames = hostile.batch(kind, batch);
        hostile.stream.conn.writer().write_all(batch)?;
        hostile.frames += frames;
        hostile.bytes += batch.len() as u64;
    } else {
        let flags = PollFlags::POLLIN | PollFlags::POLLOUT;
        let mut fds = [PollFd::new(hostile.stream.sock.as_fd(), flags)];
        poll(&mut fds, PollTimeout::from(100_u8)).map_err(io::Error::from)?;
    }
    hostile.listen()
}

/// Many connections, and once they are open a byte of each one's head a second.
fn slow(
    port: u16,
    config: &Arc<ClientConfig>,
    span: Duration,
    many: usize,
) -> (usize, Vec<Cut>, usize) {
    let dialled = (0..many).map(|_| Hostile::dial(Kind::Slow, port, config).unwrap());
    let (mut open, mut cuts): (Vec<_>, _) = (dialled.collect(), Vec::new());
    eprintln!("ready");
    let end = Instant::now() + span;
    while Instant::now() < end {
        let round = Instant::now() + SECOND;
        open.retain_mut(|hostile| {
            let said = hostile.stream.write_all(GET.get(..1).unwrap());
            (hostile.frames, hostile.bytes) = (1, hostile.bytes + 1);
            if said.and_then(|()| hostile.listen()).is_ok() {
                return true;
            }
            cuts.push(hostile.cut());
            false
        });
        while let Some(wait) = round.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(wait);
        }
    }
    (many, cuts, open.len())
}
