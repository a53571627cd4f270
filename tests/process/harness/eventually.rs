//! Waiting for what a user would notice, within a bound; there is no fixed sleep in any test.

use std::thread;
use std::time::{Duration, Instant};

/// How long something may take before the test fails. Slow machines set `HOLDFAST_TEST_PATIENCE` (a factor).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience(pub(crate) Duration);

impl Patience {
    /// For what a process does by itself: start, become ready, answer.
    pub(crate) const USUAL: Self = Self(Duration::from_secs(20));
    /// For what crosses several deadlines: drains, thresholds of probes.
    pub(crate) const LONG: Self = Self(Duration::from_secs(60));

    fn stretched(self) -> Duration {
        self.0 * scale("HOLDFAST_TEST_PATIENCE", 1)
    }
}

/// A whole number from the environment, or `usual`: sizes of the larger tests.
pub(crate) fn scale(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Asks until there is an answer; fails naming `what` when patience ends.
pub(crate) fn eventually<T>(
    patience: Patience,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < patience.stretched(), "waited {:?} for {what}", begin.elapsed());
        thread::park_timeout(Duration::from_millis(15));
    }
}

/// Asks all through `span`; fails naming `what` at the first `false`.
pub(crate) fn stays(span: Duration, what: &str, mut ask: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < span {
        assert!(ask(), "no longer after {:?}: {what}", begin.elapsed());
        thread::park_timeout(Duration::from_millis(15));
    }
}
