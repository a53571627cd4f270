//! Lines on their way from whoever has them to the writer.
//!
//! Bounded by number and by memory. Under its lock nothing waits and nothing is rendered. Whoever puts a line in wakes the
//! writer only where it sleeps, and it sleeps only after a while without lines: a busy log costs its requests no wake-up.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Destination, Line};

/// Lines that may wait: some seconds of a busy listener.
const MOST_LINES: usize = 16_384;
/// Memory that they may take, about.
const MOST_BYTES: usize = 32 << 20;
/// How long the writer lets lines gather before it takes them.
const GATHER: Duration = Duration::from_millis(10);

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// For the writer.
    bell: Condvar,
    /// For those who wait until everything is written.
    done: Condvar,
    has_writer: AtomicBool,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// What becomes of lines.
#[derive(Debug, Default, PartialEq, Eq)]
enum Fate {
    /// Nobody has said yet whether there is a log: a worker that has taken a tunnel over may see it end before it is told.
    #[default]
    Held,
    Written,
    /// There is no log.
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    fate: Fate,
    lines: Vec<Line>,
    bytes: usize,
    orders: Orders,
    /// The writer sleeps until somebody rings.
    sleeps: bool,
    /// The writer has taken lines and not yet come back.
    busy: bool,
    /// It has been said that lines are dropped; over once the writer has caught up.
    told: bool,
}

/// What the writer has to do before it writes anything more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// Go on there.
    pub(super) destination: Option<Destination>,
    /// Open the file anew.
    pub(super) reopen: bool,
}

// === impl Orders ===

impl Orders {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Queue ===

impl Queue {
    /// Puts a line in, or drops it.
    pub(super) fn push(&self, line: Line) {
        let size = line.size();
        let mut state = self.lock();
        if state.fate == Fate::Nothing {
            return;
        }
        let fits = state.lines.len() < MOST_LINES && state.bytes.saturating_add(size) <= MOST_BYTES;
        if fits {
            state.bytes += size;
            state.lines.push(line);
            let wake = std::mem::take(&mut state.sleeps);
            drop(state);
            if wake {
                self.bell.notify_one();
            }
        } else {
            let told = std::mem::replace(&mut state.told, true);
            drop(state);
            self.count_dropped(1);
            if !told {
                tracing::warn!(
                    "the access log cannot keep up: lines are dropped; \
                     holdfast_access_log_lines_total counts them"
                );
            }
        }
    }

    /// Goes on there, with what waits. What waits for a log that there is not is nobody's loss.
    pub(super) fn set_destination(&self, destination: Destination) {
        self.order(|state| {
            if destination == Destination::Nowhere {
                state.fate = Fate::Nothing;
                (state.lines, state.bytes) = (Vec::new(), 0);
            } else {
                state.fate = Fate::Written;
            }
            state.orders.destination = Some(destination);
        });
    }

    pub(super) fn reopen(&self) {
        self.order(|state| state.orders.reopen = true);
    }

    fn order(&self, give: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        give(&mut state);
        state.sleeps = false;
        drop(state);
        self.bell.notify_one();
    }

    /// For the writer: waits for lines or orders, and takes them. What it took before is over.
    pub(super) fn next(&self) -> (Vec<Line>, Orders) {
        let mut state = self.lock();
        state.busy = false;
        if state.lines.is_empty() {
            state.told = false;
            self.done.notify_all();
        }
        // Lines gather, and meanwhile nobody rings for a line.
        let gathered = self.bell.wait_timeout_while(state, GATHER, |it| it.orders.is_empty());
        let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        while state.lines.is_empty() && state.orders.is_empty() {
            state.sleeps = true;
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sleeps = false;
        state.busy = true;
        state.bytes = 0;
        (std::mem::take(&mut state.lines), std::mem::take(&mut state.orders))
    }

    /// For the writer in the middle of lines: orders that cannot wait.
    pub(super) fn take_orders(&self) -> Orders {
        std::mem::take(&mut self.lock().orders)
    }

    /// Waits until the writer has nothing any more, `patience` at most.
    pub(super) fn flush(&self, patience: Duration) {
        if !self.has_writer() {
            return;
        }
        let until = Instant::now() + patience;
        let mut state = self.lock();
        state.sleeps = false;
        self.bell.notify_one();
        while state.busy || !state.lines.is_empty() || !state.orders.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes that there is a writer; false: there was one already.
    pub(super) fn note_writer(&self) -> bool {
        !self.has_writer.swap(true, AcqRel)
    }

    pub(super) fn note_no_writer(&self) {
        self.has_writer.store(false, Relaxed);
    }

    pub(super) fn has_writer(&self) -> bool {
        self.has_writer.load(Acquire)
    }

    pub(super) fn count_written(&self, lines: u64) {
        self.written.fetch_add(lines, Relaxed);
    }

    pub(super) fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
    }

    pub(super) fn counts(&self) -> [u64; 2] {
        [self.written.load(Relaxed), self.dropped.load(Relaxed)]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
