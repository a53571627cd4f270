//! When a dead child's successor starts: at once if it had served, later and later if it keeps dying by itself.
//!
//! Pure: the caller brings the clock and the facts. A kill from outside must never slow a restart down, or an
//! operator's `kill -9` (or a test's thousand of them) would turn into an outage.
//!
//! ```text
//!              died, had served            > 5 deaths by itself within 60 s
//!   steady ----------------------> steady -----------------------------------> looping
//!      \   died, never served: 100 ms, 200 ms … 10 s                            |  every death: 100 ms … 10 s
//!       `--------------------------> steady <-----------------------------------'  lived 60 s
//! ```

use std::collections::VecDeque;
use std::time::Duration;

/// The first delay of a series.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// No delay is longer: the gateway must come back soon after its cause is mended.
pub const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// A child that lived this long was healthy, and deaths longer ago than this are forgotten.
pub const WINDOW: Duration = Duration::from_secs(60);
/// More deaths by itself than this within [`WINDOW`] are a crash loop.
pub const MOST_DEATHS: usize = 5;

/// The restarts of one child's place: a listener's worker, or the prober.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    /// Deaths by itself within the window.
    deaths: VecDeque<Duration>,
    /// How often the delay has doubled.
    doublings: u32,
    looping: bool,
    /// When the current child was due to start.
    started: Option<Duration>,
}

// === impl Restarts ===

impl Restarts {
    /// A place in which nothing has died yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The child died at `now` (since any fixed origin): how long to wait before its successor starts.
    ///
    /// `served`: it had begun to serve. `by_itself`: it exited or crashed; false for a SIGKILL from outside.
    pub fn died(&mut self, now: Duration, served: bool, by_itself: bool) -> Duration {
        if served && self.lived(now) {
            *self = Self::default();
        }
        let delay = self.delay(now, served, by_itself);
        self.started = Some(now.saturating_add(delay));
        delay
    }

    /// Is this a crash loop? It is over once a child has lived for [`WINDOW`].
    pub fn looping(&self, now: Duration) -> bool {
        self.looping && !self.lived(now)
    }

    /// Has the current child lived long enough to be called healthy?
    fn lived(&self, now: Duration) -> bool {
        self.started.is_some_and(|started| now.saturating_sub(started) >= WINDOW)
    }

    fn delay(&mut self, now: Duration, served: bool, by_itself: bool) -> Duration {
        if !by_itself {
            // Not at once if it had not served: the kernel's OOM killer looks like somebody outside, too.
            return if served { Duration::ZERO } else { FIRST_DELAY };
        }
        self.deaths.retain(|death| now.saturating_sub(*death) < WINDOW);
        self.deaths.push_back(now);
        if self.deaths.len() > MOST_DEATHS {
            // One more than decides is never needed.
            self.deaths.pop_front();
            self.looping = true;
        }
        if served && !self.looping {
            self.doublings = 0;
            return Duration::ZERO;
        }
        let factor = 2_u32.saturating_pow(self.doublings);
        self.doublings = self.doublings.saturating_add(1);
        FIRST_DELAY.saturating_mul(factor).min(LONGEST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (seconds, served, by itself, expected delay in ms, looping afterwards)
    type Death = (u64, bool, bool, u64, bool);

    fn check(name: &str, deaths: &[Death]) {
        let mut restarts = Restarts::new();
        for (index, (at, served, by_itself, delay, looping)) in deaths.iter().enumerate() {
            let now = Duration::from_secs(*at);
            let given = restarts.died(now, *served, *by_itself);
            assert_eq!(given, Duration::from_millis(*delay), "{name}, death {index}");
            assert_eq!(restarts.looping(now), *looping, "{name}, death {index}");
        }
    }

    #[test]
    fn one_that_served_comes_back_at_once_until_it_loops() {
        check(
            "served",
            &[
                (0, true, true, 0, false),
                (1, true, true, 0, false),
                (2, true, true, 0, false),
                (3, true, true, 0, false),
                (4, true, true, 0, false),
                (5, true, true, 100, true),
                (6, true, true, 200, true),
                (7, true, true, 400, true),
                (8, true, false, 0, true),
                (100, true, true, 0, false),
            ],
        );
    }

    #[test]
    fn deaths_that_are_far_apart_are_no_loop() {
        let deaths: Vec<Death> = (0..50).map(|n| (n * 13, true, true, 0, false)).collect();
        check("far apart", &deaths);
    }

    #[test]
    fn a_loop_does_not_end_because_its_own_delays_are_long() {
        let mut restarts = Restarts::new();
        let mut now = Duration::ZERO;
        for _ in 0..30 {
            now += restarts.died(now, true, true) + Duration::from_secs(5);
        }
        assert!(restarts.looping(now));
        assert_eq!(restarts.died(now, true, true), LONGEST_DELAY);
        assert!(!restarts.looping(now + LONGEST_DELAY + WINDOW));
    }

    #[test]
    fn one_that_never_served_waits_longer_and_longer() {
        check(
            "never served",
            &[
                (0, false, true, 100, false),
                (0, false, true, 200, false),
                (0, false, true, 400, false),
                (1, false, true, 800, false),
                (2, false, true, 1600, false),
                (4, false, true, 3200, true),
                (8, false, true, 6400, true),
                (15, false, true, 10_000, true),
                (26, false, true, 10_000, true),
            ],
        );
    }

    #[test]
    fn having_served_ends_the_series() {
        check(
            "mixed",
            &[
                (0, false, true, 100, false),
                (1, false, true, 200, false),
                (2, true, true, 0, false),
                (3, false, true, 100, false),
            ],
        );
    }

    #[test]
    fn kills_from_outside_never_count() {
        let mut restarts = Restarts::new();
        for n in 0..1000 {
            let now = Duration::from_millis(n * 10);
            assert_eq!(restarts.died(now, true, false), Duration::ZERO);
            assert!(!restarts.looping(now));
        }
        assert_eq!(restarts.died(Duration::from_secs(11), true, true), Duration::ZERO);
        assert_eq!(restarts.died(Duration::from_secs(12), false, false), FIRST_DELAY);
        assert_eq!(restarts.died(Duration::from_secs(12), false, false), FIRST_DELAY);
    }
}
