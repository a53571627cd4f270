//! How long to wait before a supervisor that is gone is dialled again. Reads the clock and does nothing else.

use std::time::Duration;

use tokio::time::Instant;

/// The pause before dialling again.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    since: Instant,
}

impl Backoff {
    /// First pause: a supervisor that re-executes itself is back within this.
    const LEAST: Duration = Duration::from_millis(25);
    /// Longest pause while the outage is young: until a new supervisor is dialled, nothing is protected. Ten dials a second
    /// cost nothing that could be measured.
    pub(crate) const SHORT: Duration = Duration::from_millis(100);
    /// An outage that is older is not a restart.
    const YOUNG: Duration = Duration::from_secs(60);
    /// Longest pause: how stale a worker may be after a long outage.
    const MOST: Duration = Duration::from_secs(2);

    pub(crate) fn new() -> Self {
        Self { next: Self::LEAST, since: Instant::now() }
    }

    /// This pause; the next is twice as long.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        let most = if self.since.elapsed() < Self::YOUNG { Self::SHORT } else { Self::MOST };
        self.next = pause.saturating_mul(2).min(most);
        pause
    }

    /// Whether it has gone on for so long: for those who cannot wait for ever.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        self.since.elapsed() > age
    }

    /// After something worked.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pause_stays_short_while_the_outage_is_young_then_grows_and_starts_again() {
        let mut backoff = Backoff::new();
        let pauses =
            |backoff: &mut Backoff| (0..6).map(|_| backoff.next().as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses(&mut backoff), [25, 50, 100, 100, 100, 100]);
        tokio::time::advance(Backoff::YOUNG).await;
        assert_eq!(pauses(&mut backoff), [100, 200, 400, 800, 1600, 2000]);
        backoff.reset();
        assert_eq!(backoff.next(), Backoff::LEAST);
    }
}
