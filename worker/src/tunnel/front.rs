//! The front of the engine: opens, lists and ends tunnels.
//!
//! Closing is setting a deadline that has come: the tunnel's thread ends it. So nothing here waits for a thread, and
//! no close can be lost to a full queue.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_proto::process::{self, ProcessId};
use holdfast_proto::{control, failpoint};

use super::arena::{Arena, Owner, Texts, ends};
use super::counters::{self, Snapshot};
use super::engine::{Order, Thread};
use super::left_polls::{self, LeftPoll};
use super::leg::Leg;
use super::pin::{Pin, Pinned, Told};
use super::record::{NEVER, Record, unix_ms};
use super::registry::Registry;
use super::relay::Tunnel;
use super::sessions;
use super::slot::Slot;
use super::tally::Tally;
use super::totals::Totals;
use super::waiting::Waiting;
use super::{Cause, OpenError, Preludes, StartError, TunnelFacts, TunnelId};
use crate::access_log::AccessLog;
use crate::socket;
use crate::tls::session::Departed;

/// Ids of a generation; a worker that opens a million tunnels a second lives twelve days on them.
const COUNTER_BITS: u32 = 40;
/// How long a tunnel waits for the vault before it opens unprotected, until it can be deposited: its client would rather
/// talk than wait for what may never be needed.
const DEPOSIT_PATIENCE: Duration = Duration::from_secs(1);

/// Opens, lists and ends the tunnels of a process. Dropping it ends them all and stops the threads.
pub struct Tunnels {
    pub(super) registry: Arc<Registry>,
    pub(super) threads: Vec<Thread>,
    pub(super) waiting: Waiting,
    next_thread: AtomicUsize,
    first_id: TunnelId,
    counter: AtomicU64,
    /// This kernel's counters can be trusted: tunnels may move.
    portable: bool,
    pins_told: Told,
    /// This process leaves: it takes no tunnel any more. Locked while it takes some.
    pub(super) leaving: Mutex<bool>,
}

/// Live tunnels of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) active: u64,
    /// Of these, the vault holds so many.
    pub(crate) protected: u64,
    /// Of these, so many cannot move, by cause.
    pub(crate) pinned: Pinned,
}

/// A tunnel that is not open yet; one that does not come about leaves nothing behind.
struct Opening<'a> {
    registry: &'a Registry,
    record: Option<Arc<Record>>,
}

// === impl Tunnels ===

impl Tunnels {
    /// Starts the engine with this many threads, at least one, on an arena and a tally of its own. Ids are unique across
    /// generations of a listener.
    pub fn start(threads: usize, generation: u64) -> Result<Arc<Self>, StartError> {
        let arena = Arena::create().map_err(|error| StartError::Arena(error.into()))?;
        let tally = Tally::create().map_err(|error| StartError::Tally(error.into()))?;
        let portable = counters::are_trusted();
        Self::start_on(threads, generation, arena, tally, portable, Vec::new())
    }

