//! Streams whose every byte is known by its position, through many tunnels at once: what is lost, doubled or out of
//! order is noticed where it happens.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::eventually::{Patience, eventually};
use super::wire::Wire;

/// How a tunnel is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Small messages both ways, with pauses.
    Talk,
    /// As much as goes both ways.
    Flood,
    /// As much as goes, to a client that reads little at a time.
    SlowClient,
    /// The same to a backend.
    SlowBackend,
    /// The client has ended; the backend goes on.
    ClientEnded,
    /// The backend has ended; the client goes on.
    BackendEnded,
    /// Nobody says anything.
    Silent,
}

impl Shape {
    pub(crate) const ALL: [Self; 7] = [
        Self::Talk,
        Self::Flood,
        Self::SlowClient,
        Self::SlowBackend,
        Self::ClientEnded,
        Self::BackendEnded,
        Self::Silent,
    ];

    /// What the client and the backend have to say.
    fn speeches(self) -> [Speech; 2] {
        let (talk, flood) = (Speech::Goes(Pace::TALK), Speech::Goes(Pace::FLOOD));
        match self {
            Self::Talk => [talk, talk],
            Self::Flood => [flood, flood],
            Self::SlowClient => [talk, flood],
            Self::SlowBackend => [flood, talk],
            Self::ClientEnded => [Speech::Ended, talk],
            Self::BackendEnded => [talk, Speech::Ended],
            Self::Silent => [Speech::Silence, Speech::Silence],
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Speech {
    Goes(Pace),
    Silence,
    Ended,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    most: usize,
    pause: Duration,
}

impl Pace {
    const TALK: Self = Self { most: 3000, pause: Duration::from_millis(3) };
    /// More than a slow reader takes, and no more than leaves two cores some time for the gateway.
    const FLOOD: Self = Self { most: 100_000, pause: Duration::from_millis(15) };
    const SLOW: Self = Self { most: 10_000, pause: Duration::from_millis(10) };
}

#[derive(Debug, Default)]
struct Gauge {
    over: AtomicBool,
    moved: AtomicU64,
}

/// What one end of a tunnel has sent and heard.
type Account = (u64, u64);

/// Tunnels in use.
pub(crate) struct Traffic {
    gauge: Arc<Gauge>,
    tunnels: Vec<(Shape, [JoinHandle<Account>; 2])>,
}

impl Traffic {
    /// Uses each of these tunnels until [`Traffic::finish`].
    pub(crate) fn start(tunnels: impl IntoIterator<Item = (Shape, Wire)>) -> Self {
        let gauge = Arc::new(Gauge::default());
        let begin = |(seed, (shape, wire)): (usize, (Shape, Wire))| {
            let [client, backend] = shape.speeches();
            let slow = |side| (shape == side).then_some(Pace::SLOW);
            let seed = 2 * seed as u64;
            let ends = [
                end(wire.client, [seed, seed + 1], client, slow(Shape::SlowClient), &gauge),
                end(wire.backend, [seed + 1, seed], backend, slow(Shape::SlowBackend), &gauge),
            ];
            (shape, ends)
        };
        let tunnels = tunnels.into_iter().enumerate().map(begin).collect();
        Self { gauge, tunnels }
    }

    /// Waits until so many more bytes have arrived.
    pub(crate) fn moves(&self, bytes: u64) {
        let goal = self.gauge.moved.load(Ordering::Relaxed) + bytes;
        eventually(Patience::LONG, "bytes to move", || {
            assert!(!self.has_failed(), "a stream broke");
            (self.gauge.moved.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    fn has_failed(&self) -> bool {
        self.tunnels.iter().flat_map(|(_, ends)| ends).any(JoinHandle::is_finished)
    }

    /// Ends every stream in order; all that was sent must have arrived, and nothing else. Answers the bytes that went
    /// to backends and to clients.
    pub(crate) fn finish(self) -> [u64; 2] {
        self.gauge.over.store(true, Ordering::Relaxed);
        let mut total = [0, 0];
        for (shape, ends) in self.tunnels {
            let [client, backend] = ends.map(|end| end.join().unwrap());
            assert_eq!((client.0, backend.0), (backend.1, client.1), "sent and heard, {shape:?}");
            total[0] += client.0;
            total[1] += backend.0;
        }
        total
    }
}

/// Sends and checks at one end, on two threads.
fn end(
    stream: TcpStream,
    [own, other]: [u64; 2],
    speech: Speech,
    slow: Option<Pace>,
    gauge: &Arc<Gauge>,
) -> JoinHandle<Account> {
    let [gauge, both] = [(); 2].map(|()| Arc::clone(gauge));
    let writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || write(&writer, own, speech, &gauge));
    thread::spawn(move || {
        let heard = check(&stream, other, slow, &both);
        (writing.join().unwrap(), heard)
    })
}

fn write(mut stream: &TcpStream, seed: u64, speech: Speech, gauge: &Gauge) -> u64 {
    let mut sent = 0;
    let mut buffer = Vec::new();
    while !matches!(speech, Speech::Ended) && !gauge.over.load(Ordering::Relaxed) {
        let Speech::Goes(Pace { most, pause }) = speech else {
            thread::park_timeout(Pace::TALK.pause);
            continue;
        };
        let size = 1 + usize::try_from(mix(seed ^ sent) % most as u64).unwrap();
        buffer.resize(size, 0);
        fill(&mut buffer, seed, sent);
        stream.write_all(&buffer).unwrap();
        sent += size as u64;
        thread::park_timeout(pause);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    sent
}

/// Reads to the end; fails at the first byte that is not the one that was sent there.
fn check(mut stream: &TcpStream, seed: u64, slow: Option<Pace>, gauge: &Gauge) -> u64 {
    let mut at = 0;
    let mut buffer = vec![0; 64 * 1024];
    let mut expected = buffer.clone();
    loop {
        let hurry = gauge.over.load(Ordering::Relaxed);
        let most = slow.filter(|_| !hurry).map_or(buffer.len(), |pace| pace.most);
        match stream.read(&mut buffer[..most]) {
            Ok(0) => return at,
            Ok(count) => {
                let (heard, expected) = (&buffer[..count], &mut expected[..count]);
                fill(expected, seed, at);
                let wrong = || heard.iter().zip(&*expected).position(|(one, other)| one != other);
                assert!(
                    heard == expected,
                    "byte {} of stream {seed}",
                    at + wrong().unwrap() as u64
                );
                at += count as u64;
                gauge.moved.fetch_add(count as u64, Ordering::Relaxed);
            }
            // Silence is no fault before everybody has been told to end.
            Err(error) if error.kind() == ErrorKind::WouldBlock && !hurry => {}
            Err(error) => panic!("{error} at byte {at} of stream {seed}"),
        }
        if let Some(pace) = slow.filter(|_| !hurry) {
            thread::park_timeout(pace.pause);
        }
    }
}

/// The bytes of a stream from a position on: eight from every number.
fn fill(bytes: &mut [u8], seed: u64, mut at: u64) {
    let seed = seed.wrapping_mul(0x9e37_79b9);
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = mix(seed.wrapping_add(at / 8)).to_le_bytes();
        let word = &word[usize::try_from(at % 8).unwrap()..];
        let count = word.len().min(rest.len());
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&word[..count]);
        rest = later;
        at += count as u64;
    }
}

/// Splitmix64's last steps.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
