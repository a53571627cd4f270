//! The engine's threads: each waits for its tunnels' legs and gives every ready tunnel its turn.
//!
//! A thread owns its tunnels, one epoll instance and one scratch buffer, and shares nothing that it waits for. It
//! must never block but in epoll, and never run one tunnel beyond its turn while others are ready.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use slab::Slab;

use super::leg::Leg;
use super::poll::{Change, Poll, Waker};
use super::record::Record;
use super::registry::Registry;
use super::relay::{Next, Over, Side, Tunnel};
use super::{Cause, Preludes};

/// What one peek may show.
const SCRATCH: usize = 64 * 1024;
/// Tunnels on their way to a thread. A thread takes them between two rounds, within milliseconds; when so many wait
/// it is stuck, and refusing is better than hiding it.
const INBOX: usize = 4096;
/// Deadlines are looked at this often at most.
const TICK_MS: u64 = 200;

/// Everything that a thread needs to run a tunnel.
#[derive(Debug)]
pub(super) struct Adoption {
    pub(super) client: Leg,
    pub(super) backend: Leg,
    pub(super) preludes: Preludes,
    pub(super) record: Arc<Record>,
}

/// A handle on one of the engine's threads.
#[derive(Debug)]
pub(super) struct Thread {
    inbox: SyncSender<Adoption>,
    signals: Arc<Signals>,
    waker: Waker,
    join: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Signals {
    stop: AtomicBool,
    recheck: AtomicBool,
}

struct Engine {
    poll: Poll,
    registry: Arc<Registry>,
    inbox: Receiver<Adoption>,
    signals: Arc<Signals>,
    tunnels: Slab<Tunnel>,
    /// Keys of tunnels with `queued` set.
    ready: VecDeque<usize>,
    scratch: Box<[u8]>,
    now_ms: u64,
    /// No deadline comes earlier.
    due_ms: u64,
}

/// A thread that panics has lost its tunnels without a word to anybody: then the whole process goes, and is replaced.
struct Sentinel;

// === impl Thread ===

impl Thread {
    pub(super) fn spawn(index: usize, registry: &Arc<Registry>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = poll.waker();
        let signals = Arc::new(Signals::default());
        let (sender, inbox) = sync_channel(INBOX);
        let engine = Engine {
            poll,
            registry: Arc::clone(registry),
            inbox,
            signals: Arc::clone(&signals),
            tunnels: Slab::new(),
            ready: VecDeque::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            now_ms: 0,
            due_ms: u64::MAX,
        };
        let join =
            std::thread::Builder::new().name(format!("tunnels-{index}")).spawn(move || {
                let sentinel = Sentinel;
                engine.run();
                drop(sentinel);
            })?;
        Ok(Self { inbox: sender, signals, waker, join: Some(join) })
    }

    /// Hands a tunnel over. False: the thread does not take it, and it is dropped.
    pub(super) fn adopt(&self, adoption: Adoption) -> bool {
        let taken = self.inbox.try_send(adoption).is_ok();
        self.waker.wake();
        taken
    }

