//! The least that a relay in user space can do: the measure for `tests/bench/relay_cpu`, and no gateway.
//!
//! `bare_loop PORT BACKEND_PORT [SCRATCH_KIB]` accepts, connects to the backend at once, and copies either way through one
//! scratch buffer, of 63 KiB (64 would make packets with a tail): one thread, one epoll instance, level-triggered, `recv`
//! and `send`. It reads no HTTP, knows no deadlines, counts nothing, and whatever it holds dies with it. What must never
//! come in here is a feature.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measuring tool: what goes wrong ends the run"
)]

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// What one pair may move before the others get their turn.
const TURN: usize = 256 * 1024;
const LISTENER: u64 = u64::MAX;

/// Two connections; `pending[side]` is what came from that side and the other one has not taken.
struct Pair {
    sockets: [TcpStream; 2],
    pending: [Vec<u8>; 2],
}

fn main() {
    let arguments: Vec<u32> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    let port = |index: usize| u16::try_from(arguments[index]).unwrap();
    let mut scratch = vec![0; arguments.get(2).map_or(63, |kib| *kib as usize) * 1024];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port(0))).unwrap();
    let poll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).unwrap();
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None).unwrap();
        for event in &events {
            let token = event.data.u64();
            if token == LISTENER {
                let client = listener.accept().unwrap().0;
                let backend = TcpStream::connect((Ipv4Addr::LOCALHOST, port(1))).unwrap();
                let pair = Pair { sockets: [client, backend], pending: [Vec::new(), Vec::new()] };
                for (side, socket) in pair.sockets.iter().enumerate() {
                    socket.set_nodelay(true).unwrap();
                    let token = EventData::new_u64((pairs.len() * 2 + side) as u64);
                    epoll::add(&poll, socket, token, EventFlags::IN).unwrap();
                }
                pairs.push(Some(pair));
                continue;
            }
            let token = usize::try_from(token).unwrap();
            let Some(pair) = pairs[token / 2].as_mut() else { continue };
            let served = pair.serve(token % 2, event.flags, &mut scratch, |pair| {
                for (side, socket) in pair.sockets.iter().enumerate() {
                    let data = EventData::new_u64((token / 2 * 2 + side) as u64);
                    epoll::modify(&poll, socket, data, pair.interest(side)).unwrap();
                }
            });
            if served.is_none() {
                pairs[token / 2] = None;
            }
        }
    }
}

impl Pair {
    /// `None`: it is over. `changed` is called when what the pair waits for is another.
    fn serve(
        &mut self,
        side: usize,
        flags: EventFlags,
        scratch: &mut [u8],
        changed: impl Fn(&Self),
    ) -> Option<()> {
        let other = 1 - side;
        if flags.contains(EventFlags::OUT) && !self.pending[other].is_empty() {
            let sent = sent(&self.sockets[side], &self.pending[other])?;
            self.pending[other].drain(..sent);
            if self.pending[other].is_empty() {
                changed(self);
            }
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return Some(());
        }
        let mut moved = 0;
        while self.pending[side].is_empty() && moved < TURN {
            let count = match recv(&self.sockets[side], &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return None,
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => break,
                Err(_) => return None,
            };
            let sent = sent(&self.sockets[other], &scratch[..count])?;
            if sent < count {
                self.pending[side].extend_from_slice(&scratch[sent..count]);
                changed(self);
            }
            if count < scratch.len() {
                break;
            }
            moved += count;
        }
        Some(())
    }

    /// Nothing is read while what was read is still to be sent.
    fn interest(&self, side: usize) -> EventFlags {
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, self.pending[side].is_empty());
        interest.set(EventFlags::OUT, !self.pending[1 - side].is_empty());
        interest
    }
}

/// How much a socket has taken.
fn sent(socket: &TcpStream, bytes: &[u8]) -> Option<usize> {
    match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(count) => Some(count),
        Err(Errno::AGAIN) => Some(0),
        Err(_) => None,
    }
}
