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

/// Before tunnels are looked at again when none could be let go of: they are not deposited yet, or have not thawed.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Handover {
    successor: u64,
    frozen: HashSet<u64>,
    since: Option<Instant>,
    paused_until: Option<Instant>,
}

impl Handover {
    /// Who is attached above this worker; 0: nobody. Answers whether it was another one.
    pub(super) fn set_successor(&mut self, generation: u64) -> bool {
        std::mem::replace(&mut self.successor, generation) != generation
    }

    /// Whether the next batch may be frozen.
    pub(super) fn is_ready(&self) -> bool {
        self.successor != 0 && self.frozen.is_empty() && self.paused_until.is_none()
    }

    /// Whether a batch has been let go of and not been answered.
    pub(super) fn is_under_way(&self) -> bool {
        !self.frozen.is_empty()
    }

    pub(super) fn note_frozen(&mut self, ids: &[u64]) {
        self.frozen.extend(ids);
        self.since = Some(Instant::now());
    }

    /// None could be let go of, though there are some.
    pub(super) fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    pub(super) fn note_adopted(&mut self, ids: &[u64]) {
        for id in ids {
            self.frozen.remove(id);
        }
    }

    /// When to stop waiting, for an answer or in a pause.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        let answer = self.is_under_way().then(|| self.since.map(|since| since + ANSWER));
        answer.flatten().or(self.paused_until)
    }

    /// No answer comes any more: what nobody took has thawed.
    pub(super) fn give_up(&mut self) {
        self.frozen.clear();
        self.paused_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_handover_goes_on_when_a_batch_was_empty_or_is_not_answered() {
        let mut handover = Handover::default();
        assert!(!handover.is_ready());
        assert!(handover.set_successor(2) && !handover.set_successor(2));
        assert!(handover.is_ready() && handover.gives_up_at().is_none());
        handover.pause();
        assert!(!handover.is_ready());
        assert_eq!(handover.gives_up_at(), Some(Instant::now() + PAUSE));
        handover.give_up();
        handover.note_frozen(&[1, 2]);
        assert_eq!(handover.gives_up_at(), Some(Instant::now() + ANSWER));
        handover.note_adopted(&[1]);
        assert!(!handover.is_ready());
        handover.note_adopted(&[2]);
        assert!(handover.is_ready() && handover.gives_up_at().is_none());
    }
}