    /// Makes the thread look at all deadlines.
    pub(super) fn recheck(&self) {
        self.signals.recheck.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn stop(&self) {
        self.signals.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn join(&mut self) {
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!("a tunnel thread panicked");
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a tunnel thread panicked; giving up the process");
            std::process::abort();
        }
    }
}

// === impl Engine ===

impl Engine {
    fn run(mut self) {
        let mut changes = Vec::new();
        loop {
            let woken = match self.poll.wait(self.timeout(), &mut changes) {
                Ok(woken) => woken,
                Err(error) => {
                    tracing::error!(%error, "epoll failed; ending this thread's tunnels");
                    return self.end_all(Cause::Lost);
                }
            };
            self.now_ms = self.registry.clock.now_ms();
            for change in changes.drain(..) {
                self.note(change);
            }
            // After the events: they may name a key that an adopted tunnel would get.
            if woken {
                if self.signals.stop.load(Ordering::Acquire) {
                    return self.end_all(Cause::Shutdown);
                }
                while let Ok(adoption) = self.inbox.try_recv() {
                    self.adopt(adoption);
                }
                if self.signals.recheck.swap(false, Ordering::AcqRel) {
                    self.due_ms = 0;
                }
            }
            for _ in 0..self.ready.len() {
                if let Some(key) = self.ready.pop_front() {
                    self.give_turn(key);
                }
            }
            if self.now_ms >= self.due_ms {
                self.end_due();
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let left_ms = || self.due_ms.saturating_sub(self.registry.clock.now_ms());
        (self.due_ms != u64::MAX).then(|| Duration::from_millis(left_ms()))
    }

    fn note(&mut self, Change { token, flags }: Change) {
        let (key, side) = split(token);
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        match side {
            Side::Client => tunnel.client.note(flags),
            Side::Backend => tunnel.backend.note(flags),
        }
        if !tunnel.queued {
            tunnel.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Takes a tunnel over and gives it a turn at once: its sessions may hold bytes that no event will announce.
    fn adopt(&mut self, Adoption { client, backend, preludes, record }: Adoption) {
        self.due_ms = self.due_ms.min(record.due().0);
        let mut tunnel = Tunnel::new(client, backend, preludes, record);
        tunnel.queued = true;
        let key = self.tunnels.insert(tunnel);
        self.ready.push_back(key);
        let Some(tunnel) = self.tunnels.get(key) else { return };
        let watched = self
            .poll
            .add(tunnel.client.fd(), token(key, Side::Client))
            .and_then(|()| self.poll.add(tunnel.backend.fd(), token(key, Side::Backend)));
        if let Err(error) = watched {
            tracing::error!(%error, "a tunnel cannot be watched");
            self.end(key, Over::orderly(Cause::Lost));
        }
    }

    fn give_turn(&mut self, key: usize) {
        // A key may outlive its tunnel in the queue, and even name another one by now.
        let Some(tunnel) = self.tunnels.get_mut(key).filter(|tunnel| tunnel.queued) else { return };
        tunnel.queued = false;
        self.registry.turns.fetch_add(1, Ordering::Relaxed);
        let turn = tunnel.turn(&mut self.scratch);
        if turn.moved != [0, 0] {
            tunnel.record.moved_ms.store(self.now_ms, Ordering::Relaxed);
            self.registry.count_bytes(turn.moved);
        }
        match turn.next {
            Next::Wait => {}
            Next::Again => {
                tunnel.queued = true;
                self.ready.push_back(key);
            }
            Next::End(over) => self.end(key, over),
        }
    }

    fn end_due(&mut self) {
        let mut over = Vec::new();
        let mut next_ms = u64::MAX;
        for (key, tunnel) in &self.tunnels {
            let (due_ms, cause) = tunnel.record.due();
            if due_ms <= self.now_ms {
                over.push((key, cause));
            } else {
                next_ms = next_ms.min(due_ms);
            }
        }
        // Bytes only put deadlines off, so the least is a bound; the tick keeps many of them from costing a scan each.
        self.due_ms =
            if next_ms == u64::MAX { next_ms } else { next_ms.max(self.now_ms + TICK_MS) };
        for (key, cause) in over {
            self.end(key, Over::orderly(cause));
        }
    }

    fn end(&mut self, key: usize, over: Over) {
        let Some(mut tunnel) = self.tunnels.try_remove(key) else { return };
        self.poll.remove(tunnel.client.fd());
        self.poll.remove(tunnel.backend.fd());
        tunnel.end(over, &mut self.scratch);
        let record = Arc::clone(&tunnel.record);
        drop(tunnel);
        self.registry.end(&record, over.cause);
    }

    fn end_all(&mut self, cause: Cause) {
        while let Ok(adoption) = self.inbox.try_recv() {
            self.adopt(adoption);
        }
        let keys: Vec<usize> = self.tunnels.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(key, Over::orderly(cause));
        }
    }
}

fn token(key: usize, side: Side) -> u64 {
    (key as u64) << 1 | u64::from(side == Side::Backend)
}

fn split(token: u64) -> (usize, Side) {
    let side = if token & 1 == 0 { Side::Client } else { Side::Backend };
    (usize::try_from(token >> 1).unwrap_or(usize::MAX), side)
}