    pub(super) fn start_on(
        threads: usize,
        generation: u64,
        arena: Arena,
        tally: Tally,
        portable: bool,
        left: Vec<LeftPoll>,
    ) -> Result<Arc<Self>, StartError> {
        let threads = threads.max(1);
        // Before the table is cleared: it tells who is gone.
        let mut left = left_polls::pick(left, &arena, threads).into_iter();
        clear_table(&arena, generation);
        let me = ProcessId::me().map_err(StartError::Thread)?;
        if !arena.enrol(generation, me) {
            return Err(StartError::Crowded);
        }
        let registry = Arc::new(Registry::new(generation, Arc::new(arena), Arc::new(tally)));
        let threads = (0..threads)
            .map(|index| Thread::spawn(index, &registry, left.next()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::Thread)?;
        Ok(Arc::new(Self {
            registry,
            threads,
            waiting: Waiting::default(),
            next_thread: AtomicUsize::new(0),
            first_id: generation << COUNTER_BITS,
            counter: AtomicU64::new(1),
            portable,
            pins_told: Told::default(),
            leaving: Mutex::default(),
        }))
    }

    /// Begins a tunnel: writes it down, has the vault hold its sockets, then lets its thread say the 101 and relay.
    ///
    /// Killed before the vault has answered: nothing has been said to the client. Killed after: a successor says it.
    pub async fn open(
        &self,
        mut client: Leg,
        mut backend: Leg,
        preludes: Preludes,
        facts: TunnelFacts,
    ) -> Result<TunnelId, OpenError> {
        for leg in [&client, &backend] {
            socket::prepare(&leg.fd()).map_err(OpenError::Prepare)?;
        }
        let departed = [client.take_departed(), backend.take_departed()];
        let record = self.write_down([&client, &backend], &departed, &preludes, facts)?;
        self.note_pin(&record);
        let partials = departed.map(|departed| departed.map(|it| it.partial).unwrap_or_default());
        let id = record.id;
        let mut opening = Opening { registry: &self.registry, record: Some(record.clone()) };
        failpoint!("open.published");
        if record.is_portable() {
            let stored = self.registry.outbox.deposit(record.clone());
            let held = tokio::time::timeout(DEPOSIT_PATIENCE, stored).await;
            if held.is_err() && self.registry.outbox.note_silence() {
                tracing::warn!(
                    "the vault does not answer: tunnels open unprotected, without waiting for it"
                );
            }
            if !matches!(held, Ok(Ok(true))) {
                tracing::debug!(tunnel = id, "opened unprotected");
            }
        }
        failpoint!("open.deposited");
        record.mark(ends::OPENED);
        let mut tunnel = Tunnel::new(client, backend, preludes, partials, record.clone());
        tunnel.queued = true;
        // Before a byte can go out: what a client has seen is counted.
        self.registry.tally.count_opened();
        let thread = self.threads.get(record.thread).ok_or(OpenError::Refused)?;
        if !thread.tell(Order::Adopt(vec![tunnel])) {
            return Err(OpenError::Refused);
        }
        opening.record = None;
        // Only now can it be let go of, and a handover may be waiting for that.
        self.registry.outbox.ring();
        Ok(id)
    }

    /// Claims a cell and publishes it whole: from then on a successor can make a tunnel of it.
    fn write_down(
        &self,
        [client, backend]: [&Leg; 2],
        departed: &[Option<Box<Departed>>; 2],
        preludes: &Preludes,
        facts: TunnelFacts,
    ) -> Result<Arc<Record>, OpenError> {
        let generation = self.registry.generation;
        let slot = Slot::claim(&self.registry.arena, generation).ok_or(OpenError::Full)?;
        let id = self.first_id | self.counter.fetch_add(1, Ordering::Relaxed);
        let to_client = [preludes.head.as_slice(), preludes.to_client.as_slice()];
        let texts = Texts::from(&facts);
        if let Err(error) = slot.write_heap(&texts, &to_client, &preludes.to_backend) {
            slot.free();
            return Err(OpenError::Arena(error.into()));
        }
        if let Err(error) = sessions::write_down(&slot, departed) {
            slot.free();
            return Err(OpenError::Arena(error.into()));
        }
        let mut pinned = Pin::of([client, backend], self.portable);
        if pinned.is_none() {
            match (Snapshot::read(client.fd()), Snapshot::read(backend.fd())) {
                (Ok(client), Ok(backend)) => {
                    let [mut client, mut backend] = [client, backend].map(|it| it.baseline());
                    // What is in the carry slot is still to come, as if it were in the socket.
                    client.received -= sessions::partial(departed[0].as_deref());
                    backend.received -= sessions::partial(departed[1].as_deref());
                    slot.set_baselines(client, backend);
                }
                _ => pinned = Some(Pin::Counters),
            }
        }
        let store = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
        let now_ms = self.registry.clock.now_ms();
        slot.begin_bytes();
        store(&slot.id, id);
        store(&slot.opened_unix_ms, unix_ms(facts.opened));
        store(&slot.opened_mono_ms, now_ms);
        let idle_ms = u64::try_from(facts.idle_timeout.as_millis()).unwrap_or(NEVER);
        store(&slot.idle_timeout_ms, idle_ms);
        store(&slot.moved_ms, now_ms);
        store(&slot.stop, NEVER);
        store(&slot.retire_ms, NEVER);
        let head = u32::try_from(preludes.head.len()).unwrap_or(0);
        slot.prelude_uncounted.store(head, Ordering::Relaxed);
        slot.set_client(facts.client);
        if facts.logged {
            slot.set_ends(ends::LOGGED);
        }
        slot.backend_port.store(facts.backend_port, Ordering::Relaxed);
        let sockets = [client.socket(), backend.socket()];
        let (opening, owned) = (Owner::opening(generation), Owner::owned(generation));
        let thread = self.next_thread();
        let record = Arc::new(Record::new(id, facts, thread, pinned, slot, sockets));
        self.registry.live().insert(id, Arc::clone(&record));
        if !record.cell().swap_owner(opening, owned) {
            self.registry.forget(&record);
            return Err(OpenError::Refused);
        }
        Ok(record)
    }

    fn note_pin(&self, record: &Record) {
        let Some(pin) = record.pinned.filter(|pin| self.pins_told.is_first(*pin)) else { return };
        tracing::info!(
            tunnel = record.id,
            cause = pin.as_str(),
            site = &*record.facts.site,
            backend = record.backend(),
            client = %record.facts.client,
            "a tunnel is pinned: it ends with this process, which it keeps until the drain timeout; later ones of this \
             cause are counted only"
        );
    }

    /// The thread whose epoll instance watches that record's tunnel; the next one in turn where none does.
    pub(super) fn thread_for(&self, slot: &Slot) -> usize {
        let watching = slot
            .watched_by()
            .and_then(|poll| self.threads.iter().position(|thread| thread.poll_id() == Some(poll)));
        watching.unwrap_or_else(|| self.next_thread())
    }

    fn next_thread(&self) -> usize {
        self.next_thread.fetch_add(1, Ordering::Relaxed) % self.threads.len().max(1)
    }

    /// Where the ends of those tunnels get their lines whose openings had one. The first one stays.
    pub(crate) fn log_ends(&self, log: &Arc<AccessLog>) {
        self.registry.log.get_or_init(|| Arc::clone(log));
    }

    /// The live tunnels, by id.
    pub fn list(&self) -> Vec<control::Tunnel> {
        let now_ms = self.registry.clock.now_ms();
        let mut tunnels: Vec<_> =
            self.registry.snapshot().iter().map(|record| record.describe(now_ms)).collect();
        tunnels.sort_unstable_by_key(|tunnel| tunnel.id);
        tunnels
    }

    /// Ends tunnels now. Answers which of them were live.
    pub fn close(&self, ids: &[TunnelId], cause: Cause) -> Vec<TunnelId> {
        let now_ms = self.registry.clock.now_ms();
        let closed = {
            let live = self.registry.live();
            let found = ids.iter().filter_map(|id| live.get(id));
            found.map(|record| (record.stop_at(now_ms, cause), record.id).1).collect()
        };
        self.recheck();
        closed
    }

    /// Gives the tunnels that `which` picks a deadline (`None`: now). An earlier one stays. Answers how many.
    pub fn close_where(
        &self,
        which: impl Fn(&TunnelFacts) -> bool,
        cause: Cause,
        deadline: Option<Instant>,
    ) -> usize {
        let clock = self.registry.clock;
        let at_ms = deadline.map_or_else(|| clock.now_ms(), |at| clock.at_ms(at));
        let mut count = 0;
        for record in self.registry.snapshot() {
            if which(&record.facts) {
                record.stop_at(at_ms, cause);
                count += 1;
            }
        }
        self.recheck();
        count
    }

    /// Gives every tunnel a deadline.
    pub fn close_all_at(&self, deadline: Instant, cause: Cause) {
        self.close_where(|_| true, cause, Some(deadline));
    }

    /// Tells what is configured now: `left` answers for a tunnel whose backend is gone how long it may live on, and
    /// `None` for one whose backend is there. Time that runs already goes on; a backend's return stops it.
    pub fn retire(&self, left: impl Fn(&TunnelFacts) -> Option<Duration>) {
        let now_ms = self.registry.clock.now_ms();
        for record in self.registry.snapshot() {
            let left = left(&record.facts);
            record.retire_at(left.map(|left| {
                now_ms.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
            }));
        }
        self.recheck();
    }

    /// How many tunnels are live.
    pub fn active(&self) -> u64 {
        self.registry.live().len() as u64
    }

    /// How many tunnels are live, how many of these the vault holds (they outlive this process), and how many are pinned.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::default();
        for record in self.registry.live().values() {
            census.active += 1;
            census.protected += u64::from(record.is_protected());
            if let Some(count) = record.pinned.and_then(|pin| census.pinned.get_mut(pin as usize)) {
                *count += 1;
            }
        }
        census
    }

