//! Random walks of a tunnel's two directions: after every step the counters must agree with the books, and every few
//! steps the relay forgets all it knows but the counters.

use super::*;

const MOST: usize = 20_000;

/// A far end and its leg.
struct Peer {
    far: OwnedFd,
    near: OwnedFd,
    /// All that the far end has sent; its direction's stream.
    said: Vec<u8>,
    heard: Vec<u8>,
    finished: bool,
}

/// What the relay knows of a direction, and forgets.
#[derive(Default)]
struct Memory {
    sent: u64,
    discard: u64,
    source_ended: bool,
}

struct Walk {
    random: StdRng,
    peers: [Peer; 2],
    /// By source.
    books: [Books; 2],
    memories: [Memory; 2],
    preludes: [Vec<u8>; 2],
    buffer: Vec<u8>,
    seen: Seen,
}

/// What the walks have come through.
#[derive(Debug, Default)]
struct Seen {
    forgot: [u64; 3],
    windows_closed: u64,
    /// By the source's state, looks at a direction that still moves.
    states: [u64; 16],
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // A gateway accepts clients and dials backends.
        let (client, client_near) = tcp_pair();
        let (backend_near, backend) = tcp_pair();
        let peer = |far, near| Peer { far, near, said: vec![], heard: vec![], finished: false };
        let peers = [peer(client, client_near), peer(backend, backend_near)];
        let preludes = [seed + 1, seed + 2].map(|seed| {
            let length = if random.random_bool(0.5) { 0 } else { random.random_range(1..90_000) };
            noise(seed, length)
        });
        let books = [0, 1].map(|at| {
            let prelude = preludes[at].len() as u64;
            Books::open(&peers[at].near, &peers[1 - at].near, prelude)
        });
        let memories = <[Memory; 2]>::default();
        Self {
            random,
            peers,
            books,
            memories,
            preludes,
            buffer: vec![0; MOST],
            seen: Seen::default(),
        }
    }

    #[track_caller]
    fn check(&mut self) {
        for at in [0, 1] {
            self.books[at].check(&self.peers[at].near, &self.peers[1 - at].near, false);
            if !self.books[at].fin_passed_on {
                let state = snapshot(&self.peers[at].near).state;
                self.seen.states[usize::from(state)] += 1;
            }
        }
    }

    /// One step of a far end.
    fn peer_step(&mut self, at: usize) {
        let length = self.random.random_range(1..MOST);
        let peer = &mut self.peers[at];
        match self.random.random_range(0..12) {
            0 if peer.said.len() > 100_000 && !peer.finished => {
                peer.finished = true;
                sys::finish(peer.far.as_fd());
            }
            1 if !peer.finished => {
                let flags = SendFlags::OOB | SendFlags::DONTWAIT;
                if rustix::net::send(&peer.far, b"U", flags).is_ok() {
                    peer.said.push(b'U');
                }
            }
            2..=5 if !peer.finished => {
                let bytes = noise(self.random.random(), length);
                if let Ok(count) = sys::send(peer.far.as_fd(), &bytes) {
                    peer.said.extend_from_slice(&bytes[..count]);
                }
            }
            6..=9 => {
                if let Ok(count) = sys::receive(peer.far.as_fd(), &mut self.buffer[..length]) {
                    peer.heard.extend_from_slice(&self.buffer[..count]);
                }
            }
            _ => {}
        }
    }

    /// One system call of the relay, from `at` to the other leg.
    fn relay_step(&mut self, at: usize) {
        let (source, target) = (self.peers[at].near.as_fd(), self.peers[1 - at].near.as_fd());
        let (books, memory) = (&mut self.books[at], &mut self.memories[at]);
        if books.fin_passed_on {
            return;
        }
        let most = self.random.random_range(1..MOST);
        if memory.sent < books.prelude {
            let rest = &self.preludes[at][usize::try_from(memory.sent).unwrap()..];
            if let Ok(count) = sys::send(target, &rest[..rest.len().min(most)]) {
                memory.sent += count as u64;
                books.sent += count as u64;
            }
        } else if memory.discard > 0 {
            let most = usize::try_from(memory.discard).unwrap().min(most);
            let count = sys::discard(source, &mut self.buffer[..most]).unwrap() as u64;
            memory.discard -= count;
            books.discarded += count;
        } else if memory.source_ended {
            sys::finish(target);
            books.fin_passed_on = true;
        } else {
            match sys::peek(source, &mut self.buffer[..most]) {
                Ok(0) => memory.source_ended = true,
                Ok(seen) => {
                    if let Ok(count) = sys::send(target, &self.buffer[..seen]) {
                        memory.discard = count as u64;
                        books.sent += count as u64;
                    } else {
                        self.seen.windows_closed += 1;
                    }
                }
                Err(error) => assert_eq!(error, Errno::AGAIN),
            }
        }
    }

    /// The relay dies, and its successor asks the counters.
    fn forget(&mut self) {
        for at in [0, 1] {
            let (source, target) = (&self.peers[at].near, &self.peers[1 - at].near);
            let books = &self.books[at];
            let (source, target) = (snapshot(source), snapshot(target));
            let found =
                progress(&source, &target, books.bases, books.prelude, None, false).unwrap();
            let kind = match found {
                Progress::Done => 0,
                Progress::Prelude { .. } => 1,
                Progress::Stream { discard, .. } => 1 + usize::from(discard > 0),
            };
            self.seen.forgot[kind] += 1;
            self.memories[at] = match found {
                Progress::Done => Memory::default(),
                Progress::Prelude { sent } => Memory { sent, ..Memory::default() },
                Progress::Stream { discard, .. } => {
                    Memory { sent: books.prelude, discard, source_ended: false }
                }
            };
        }
    }

    fn over(&self) -> bool {
        self.books.iter().all(|books| books.fin_passed_on)
            && (0..2).all(|at| {
                let due = self.preludes[at].len() + self.peers[at].said.len();
                self.peers[1 - at].heard.len() >= due
            })
    }
}

impl Seen {
    fn add(&mut self, other: &Self) {
        let pairs = self.forgot.iter_mut().zip(other.forgot);
        pairs.chain(self.states.iter_mut().zip(other.states)).for_each(|(sum, one)| *sum += one);
        self.windows_closed += other.windows_closed;
    }
}

#[test]
fn a_relay_that_forgets_goes_on_with_the_exact_next_byte() {
    let mut all = Seen::default();
    for seed in 0..24 {
        let mut walk = Walk::new(seed);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut steps = 0_u64;
        while !walk.over() {
            let at = walk.random.random_range(0..2);
            // Phases in which one end does not listen: its window closes.
            let deaf = (steps / 400) % 4 == at as u64;
            match walk.random.random_range(0..5) {
                0 | 1 if !deaf => walk.peer_step(at),
                0 => walk.forget(),
                _ => walk.relay_step(at),
            }
            walk.check();
            steps += 1;
            assert!(Instant::now() < deadline, "seed {seed} hangs after {steps} steps");
        }
        for at in [0, 1] {
            let expected = [walk.preludes[at].as_slice(), &walk.peers[at].said].concat();
            assert!(walk.peers[1 - at].heard == expected, "seed {seed}, direction {at}");
        }
        all.add(&walk.seen);
    }
    // Else the walks have proved little.
    let Seen { forgot, windows_closed, states } = &all;
    assert!(forgot.iter().all(|count| *count > 100), "{all:?}");
    assert!(*windows_closed > 100, "{all:?}");
    assert!([1, 4, 5, 7, 8, 11].iter().all(|state| states[*state] > 20), "{all:?}");
}
