//! Both ends of the traffic for `tests/bench/relay_cpu`, in one thread, so that it costs as little as the gateways.
//!
//! `echoes BACKEND_PORT` is a backend there: it answers 200, or switches protocols and returns every byte. Each line on
//! standard input, `NAME PID PORT BYTES RATE SECONDS CONNECTIONS [CA]`, opens `WebSockets` to PORT (with CA, a PEM file, by
//! TLS 1.3; the backend's end is plain) and sends messages of so many bytes, RATE a second in all (0: each connection its next one as soon as the last is back). It prints `NAME BYTES RATE`,
//! then messages a second, the process PID's CPU in µs a message, its share of a core, and its threads' waits a message.
//! CPU is the scheduler's count in nanoseconds, over all threads.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measuring tool: what goes wrong ends the run"
)]

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use rustls::ClientConfig;
use sealed::Sealed;
use slab::Slab;

mod sealed;

/// Buffers have grown and code is loaded after that.
const WARM_UP: Duration = Duration::from_millis(300);
/// Nothing that is due takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
const LISTENER: u64 = u64::MAX;
const ORDERS: u64 = u64::MAX - 1;
const TICK: u64 = u64::MAX - 2;
const REQUEST: &[u8] =
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// The answer to that key.
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

struct Connection {
    socket: TcpStream,
    tls: Option<Box<Sealed>>,
    role: Role,
    /// Of a head, until it is whole.
    head: Vec<u8>,
    open: bool,
    /// To be sent before anything else is read: an echo, at the backend's end.
    pending: Vec<u8>,
    watched: EventFlags,
}

enum Role {
    Backend,
    /// Bytes of its message that are to be sent, and to come back.
    Client {
        unsent: usize,
        due: usize,
    },
}

/// When messages are due: each at some moment of an interval of its own. At even times they would go in step with the answers
/// to those before, and how many of both meet at a gateway would be the luck of its latency. The moments are the same
/// in every run.
struct Pace {
    timer: OwnedFd,
    moments: StdRng,
    /// When the interval of the next message begins.
    begin: Instant,
    interval: Duration,
    due: Instant,
}

struct World {
    poll: OwnedFd,
    connections: Slab<Connection>,
    scratch: Vec<u8>,
    message: Vec<u8>,
    idle: VecDeque<usize>,
    opened: usize,
    done: u64,
}

/// What a process has used: nanoseconds, and how often its threads waited.
#[derive(Clone, Copy)]
struct Used {
    nanos: u64,
    waits: u64,
}

fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let poll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).unwrap();
    epoll::add(&poll, io::stdin(), EventData::new_u64(ORDERS), EventFlags::IN).unwrap();
    let mut world = World {
        poll,
        connections: Slab::new(),
        scratch: vec![0; 256 * 1024],
        message: Vec::new(),
        idle: VecDeque::new(),
        opened: 0,
        done: 0,
    };
    println!("listening");
    loop {
        if world.step(&listener, None) {
            let mut line = String::new();
            if io::stdin().lock().read_line(&mut line).unwrap() == 0 {
                return;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| words[index].parse::<u32>().unwrap();
            let seconds = Duration::from_secs_f64(words[5].parse().unwrap());
            println!("{} {} {} {}", words[0], words[3], words[4], {
                let port = u16::try_from(number(2)).unwrap();
                let tls = words.get(7).map(|file| sealed::trusting(file));
                world.begin(port, number(3), number(6), tls.as_ref());
                let figures = world.measure(&listener, number(1), number(4), seconds);
                world.end(&listener);
                figures
            });
        }
    }
}

impl Pace {
    fn new(poll: &OwnedFd, begin: Instant, interval: Duration) -> Self {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        // epoll's own limit knows whole milliseconds, and would make bursts.
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).unwrap();
        epoll::add(poll, &timer, EventData::new_u64(TICK), EventFlags::IN | EventFlags::ET)
            .unwrap();
        let mut pace =
            Self { timer, moments: StdRng::seed_from_u64(1), begin, interval, due: begin };
        pace.next(begin);
        pace
    }

    /// Whether one is due; then another one comes next.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due <= now;
        if due {
            self.next(now);
        }
        due
    }

    fn next(&mut self, now: Instant) {
        self.due = self.begin + self.interval.mul_f64(self.moments.random());
        self.begin += self.interval;
        if let Some(left) = self.due.checked_duration_since(now).filter(|left| !left.is_zero()) {
            let once = Timespec::try_from(left).unwrap();
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let times = Itimerspec { it_interval: never, it_value: once };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times).unwrap();
        }
    }
}

