//! From outcomes of checks to healthy or unhealthy. Pure: no clock, no IO.
//!
//! ```text
//!             success                          success
//!   Unknown ───────────▶ Healthy ◀───────────────────────── Unhealthy
//!      │                    │                                   ▲
//!      │                    └── `threshold` failures in a row ──┤
//!      └─────────────────────── first failure ──────────────────┘
//! ```
//!
//! Azure: a backend starts unhealthy until its first success, one success makes it healthy at once, and it goes
//! down after `unhealthyThreshold` consecutive failures. A target that the supervisor knows to be healthy starts
//! there, so a new prober needs the full threshold to turn it down.

use holdfast_proto::control::HealthState;

/// What one check came to: words for people either way.
pub(crate) type Outcome = Result<String, String>;

/// The state of one target, and how near it is to another.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    state: HealthState,
    since_unix_ms: u64,
    threshold: u32,
    failures: u32,
    words: Option<String>,
}

// === impl Judge ===

impl Judge {
    /// A target as the supervisor knows it. A threshold of 0 counts as 1.
    pub(crate) fn new(known: HealthState, threshold: u32, now_unix_ms: u64) -> Self {
        Self {
            state: known,
            since_unix_ms: now_unix_ms,
            threshold: threshold.max(1),
            failures: 0,
            words: None,
        }
    }

    /// Goes on under a changed probe: the state stands, failures of the old probe do not count against the new one.
    pub(crate) fn restart(&mut self, threshold: u32) {
        self.threshold = threshold.max(1);
        self.failures = 0;
    }

    /// Takes one outcome in; true where state or words have changed, and always after the first.
    pub(crate) fn record(&mut self, outcome: Outcome, now_unix_ms: u64) -> bool {
        let (state, words) = match outcome {
            Ok(words) => {
                self.failures = 0;
                (HealthState::Healthy, words)
            }
            Err(words) => {
                self.failures = self.failures.saturating_add(1);
                let holds = self.state == HealthState::Healthy && self.failures < self.threshold;
                (if holds { HealthState::Healthy } else { HealthState::Unhealthy }, words)
            }
        };
        let changed = self.state != state || self.words.as_ref() != Some(&words);
        if self.state != state {
            self.state = state;
            self.since_unix_ms = now_unix_ms;
        }
        self.words = Some(words);
        changed
    }

    /// The present state.
    pub(crate) fn state(&self) -> HealthState {
        self.state
    }

    /// When the present state began, as far as this process has seen.
    pub(crate) fn since_unix_ms(&self) -> u64 {
        self.since_unix_ms
    }

    /// The last check's words; empty before the first.
    pub(crate) fn words(&self) -> &str {
        self.words.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthState::{Healthy, Unhealthy, Unknown};

    /// `+` is a success, `-` a failure; the states after each.
    fn states(known: HealthState, threshold: u32, outcomes: &str) -> Vec<HealthState> {
        let mut judge = Judge::new(known, threshold, 0);
        let mut states = Vec::new();
        for (at, outcome) in (1..).zip(outcomes.chars()) {
            judge.record(if outcome == '+' { Ok(String::new()) } else { Err(String::new()) }, at);
            states.push(judge.state());
        }
        states
    }

    #[test]
    fn states_follow_the_thresholds() {
        let h = Healthy;
        let u = Unhealthy;
        for (known, threshold, outcomes, expected) in [
            (Unknown, 3, "-", vec![u]),
            (Unknown, 3, "+", vec![h]),
            (Unknown, 3, "-+--", vec![u, h, h, h]),
            (Unknown, 2, "+--+", vec![h, h, u, h]),
            (Healthy, 3, "---", vec![h, h, u]),
            (Healthy, 3, "--+--", vec![h, h, h, h, h]),
            (Healthy, 1, "-", vec![u]),
            (Healthy, 0, "-", vec![u]),
            (Unhealthy, 3, "--+", vec![u, u, h]),
        ] {
            assert_eq!(
                states(known, threshold, outcomes),
                expected,
                "{known:?} {threshold} {outcomes}"
            );
        }
    }

    #[test]
    fn the_first_outcome_is_always_news() {
        for known in [Unknown, Healthy, Unhealthy] {
            assert!(Judge::new(known, 3, 0).record(Ok(String::new()), 1), "{known:?}");
        }
    }

    #[test]
    fn only_a_change_of_state_or_words_is_news() {
        let mut judge = Judge::new(Healthy, 2, 5);
        assert!(judge.record(Ok("200".into()), 10));
        assert!(!judge.record(Ok("200".into()), 20));
        assert!(judge.record(Err("refused".into()), 30), "words");
        assert_eq!((judge.state(), judge.since_unix_ms()), (Healthy, 5));
        assert!(judge.record(Err("refused".into()), 40), "state");
        assert_eq!((judge.state(), judge.since_unix_ms()), (Unhealthy, 40));
        assert!(!judge.record(Err("refused".into()), 50));
        assert_eq!(judge.since_unix_ms(), 40);
    }

    #[test]
    fn a_changed_probe_keeps_the_state_and_forgets_the_count() {
        let mut judge = Judge::new(Healthy, 2, 0);
        judge.record(Err("a".into()), 1);
        judge.restart(2);
        judge.record(Err("a".into()), 2);
        assert_eq!(judge.state(), Healthy);
        judge.record(Err("a".into()), 3);
        assert_eq!(judge.state(), Unhealthy);
    }
}
