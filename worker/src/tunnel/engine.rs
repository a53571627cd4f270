//! The engine's threads: each waits for its tunnels' legs and gives every ready tunnel its turn.
//!
//! A thread owns its tunnels, one epoll instance and one scratch buffer, and shares nothing that it waits for. It
//! must never block but in epoll, and never run one tunnel beyond its turn while others are ready. `frozen` is what it
//! has let go of on the way to a successor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_proto::failpoint;

use self::frozen::Frozen;
use self::watched::Watched;
use super::arena::{Owner, Seat};
use super::poll::Poll;
use super::registry::Registry;
use super::relay::{Buffers, Next, Over, Tunnel, Turn};
use super::watch::PollId;
use super::{Cause, TunnelId};

mod frozen;
mod thread;
mod watched;
mod watching;

pub(super) use thread::Thread;

/// What one receive takes or one peek shows at most, and so what one send passes on. The kernel makes packets of at most 64 KiB, headers included, of
/// what is sent: 64 KiB would be one of those and a tail of its own, each time, and cost a third more for bulk.
const SCRATCH: usize = 63 * 1024;
/// Deadlines are looked at this often at most.
const TICK_MS: u64 = 200;

/// After that a predecessor knows which tunnels it has lost.
const SETTLING_MS: u64 = 2000;

/// What a thread is told.
pub(super) enum Order {
    /// Run these tunnels.
    Adopt(Vec<Tunnel>),
    /// Let go of so many tunnels that can move, and tell which.
    Freeze { most: usize, reply: tokio::sync::oneshot::Sender<Vec<TunnelId>> },
    /// The successor has these.
    Forget(Vec<TunnelId>),
    /// The successor is gone: take back what was let go of.
    Thaw,
}

#[derive(Debug, Default)]
struct Signals {
    stop: AtomicBool,
    recheck: AtomicBool,
    /// Given by the thread, which alone writes it.
    turns: AtomicU64,
}

struct Engine {
    /// None: there are more threads than places.
    seat: Option<Seat>,
    poll: Poll,
    /// What records call it. None: there are more threads than names, or it is nobody's to go on with.
    poll_id: Option<PollId>,
    registry: Arc<Registry>,
    inbox: std::sync::mpsc::Receiver<Order>,
    /// There may be more in the inbox.
    has_orders: bool,
    signals: Arc<Signals>,
    tunnels: Watched,
    frozen: Frozen,
    /// Where the next freeze goes on looking.
    freeze_from: usize,
    /// Keys of tunnels with `queued` set.
    ready: VecDeque<usize>,
    buffers: Buffers,
    now_ms: u64,
    /// No deadline comes earlier.
    due_ms: u64,
}

// === impl Signals ===