impl World {
    /// Opens connections; they are open when their heads are back.
    fn begin(&mut self, port: u16, bytes: u32, connections: u32, tls: Option<&Arc<ClientConfig>>) {
        self.message = frame(bytes);
        (self.opened, self.done) = (0, 0);
        for _ in 0..connections {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            let tls = tls.map(|config| Box::new(Sealed::begin(config, &socket, REQUEST)));
            if tls.is_none() {
                send(&socket, REQUEST, SendFlags::NOSIGNAL).unwrap();
            }
            self.add(socket, tls, Role::Client { unsent: 0, due: 0 });
        }
    }

    fn measure(&mut self, listener: &TcpListener, pid: u32, rate: u32, span: Duration) -> String {
        let wanted = self.connections.iter().filter(|(_, one)| one.is_client()).count();
        let patience = Instant::now() + PATIENCE;
        while self.opened < wanted {
            assert!(Instant::now() < patience, "{} of {wanted} opened", self.opened);
            self.step(listener, Some(Duration::from_millis(100)));
        }
        let start = Instant::now();
        let interval = (rate != 0).then(|| Duration::from_secs(1) / rate);
        self.run(listener, start, start + WARM_UP, interval);
        let (begin, before, done) = (Instant::now(), used(pid), self.done);
        self.run(listener, begin, begin + span, interval);
        let (took, after) = (begin.elapsed(), used(pid));
        let messages = (self.done - done) as f64;
        let nanos = (after.nanos - before.nanos) as f64;
        format!(
            "{:.0} {:.3} {:.3} {:.3}",
            messages / took.as_secs_f64(),
            nanos / 1000.0 / messages,
            nanos / took.as_nanos() as f64,
            (after.waits - before.waits) as f64 / messages
        )
    }

    /// Sends until `end`: at an interval, or each idle connection at once.
    fn run(
        &mut self,
        listener: &TcpListener,
        begin: Instant,
        end: Instant,
        interval: Option<Duration>,
    ) {
        let mut pace = interval.map(|interval| Pace::new(&self.poll, begin, interval));
        loop {
            let now = Instant::now();
            if now >= end {
                return;
            }
            while let Some(key) = self.idle.front().copied() {
                if let Some(pace) = &mut pace
                    && !pace.is_due(now)
                {
                    break;
                }
                self.idle.pop_front();
                let length = self.message.len();
                self.connections[key].role = Role::Client { unsent: length, due: length };
                self.write(key);
            }
            self.step(listener, Some(end - now));
        }
    }

    /// Closes the clients' ends, and waits until the gateway has closed the others.
    fn end(&mut self, listener: &TcpListener) {
        self.connections.retain(|_, one| {
            if let Some(tls) = &mut one.tls {
                tls.end(&one.socket);
            }
            !one.is_client()
        });
        self.idle.clear();
        let patience = Instant::now() + PATIENCE;
        while self.connections.iter().any(|(_, one)| one.open) {
            assert!(Instant::now() < patience, "{} are still open", self.connections.len());
            self.step(listener, Some(Duration::from_millis(100)));
        }
    }

    fn add(&mut self, socket: TcpStream, tls: Option<Box<Sealed>>, role: Role) {
        socket.set_nodelay(true).unwrap();
        let (head, pending, watched) = (Vec::new(), Vec::new(), EventFlags::IN);
        let connection = Connection { socket, tls, role, head, open: false, pending, watched };
        let key = self.connections.insert(connection);
        let data = EventData::new_u64(key as u64);
        epoll::add(&self.poll, &self.connections[key].socket, data, EventFlags::IN).unwrap();
    }

    /// One round of events. True: an order waits.
    fn step(&mut self, listener: &TcpListener, limit: Option<Duration>) -> bool {
        let limit = limit.map(|limit| Timespec::try_from(limit).unwrap());
        let mut events: Vec<Event> = Vec::with_capacity(256);
        let into = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.poll, into, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
        let mut order = false;
        for event in &events {
            let flags = event.flags;
            match event.data.u64() {
                LISTENER => self.add(listener.accept().unwrap().0, None, Role::Backend),
                ORDERS => order = true,
                TICK => {}
                token => {
                    let key = usize::try_from(token).unwrap();
                    if flags.contains(EventFlags::OUT) {
                        self.write(key);
                    }
                    let readable = EventFlags::IN | EventFlags::HUP | EventFlags::ERR;
                    if flags.intersects(readable) {
                        self.read(key);
                    }
                }
            }
        }
        order
    }

