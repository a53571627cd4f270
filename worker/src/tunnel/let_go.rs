//! The predecessor's side of a planned handover, and what the worker's line to the vault asks of the tunnels.
//!
//! Batches are frozen, the successor takes them, the next ones follow; what no successor takes thaws by itself.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use holdfast_proto::vault::MOST_POLLS;
use tokio::sync::oneshot;

use super::TunnelId;
use super::arena::Arena;
use super::engine::{Order, Thread};
use super::front::Tunnels;
use super::left_polls::LeftPoll;
use super::outbox::{Outbox, Pending};
use super::record::Record;
use super::tally::Tally;
use super::{StartError, arena, counters};

/// The arena and tally of a listener that has neither, to be made once.
pub struct Shared {
    arena: Arena,
    tally: Tally,
    /// This kernel's counters need no trial.
    proven: bool,
    left: Vec<LeftPoll>,
}

impl Shared {
    /// Takes up what earlier processes of the listener use; what is missing is made.
    ///
    /// # Errors
    /// An arena of another layout, or something that is none.
    pub fn take_up(
        arena: Option<std::os::fd::OwnedFd>,
        tally: Option<std::os::fd::OwnedFd>,
    ) -> Result<Self, StartError> {
        // Whoever made the arena has seen how this kernel counts.
        let proven = arena.is_some();
        let arena = arena.map_or_else(Arena::create, Arena::open);
        let arena = arena.map_err(|error| StartError::Arena(error.into()))?;
        let tally = tally.map_or_else(Tally::create, Tally::open);
        let tally = tally.map_err(|error| StartError::Tally(error.into()))?;
        Ok(Self { arena, tally, proven, left: Vec::new() })
    }

    /// The two memories, the arena's first.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.arena.fd(), self.tally.fd()]
    }

    /// Goes on with epoll instances of processes that are gone, as far as there are threads for them.
    #[must_use]
    pub fn with_polls(self, left: Vec<LeftPoll>) -> Self {
        Self { left, ..self }
    }

    /// Starts the engine on them.
    pub fn start(self, threads: usize, generation: u64) -> Result<Arc<Tunnels>, StartError> {
        let portable = self.proven || counters::are_trusted();
        Tunnels::start_on(threads, generation, self.arena, self.tally, portable, self.left)
    }
}

impl Tunnels {
    /// The layout of the arena: only processes that agree on it share tunnels.
    pub fn arena_version() -> u32 {
        arena::version()
    }

    /// The arena and the tally, for a vault that does not hold them.
    pub fn shared_fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.registry.arena.fd(), self.registry.tally.fd()]
    }

    /// The threads' epoll instances, each with its name: what is watched there need not be watched anew by a successor.
    pub fn polls(&self) -> (Vec<u64>, Vec<BorrowedFd<'_>>) {
        let named = |thread: &Thread| Some(thread.poll_id()?.number());
        let named = self.threads.iter().filter_map(|it| Some((named(it)?, it.epoll())));
        named.take(MOST_POLLS).unzip()
    }

    /// Names the arena, then the tally, among all such of this host; 0 if one has no name.
    pub fn shared_pages(&self) -> [u64; 2] {
        self.shared_fds().map(|fd| rustix::fs::fstat(fd).map_or(0, |stat| stat.st_ino))
    }

    /// The process that a generation was, as it has enrolled.
    pub fn process_of(&self, generation: u64) -> Option<holdfast_proto::process::ProcessId> {
        self.registry.arena.process_of(generation)
    }

    /// Now, on the clock by which deaths are told, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.registry.clock.now_us()
    }

    /// A vault answers: everything that can be held is deposited with it.
    pub fn attach(&self) {
        let outbox = &self.registry.outbox;
        outbox.set_attached(true);
        outbox.deposit_all(self.unprotected().into_iter());
    }

    /// The vault is gone, and with it what it held.
    pub fn detach(&self) {
        self.registry.outbox.set_attached(false);
        self.note_vault_gone();
        // Nobody will hear of them; what a successor has heard of and taken stays its own.
        self.thaw();
        self.registry.snapshot().iter().for_each(|record| record.protect(false));
    }

    /// The vault answers: who opens a tunnel waits for it again.
    pub fn note_answer(&self) {
        if self.registry.outbox.note_answer() {
            tracing::info!("the vault answers again");
        }
    }

    /// Deposits again what the vault could not hold.
    pub fn deposit_again(&self) {
        self.registry.outbox.deposit_all(self.unprotected().into_iter());
    }

    /// Whether the vault could hold more than it does.
    pub(crate) fn has_unprotected(&self) -> bool {
        self.registry.live().values().any(|record| is_exposed(record))
    }

    /// Live tunnels that could be held, and are not.
    fn unprotected(&self) -> Vec<Arc<Record>> {
        let mut records = self.registry.snapshot();
        records.retain(|record| is_exposed(record));
        records
    }

    /// Waits until there is something for the vault. Cancel-safe.
    pub async fn rung(&self) {
        self.registry.outbox.rung().await;
    }

    /// Whether something waits for the vault.
    pub fn has_pending(&self) -> bool {
        self.outbox().has_any()
    }

    /// Takes what is for the vault.
    pub(crate) fn pending(&self, most: usize) -> Pending {
        self.outbox().take(most)
    }

    fn outbox(&self) -> &Outbox {
        &self.registry.outbox
    }

    /// Whether a tunnel lives here that could be handed over, now or once the vault holds it.
    pub fn has_portable(&self) -> bool {
        self.registry.live().values().any(|record| record.is_portable())
    }

    /// Lets go of about so many tunnels. Answers which.
    pub async fn freeze(&self, most: usize) -> Vec<TunnelId> {
        let share = most.div_ceil(self.threads.len().max(1));
        let mut asked = Vec::new();
        for thread in &self.threads {
            let (reply, answer) = oneshot::channel();
            if thread.tell(Order::Freeze { most: share, reply }) {
                asked.push(answer);
            }
        }
        let mut ids = Vec::new();
        for answer in asked {
            ids.extend(answer.await.unwrap_or_default());
        }
        ids
    }

    /// The successor has these.
    pub fn forget(&self, ids: &[TunnelId]) {
        for thread in &self.threads {
            thread.tell(Order::Forget(ids.to_vec()));
        }
    }

    /// The successor is gone: what it has not taken goes on here.
    pub fn thaw(&self) {
        for thread in &self.threads {
            thread.tell(Order::Thaw);
        }
    }
}

/// Whether the vault could hold it, and does not.
fn is_exposed(record: &Record) -> bool {
    record.is_portable() && !record.is_protected()
}
