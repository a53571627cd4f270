//! How long tunnels stand still: many of them, one message a second each, while things happen to the gateway.
//!
//! `stall PORT TUNNELS` opens them and says `open`; each line on standard input is an event's name, noted with the time
//! when it is read; at its end the figures are printed. A message has a due time; a stall is the longest
//! (arrival - due) among a tunnel's messages that were due in the two seconds around an event, less the median of all
//! messages of the run. One thread and one epoll instance, so that what is measured is not this program.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measuring tool: what goes wrong ends the run"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

const PAYLOAD: usize = 128;
/// Of an echoed message: a server's frame has no mask.
const ECHO: usize = PAYLOAD + 4;
const SECOND: Duration = Duration::from_secs(1);

struct Tunnel {
    stream: TcpStream,
    /// When the messages were due that have not come back.
    waiting: VecDeque<Instant>,
    /// Bytes of the next echo that are here.
    partial: usize,
    due: Instant,
}

/// A message that came back.
struct Message {
    tunnel: usize,
    due: Instant,
    late: Duration,
}

type Events = Arc<Mutex<Vec<(String, Instant)>>>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (port, count): (u16, usize) =
        (arguments[0].parse().unwrap(), arguments[1].parse().unwrap());
    let mut tunnels: Vec<_> = (0..count).map(|index| open(port, index)).collect();
    println!("open");
    let (events, over) = (Events::default(), Arc::new(AtomicBool::new(false)));
    let (noted, ended) = (events.clone(), over.clone());
    let reader = std::thread::spawn(move || {
        for line in io::stdin().lines() {
            noted.lock().unwrap().push((line.unwrap(), Instant::now()));
        }
        ended.store(true, Ordering::Relaxed);
    });
    let messages = run(&mut tunnels, &over);
    reader.join().unwrap();
    report(&messages, &events.lock().unwrap());
}

/// Opens a WebSocket from a loopback address of its block, so that 28,000 ephemeral ports are no bound.
fn open(port: u16, index: usize) -> Tunnel {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true).unwrap();
    let block = u8::try_from(index / 20_000 + 1).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 1, block, 0)).unwrap();
    connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    let mut stream = TcpStream::from(fd);
    stream.set_nodelay(true).unwrap();
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
    stream.set_nonblocking(true).unwrap();
    Tunnel { stream, waiting: VecDeque::new(), partial: 0, due: Instant::now() }
}

fn run(tunnels: &mut [Tunnel], over: &AtomicBool) -> Vec<Message> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let begin = Instant::now();
    let count = u32::try_from(tunnels.len()).unwrap();
    for (index, tunnel) in tunnels.iter_mut().enumerate() {
        epoll.add(&tunnel.stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64)).unwrap();
        tunnel.due = begin + SECOND * u32::try_from(index).unwrap() / count;
    }
    let mut frame = vec![0x82, 0x80 + 126, 0, u8::try_from(PAYLOAD).unwrap(), 0, 0, 0, 0];
    frame.resize(8 + PAYLOAD, b'm');
    let (mut next, mut messages) = (0, Vec::new());
    let mut ready = vec![EpollEvent::empty(); 512];
    while !over.load(Ordering::Relaxed) {
        // They are due in the order of their numbers, round and round.
        while tunnels[next].due <= Instant::now() {
            let tunnel = &mut tunnels[next];
            let due = tunnel.due;
            tunnel.stream.write_all(&frame).unwrap();
            tunnel.waiting.push_back(due);
            tunnel.due += SECOND;
            next = (next + 1) % tunnels.len();
        }
        let found = epoll.wait(&mut ready, EpollTimeout::from(1_u8)).unwrap();
        for event in &ready[..found] {
            let index = usize::try_from(event.data()).unwrap();
            take(&mut tunnels[index], index, &mut messages);
        }
    }
    messages
}

fn take(tunnel: &mut Tunnel, index: usize, messages: &mut Vec<Message>) {
    let mut buffer = [0; 16 * 1024];
    match tunnel.stream.read(&mut buffer) {
        Ok(0) => panic!("tunnel {index} was ended"),
        Ok(read) => tunnel.partial += read,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => panic!("tunnel {index}: {error}"),
    }
    while tunnel.partial >= ECHO {
        tunnel.partial -= ECHO;
        let due = tunnel.waiting.pop_front().expect("an echo of nothing");
        messages.push(Message { tunnel: index, due, late: due.elapsed() });
    }
}

fn report(messages: &[Message], events: &[(String, Instant)]) {
    let mut all: Vec<_> = messages.iter().map(|message| message.late).collect();
    let usual = quantile(&mut all, 0.5);
    println!(
        "{} messages, median {:.2} ms, p99 {:.2} ms",
        all.len(),
        ms(usual),
        ms(quantile(&mut all, 0.99))
    );
    let mut stalls: BTreeMap<&str, (Vec<Duration>, Vec<Duration>)> = BTreeMap::new();
    for (name, at) in events {
        let mut longest: BTreeMap<usize, Duration> = BTreeMap::new();
        let around =
            |message: &&Message| message.due + SECOND >= *at && message.due <= *at + SECOND;
        for message in messages.iter().filter(around) {
            let longest = longest.entry(message.tunnel).or_default();
            *longest = message.late.max(*longest);
        }
        let mut of_event: Vec<_> =
            longest.into_values().map(|late| late.saturating_sub(usual)).collect();
        let (each, stalls) = stalls.entry(name).or_default();
        each.push(quantile(&mut of_event, 0.99));
        stalls.extend(of_event);
    }
    println!(
        "{:10} {:>7} {:>9} {:>9} {:>9} {:>9}   ms; p99 of each event",
        "event", "events", "stalls", "p50", "p99", "max"
    );
    for (name, (each, mut stalls)) in stalls {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| ms(quantile(&mut stalls, part)));
        let (events, count) = (each.len(), stalls.len());
        let each: Vec<_> = each.into_iter().map(|p99| format!("{:.0}", ms(p99))).collect();
        let each = each.join(" ");
        println!("{name:10} {events:>7} {count:>9} {p50:>9.2} {p99:>9.2} {max:>9.2}   {each}");
    }
}

fn quantile(values: &mut [Duration], part: f64) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = (last as f64 * part) as usize;
    values.get(index).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