    /// Whether no tunnel is live; from then on none is taken over either, so that this process can end: who would end with a
    /// tunnel of a predecessor's trusts the vault to be alive just then.
    pub fn leave(&self) -> bool {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        *leaving |= self.active() == 0;
        *leaving
    }

    /// Waits until no tunnel is live. Cancel-safe.
    pub async fn emptied(&self) {
        loop {
            // Made before the look, so that an end in between is not missed.
            let emptied = self.registry.emptied.notified();
            if self.active() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Figures of the listener's life, all its processes added up.
    pub fn totals(&self) -> Totals {
        self.registry.tally.totals()
    }

    /// Peers' bytes of the arena's life, to backends and to clients, all its processes added up.
    pub fn bytes(&self) -> [u64; 2] {
        self.registry.arena.bytes()
    }

    /// Turns given to tunnels so far: what the engine has worked, to tell a tunnel that waits from one that spins.
    pub fn turns(&self) -> u64 {
        self.threads.iter().map(Thread::turns).sum()
    }

    pub(super) fn recheck(&self) {
        for thread in &self.threads {
            thread.recheck();
        }
    }
}

/// Takes processes that are gone and have left nothing out of the arena's table. One that was never written down whole
/// was killed in the middle: a generation starts only when the one before it has.
fn clear_table(arena: &Arena, generation: u64) {
    let owners: BTreeSet<_> =
        arena.occupied().filter_map(|(_, cell)| cell.owner()).map(|it| it.generation).collect();
    for (earlier, process) in arena.processes() {
        let gone = process.map_or(earlier < generation, |process| !process::runs(process));
        if gone && !owners.contains(&earlier) {
            arena.leave(earlier);
        }
    }
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnels").field("active", &self.active()).finish_non_exhaustive()
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        for thread in &self.threads {
            thread.stop();
        }
        for thread in &mut self.threads {
            thread.join();
        }
        let (arena, generation) = (&self.registry.arena, self.registry.generation);
        let mut owners = arena.occupied().filter_map(|(_, cell)| cell.owner());
        // What is left is a successor's to take, and to clear away.
        if !owners.any(|owner| owner.generation == generation) {
            arena.leave(generation);
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.registry.leave(&record);
        }
    }
}