impl Signals {
    fn count_turn(&self) {
        self.turns.store(self.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

// === impl Engine ===

impl Engine {
    fn run(mut self) {
        let mut changes = Vec::new();
        loop {
            let woken = match self.poll.wait(self.wait_until_ms(), &mut changes) {
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
            // After the events: they are older than the look at tunnels that are taken over.
            if woken {
                if self.signals.stop.load(Ordering::Acquire) {
                    return self.end_all(Cause::Shutdown);
                }
                if self.signals.recheck.swap(false, Ordering::AcqRel) {
                    self.due_ms = 0;
                }
                self.has_orders = true;
            }
            // One a round: tunnels that were adopted first are not to wait for the thousands that come after them.
            if self.has_orders {
                match self.inbox.try_recv() {
                    Ok(order) => self.obey(order),
                    Err(_) => self.has_orders = false,
                }
            }
            for _ in 0..self.ready.len() {
                if let Some(key) = self.ready.pop_front() {
                    self.give_turn(key);
                }
            }
            if self.now_ms >= self.frozen.due_ms() {
                self.thaw();
            }
            if self.now_ms >= self.due_ms {
                self.end_due();
            }
            self.buffers.ciphers.drop_unused(self.now_ms);
        }
    }

    /// When to go on whatever happens; 0: at once.
    fn wait_until_ms(&self) -> u64 {
        if self.has_orders || !self.ready.is_empty() {
            return 0;
        }
        self.due_ms.min(self.frozen.due_ms()).min(self.buffers.ciphers.due_ms())
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Adopt(tunnels) => self.adopt(tunnels),
            Order::Freeze { most, reply } => {
                // Who asked may have lost its line meanwhile; then they thaw.
                drop(reply.send(self.freeze(most)));
            }
            Order::Forget(ids) => {
                for record in ids.into_iter().filter_map(|id| self.frozen.forget(id)) {
                    self.registry.forget(&record);
                }
                self.leave_left_poll();
            }
            Order::Thaw => self.thaw(),
        }
    }

    /// Takes tunnels over. What a dead process has put into our own epoll instance stays there.
    fn adopt(&mut self, tunnels: Vec<Tunnel>) {
        let mut kept = Vec::new();
        for tunnel in tunnels {
            let already = self.is_watched_already(&tunnel);
            let key = self.take_in(tunnel);
            if already {
                kept.push(key);
            } else {
                self.watch(key);
            }
        }
        self.go_on_watching(&kept);
    }

    /// One that we opened gets a turn at once: its sessions may hold bytes that no event will announce.
    fn take_in(&mut self, tunnel: Tunnel) -> usize {
        // A predecessor that has not heard yet that it is gone may still give it a deadline.
        let settled_ms = self.now_ms + SETTLING_MS;
        self.due_ms = self.due_ms.min(tunnel.record.due().0).min(settled_ms);
        let ready = tunnel.queued;
        let key = self.tunnels.insert(tunnel);
        if ready {
            self.ready.push_back(key);
        }
        key
    }

    fn give_turn(&mut self, key: usize) {
        // A key may outlive its tunnel in the queue, and even name another one by now.
        let Some(tunnel) = self.tunnels.get_mut(key).filter(|tunnel| tunnel.queued) else { return };
        tunnel.queued = false;
        self.signals.count_turn();
        if let Some(seat) = &self.seat {
            seat.take_in_hand(Some(tunnel.record.slot.index()));
        }
        failpoint!("turn.begun");
        let next = if let Err(over) = tunnel.catch_up(&mut self.buffers) {
            Next::End(over)
        } else {
            let Turn { moved, next } = tunnel.turn(&mut self.buffers);
            if moved != [0, 0] {
                tunnel.record.count_moved(moved, self.now_ms);
            }
            next
        };
        match next {
            Next::Wait => self.watch_for_room(key),
            Next::Again => {
                tunnel.queued = true;
                self.ready.push_back(key);
            }
            Next::End(over) => self.end(key, over),
        }
        if let Some(seat) = &self.seat {
            seat.take_in_hand(None);
        }
    }

    fn end_due(&mut self) {
        let mut over = Vec::new();
        let mut next_ms = u64::MAX;
        for (key, tunnel) in self.tunnels.iter() {
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
        let Some(mut tunnel) = self.unwatch(key) else { return };
        // A last word has a number, which only the counters tell.
        tunnel.catch_up(&mut self.buffers).ok();
        let record = Arc::clone(&tunnel.record);
        self.buffers.ciphers.forget(&record);
        // On record first: a successor that finds it ends it the same way.
        if !self.registry.begin_end(&record, over) {
            tracing::error!(tunnel = record.id, "a tunnel of ours has another owner");
            return self.registry.forget(&record);
        }
        failpoint!("end.marked");
        tunnel.end(over, &mut self.buffers.scratch);
        failpoint!("end.shut");
        drop(tunnel);
        self.registry.end(&record, over.cause);
    }

    fn end_all(&mut self, cause: Cause) {
        while let Ok(order) = self.inbox.try_recv() {
            self.obey(order);
        }
        self.thaw();
        // What the vault holds is left as it is: a successor takes it, as after a crash.
        let mine = self.tunnels.iter().filter(|(_, tunnel)| !tunnel.record.is_protected());
        let keys: Vec<usize> = mine.map(|(key, _)| key).collect();
        for key in keys {
            self.end(key, Over::orderly(cause));
        }
    }

    /// Lets go of tunnels for the successor: from here on nothing of this process touches them, unless they thaw.
    fn freeze(&mut self, most: usize) -> Vec<TunnelId> {
        let generation = self.registry.generation;
        let (owned, frozen) = (Owner::owned(generation), Owner::frozen(generation));
        let mut ids = Vec::new();
        let begin = self.freeze_from;
        // A slab's keys stay; a freeze goes on where the last one stopped, and at its end starts over.
        let keys: Vec<usize> = (self.tunnels.iter())
            .filter(|(key, tunnel)| *key >= begin && is_movable(tunnel))
            .map(|(key, _)| key)
            .take(most)
            .collect();
        self.freeze_from = keys.last().filter(|_| keys.len() == most).map_or(0, |key| key + 1);
        for key in keys {
            let Some(tunnel) = self.unwatch(key) else { continue };
            let record = Arc::clone(&tunnel.record);
            self.buffers.ciphers.forget(&record);
            record.cell().frozen_at_us.store(self.registry.clock.now_us(), Ordering::Relaxed);
            failpoint!("freeze.before");
            if record.cell().swap_owner(owned, frozen) {
                failpoint!("freeze.frozen");
                ids.push(record.id);
                self.frozen.keep(tunnel, self.now_ms);
            } else {
                tracing::error!(tunnel = record.id, "a tunnel of ours has another owner");
                self.registry.forget(&record);
            }
        }
        ids
    }

    /// Takes back what no successor has taken; what one has taken is its own.
    fn thaw(&mut self) {
        let generation = self.registry.generation;
        let (owned, frozen) = (Owner::owned(generation), Owner::frozen(generation));
        for tunnel in self.frozen.take_all() {
            let record = Arc::clone(&tunnel.record);
            drop(tunnel);
            if record.cell().swap_owner(frozen, owned) {
                // Like a successor: another may have had it meanwhile, and be gone.
                self.adopt(vec![Tunnel::resumed(record)]);
            } else {
                self.registry.forget(&record);
            }
        }
    }
}

fn is_movable(tunnel: &Tunnel) -> bool {
    tunnel.record.is_portable() && tunnel.record.is_protected()
}
