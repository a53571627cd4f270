//! The front of the engine: opens, lists and ends tunnels.
//!
//! Closing is setting a deadline that has come: the tunnel's thread ends it. So nothing here waits for a thread, and
//! no close can be lost to a full queue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holdfast_proto::control;

use super::engine::{Adoption, Thread};
use super::leg::Leg;
use super::record::Record;
use super::registry::Registry;
use super::totals::Totals;
use super::{Cause, OpenError, Preludes, TunnelFacts, TunnelId, sys};

/// Ids of a generation; a worker that opens a million tunnels a second lives twelve days on them.
const COUNTER_BITS: u32 = 40;

/// Opens, lists and ends the tunnels of a process. Dropping it ends them all and stops the threads.
#[derive(Debug)]
pub struct Tunnels {
    registry: Arc<Registry>,
    threads: Vec<Thread>,
    next_thread: AtomicUsize,
    first_id: TunnelId,
    counter: AtomicU64,
}

// === impl Tunnels ===

impl Tunnels {
    /// Starts the engine with this many threads, at least one. Ids are unique across generations of a listener.
    pub fn start(threads: usize, generation: u64) -> io::Result<Arc<Self>> {
        let registry = Arc::new(Registry::new());
        let threads = (0..threads.max(1))
            .map(|index| Thread::spawn(index, &registry))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Arc::new(Self {
            registry,
            threads,
            next_thread: AtomicUsize::new(0),
            first_id: generation << COUNTER_BITS,
            counter: AtomicU64::new(1),
        }))
    }

    /// Begins a tunnel: registers it, then lets its thread say the 101 and relay.
    ///
    /// The two steps are apart on purpose: between them nothing has been said to the client.
    pub fn open(
        &self,
        client: Leg,
        backend: Leg,
        preludes: Preludes,
        facts: TunnelFacts,
    ) -> Result<TunnelId, OpenError> {
        for leg in [&client, &backend] {
            sys::prepare(leg.fd()).map_err(OpenError::Prepare)?;
        }
        let record = self.register(facts);
        let id = record.id;
        self.launch(Adoption { client, backend, preludes, record })?;
        Ok(id)
    }

    fn register(&self, facts: TunnelFacts) -> Arc<Record> {
        let id = self.first_id | self.counter.fetch_add(1, Ordering::Relaxed);
        let turn = self.next_thread.fetch_add(1, Ordering::Relaxed);
        let thread = turn % self.threads.len();
        let record = Arc::new(Record::new(id, facts, thread, self.registry.clock.now_ms()));
        self.registry.live().insert(id, Arc::clone(&record));
        record
    }

    fn launch(&self, adoption: Adoption) -> Result<(), OpenError> {
        let record = Arc::clone(&adoption.record);
        let taken = self.threads.get(record.thread).is_some_and(|thread| thread.adopt(adoption));
        if taken {
            self.registry.count_opened();
            return Ok(());
        }
        self.registry.live().remove(&record.id);
        Err(OpenError::Refused)
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

    /// Figures since the start.
    pub fn totals(&self) -> Totals {
        self.registry.totals()
    }

    /// Turns given to tunnels so far: what the engine has worked, to tell a tunnel that waits from one that spins.
    pub fn turns(&self) -> u64 {
        self.registry.turns.load(Ordering::Relaxed)
    }

    fn recheck(&self) {
        for thread in &self.threads {
            thread.recheck();
        }
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
    }
}