    fn read(&mut self, key: usize) {
        let Some(one) = self.connections.get_mut(key).filter(|one| one.pending.is_empty()) else {
            return;
        };
        let count = match one.receive(&mut self.scratch) {
            Ok(count) if count > 0 => count,
            Err(Errno::AGAIN) => return,
            _ if one.is_client() => panic!("a connection was ended"),
            _ => {
                self.connections.remove(key);
                return;
            }
        };
        if !one.open {
            if one.head.ends_with(b"\r\n\r\n") && one.pass_head() {
                self.opened += 1;
                self.idle.push_back(key);
            }
            return;
        }
        if let Role::Client { due, .. } = &mut one.role {
            *due = due.checked_sub(count).expect("more came back than was sent");
            if *due == 0 {
                self.done += 1;
                self.idle.push_back(key);
            }
            return;
        }
        let bytes = &self.scratch[..count];
        let Some(sent) = sent(&one.socket, bytes) else {
            self.connections.remove(key);
            return;
        };
        if sent < count {
            one.pending.extend_from_slice(&bytes[sent..]);
            self.watch(key);
        }
    }

    /// Sends what is to be sent, and waits for room if there is none.
    fn write(&mut self, key: usize) {
        let Some(one) = self.connections.get_mut(key) else { return };
        if let Role::Client { unsent, .. } = &mut one.role {
            let from = self.message.len() - *unsent;
            *unsent -= match &mut one.tls {
                None => sent(&one.socket, &self.message[from..]).expect("a connection was ended"),
                Some(tls) => tls.send(&one.socket, &self.message[from..]),
            };
        } else if let Some(sent) = sent(&one.socket, &one.pending) {
            one.pending.drain(..sent);
        } else {
            self.connections.remove(key);
            return;
        }
        self.watch(key);
    }

    fn watch(&mut self, key: usize) {
        let one = &mut self.connections[key];
        let interest = match &one.role {
            Role::Client { unsent: 1.., .. } => EventFlags::IN | EventFlags::OUT,
            _ if one.tls.as_ref().is_some_and(|tls| tls.is_pending()) => {
                EventFlags::IN | EventFlags::OUT
            }
            Role::Backend if !one.pending.is_empty() => EventFlags::OUT,
            _ => EventFlags::IN,
        };
        if interest != one.watched {
            one.watched = interest;
            let data = EventData::new_u64(key as u64);
            epoll::modify(&self.poll, &one.socket, data, interest).unwrap();
        }
    }
}

impl Connection {
    fn is_client(&self) -> bool {
        matches!(self.role, Role::Client { .. })
    }

    /// How many bytes came; 0 are the end. Until it is open, they are kept as its head.
    fn receive(&mut self, scratch: &mut [u8]) -> Result<usize, Errno> {
        let Some(tls) = &mut self.tls else {
            let (count, _) = recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT)?;
            if !self.open {
                self.head.extend_from_slice(&scratch[..count]);
            }
            return Ok(count);
        };
        let mut opened = 0;
        let raw = tls.receive(&self.socket, scratch, |bytes| {
            opened += bytes.len();
            if !self.open {
                self.head.extend_from_slice(bytes);
            }
        })?;
        // A part of a record, or the session's own.
        if raw > 0 && opened == 0 { Err(Errno::AGAIN) } else { Ok(opened) }
    }

    /// Its head is whole. True: a client's end may send.
    fn pass_head(&mut self) -> bool {
        let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).to_lowercase();
        if self.is_client() {
            assert!(head.starts_with("http/1.1 101 "), "{head}");
            self.open = true;
            return true;
        }
        self.open = head.contains("\r\nupgrade: websocket");
        let answer = if self.open { SWITCHING } else { OK };
        assert_eq!(sent(&self.socket, answer), Some(answer.len()));
        false
    }
}

/// A masked binary frame, with the mask 0; gateways look at none of it.
fn frame(bytes: u32) -> Vec<u8> {
    let mut frame = match u16::try_from(bytes) {
        Ok(short) => [&[0x82, 0x80 + 126], &short.to_be_bytes()[..]].concat(),
        Err(_) => [&[0x82, 0x80 + 127, 0, 0, 0, 0], &bytes.to_be_bytes()[..]].concat(),
    };
    frame.extend([0; 4]);
    frame.resize(frame.len() + bytes as usize, b'm');
    frame
}

/// How much a socket has taken; `None`: the peer is gone.
fn sent(socket: &TcpStream, bytes: &[u8]) -> Option<usize> {
    match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(count) => Some(count),
        Err(Errno::AGAIN) => Some(0),
        Err(_) => None,
    }
}

fn used(pid: u32) -> Used {
    let mut used = Used { nanos: 0, waits: 0 };
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let read = |name: &str| fs::read_to_string(thread.as_ref().unwrap().path().join(name));
        let (Ok(times), Ok(status)) = (read("schedstat"), read("status")) else { continue };
        used.nanos += times.split(' ').next().unwrap().parse::<u64>().unwrap();
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        used.waits += waits.unwrap().trim().parse::<u64>().unwrap();
    }
    used
}
