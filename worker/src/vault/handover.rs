//! A planned handover from the predecessor's side: one batch frozen, the successor's answer, the next one.
//!
//! Pure: it only says when the next batch is due and what was let go of.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

/// Tunnels let go of at once: few enough that each stands still for milliseconds, enough that five thousand take
/// some forty rounds.
pub(super) const BATCH: usize = 128;
/// Longer than the engine's own deadline, after which it takes back what nobody took.
const ANSWER: Duration = Duration::from_millis(1200);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Handover {
    successor: u64,
    frozen: HashSet<u64>,
    since: Option<Instant>,
}

impl Handover {
    /// Who is attached above this worker; 0: nobody.
    pub(super) fn set_successor(&mut self, generation: u64) {
        self.successor = generation;
    }

    /// Whether the next batch may be frozen.
    pub(super) fn is_ready(&self) -> bool {
        self.successor != 0 && self.frozen.is_empty()
    }

    /// Whether a batch has been let go of and not been answered.
    pub(super) fn is_under_way(&self) -> bool {
        !self.frozen.is_empty()
    }

    pub(super) fn note_frozen(&mut self, ids: &[u64]) {
        self.frozen.extend(ids);
        self.since = Some(Instant::now());
    }

    pub(super) fn note_adopted(&mut self, ids: &[u64]) {
        for id in ids {
            self.frozen.remove(id);
        }
    }

    /// When to stop waiting for an answer.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        self.is_under_way().then(|| self.since.map(|since| since + ANSWER)).flatten()
    }

    /// No answer comes any more: what nobody took has thawed.
    pub(super) fn give_up(&mut self) {
        self.frozen.clear();
    }
}
