//! Load for the measurements in `tests/bench`: many idle connections, or messages that come back.
//!
//! `load idle PORT COUNT` opens and holds them until standard input ends, then says how many are still open.
//! `load echo PORT CONNECTIONS SECONDS` sends 128-byte messages, one at a time each, and prints how many came back.
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
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

const PAYLOAD: usize = 128;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments[index].parse::<u64>().unwrap();
    let port = u16::try_from(number(1)).unwrap();
    match arguments[0].as_str() {
        "idle" => idle(port, number(2)),
        "echo" => echo(port, number(2), Duration::from_secs(number(3))),
        other => panic!("unknown mode {other}"),
    }
}

/// Opens a WebSocket from a loopback address of its block, so that 28,000 ephemeral ports are no bound.
fn open(port: u16, index: u64) -> io::Result<BufReader<TcpStream>> {
    let block = u8::try_from(index / 20_000 % 200).unwrap();
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 1, block + 1, 0))?;
    connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port))?;
    let mut stream = BufReader::with_capacity(512, TcpStream::from(fd));
    stream.get_ref().set_nodelay(true)?;
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

fn idle(port: u16, count: u64) {
    let mut open: Vec<_> = (0..count).map(|index| open(port, index).unwrap()).collect();
    println!("open {count}");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let alive = open.iter_mut().filter_map(|stream| round_trip(stream, &message()).ok()).count();
    println!("alive {alive}");
}

fn echo(port: u16, connections: u64, span: Duration) {
    let streams: Vec<_> = (0..connections).map(|index| open(port, index).unwrap()).collect();
    println!("open {connections}");
    let end = Instant::now() + span;
    let total: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> =
            streams.into_iter().map(|stream| scope.spawn(move || repeat(stream, end))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    println!("messages {total}");
}

fn repeat(mut stream: BufReader<TcpStream>, end: Instant) -> u64 {
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

fn round_trip(stream: &mut BufReader<TcpStream>, message: &[u8]) -> io::Result<()> {
    stream.get_mut().write_all(message)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[1] != 126 || length != PAYLOAD {
        return Err(io::Error::other("another message came back"));
    }
    stream.read_exact(&mut [0; PAYLOAD])
}
