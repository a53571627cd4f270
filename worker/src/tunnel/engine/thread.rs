//! A handle on one of the engine's threads.
//!
//! Nothing here waits for the thread, but its end.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::{Engine, Order, SCRATCH, Signals};
use crate::tunnel::poll::{Poll, Waker};
use crate::tunnel::registry::Registry;
use crate::tunnel::relay::Buffers;
use crate::tunnel::watch::PollId;

/// Orders on their way to a thread. A thread takes them between two rounds, within milliseconds; when so many wait
/// it is stuck, and refusing is better than hiding it.
const INBOX: usize = 4096;

/// One thread, from outside.
pub(in crate::tunnel) struct Thread {
    inbox: SyncSender<Order>,
    signals: Arc<Signals>,
    waker: Waker,
    epoll: Arc<OwnedFd>,
    poll_id: Option<PollId>,
    join: Option<JoinHandle<()>>,
}

/// A thread that panics has lost its tunnels without a word to anybody: then the whole process goes, and is replaced.
struct Sentinel;

// === impl Thread ===

impl Thread {
    /// Starts it, on the epoll instance that a dead process has left, if there is one for it.
    pub(in crate::tunnel) fn spawn(
        index: usize,
        registry: &Arc<Registry>,
        left: Option<(PollId, OwnedFd)>,
    ) -> io::Result<Self> {
        let (poll_id, poll) = match left {
            Some((id, epoll)) => (Some(id), Poll::over(epoll)?),
            None => (PollId::of(registry.generation, index), Poll::new()?),
        };
        let epoll = poll.epoll();
        let seat = registry.arena.seat(registry.generation, index);
        let intake = seat.clone().and_then(|seat| {
            let intake = seat.intake(SCRATCH);
            let complain = |error: &io::Error| {
                tracing::warn!(%error, thread = index, "no intake: this thread's relaying costs more");
            };
            intake.inspect_err(complain).ok()
        });
        let waker = poll.waker();
        let signals = Arc::new(Signals::default());
        let (sender, inbox) = sync_channel(INBOX);
        let engine = Engine {
            seat,
            poll,
            poll_id,
            registry: Arc::clone(registry),
            inbox,
            has_orders: false,
            signals: Arc::clone(&signals),
            tunnels: super::Watched::default(),
            frozen: super::Frozen::default(),
            freeze_from: 0,
            ready: VecDeque::new(),
            buffers: Buffers::new(SCRATCH, intake)?,
            now_ms: 0,
            due_ms: u64::MAX,
        };
        let join =
            std::thread::Builder::new().name(format!("tunnels-{index}")).spawn(move || {
                let sentinel = Sentinel;
                engine.run();
                drop(sentinel);
            })?;
        Ok(Self { inbox: sender, signals, waker, epoll, poll_id, join: Some(join) })
    }

    /// Tells the thread something. False: it does not take it, and what the order holds is dropped.
    pub(in crate::tunnel) fn tell(&self, order: Order) -> bool {
        let taken = self.inbox.try_send(order).is_ok();
        self.waker.wake();
        taken
    }

    /// Makes the thread look at all deadlines.
    pub(in crate::tunnel) fn recheck(&self) {
        self.signals.recheck.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Names the epoll instance that it has begun with. None: there are more threads than names.
    pub(in crate::tunnel) fn poll_id(&self) -> Option<PollId> {
        self.poll_id
    }

    /// That instance, for the vault.
    pub(in crate::tunnel) fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Turns that it has given so far.
    pub(in crate::tunnel) fn turns(&self) -> u64 {
        self.signals.turns.load(Ordering::Relaxed)
    }

    pub(in crate::tunnel) fn stop(&self) {
        self.signals.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(in crate::tunnel) fn join(&mut self) {
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
