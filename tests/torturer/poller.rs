//! An event loop's parts: readiness, timers, and a table whose numbers are never mistaken for their successors'.
//!
//! One thread serves thousands of connections with it. It never blocks for longer than it was told.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What happened to whom. Neither readable nor writable: its timer, or its turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// Readiness (edge-triggered) and timers.
pub(crate) struct Poller {
    epoll: Epoll,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    turns: Vec<u64>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, timers: BinaryHeap::new(), turns: Vec::new() })
    }

    pub(crate) fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        Ok(self.epoll.add(socket, EpollEvent::new(flags, token))?)
    }

    pub(crate) fn wake_at(&mut self, time: Instant, token: u64) {
        self.timers.push(Reverse((time, token)));
    }

    /// Another turn after everybody else's.
    pub(crate) fn again(&mut self, token: u64) {
        self.turns.push(token);
    }

    /// Waits for something to happen, at most so long.
    pub(crate) fn wait(&mut self, most: Duration) -> io::Result<Vec<Event>> {
        let idle = |token| Event { token, readable: false, writable: false };
        let mut happened: Vec<_> = self.turns.drain(..).map(idle).collect();
        let now = Instant::now();
        let next = self.timers.peek().map_or(most, |Reverse((time, _))| *time - now.min(*time));
        let patience = if happened.is_empty() { next.min(most) } else { Duration::ZERO };
        // Rounded up, or the last millisecond before a timer would be spent in circles.
        let patience = patience.as_micros().div_ceil(1000) as u16;
        let mut events = [EpollEvent::empty(); 256];
        let count = match self.epoll.wait(&mut events, EpollTimeout::from(patience)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let broken = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        happened.extend(events[..count].iter().map(|event| Event {
            token: event.data(),
            readable:
                event.events().intersects(broken | EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP),
            writable: event.events().intersects(broken | EpollFlags::EPOLLOUT),
        }));
        let now = Instant::now();
        while let Some(Reverse((time, token))) = self.timers.peek().copied() {
            if time > now {
                break;
            }
            self.timers.pop();
            happened.push(idle(token));
        }
        Ok(happened)
    }
}

/// Things by token. A token of something that is gone finds nothing, though its place is used again.
pub(crate) struct Table<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<usize>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, thing: T) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() - 1
        });
        let (generation, slot) = &mut self.places[place];
        *generation = generation.wrapping_add(1);
        *slot = Some(thing);
        (u64::from(*generation) << 32) | place as u64
    }

    /// The thing itself, taken out: give it back with [`Self::put`], or [`Self::free`] its place.
    pub(crate) fn take(&mut self, token: u64) -> Option<T> {
        let (generation, slot) = self.places.get_mut((token & 0xffff_ffff) as usize)?;
        if u64::from(*generation) == token >> 32 { slot.take() } else { None }
    }

    pub(crate) fn put(&mut self, token: u64, thing: T) {
        if let Some((_, slot)) = self.places.get_mut((token & 0xffff_ffff) as usize) {
            *slot = Some(thing);
        }
    }

    pub(crate) fn free(&mut self, token: u64) {
        self.free.push((token & 0xffff_ffff) as usize);
    }

    pub(crate) fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn tokens(&self) -> Vec<u64> {
        let held = self.places.iter().enumerate().filter(|(_, (_, slot))| slot.is_some());
        held.map(|(place, (generation, _))| (u64::from(*generation) << 32) | place as u64).collect()
    }
}
