//! Figures of all tunnels of this process's life.

use super::Cause;

/// Upper bounds of the duration histogram, in seconds: from a failed handshake's blink to a week.
pub const DURATION_BOUNDS_S: [f64; 12] =
    [0.1, 1.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0];

/// Totals since the engine started. They never go back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Tunnels opened.
    pub opened: u64,
    /// Tunnels ended, in the order of [`Cause::ALL`].
    pub closed: [u64; Cause::ALL.len()],
    /// Bytes from clients to backends, live tunnels' included.
    pub bytes_in: u64,
    /// Bytes from backends to clients, live tunnels' included.
    pub bytes_out: u64,
    /// Ended tunnels by duration: one count a bound of [`DURATION_BOUNDS_S`] (not cumulative), and one for the rest.
    pub durations: [u64; DURATION_BOUNDS_S.len() + 1],
    /// Sum of the durations, in seconds.
    pub duration_sum_s: f64,
}

impl Totals {
    /// Tunnels ended with a cause.
    pub fn closed_by(&self, cause: Cause) -> u64 {
        self.closed.get(cause as usize).copied().unwrap_or_default()
    }

    pub(super) fn count_end(&mut self, cause: Cause, duration_s: f64) {
        if let Some(count) = self.closed.get_mut(cause as usize) {
            *count += 1;
        }
        let bucket = DURATION_BOUNDS_S
            .iter()
            .position(|bound| duration_s <= *bound)
            .unwrap_or(DURATION_BOUNDS_S.len());
        if let Some(count) = self.durations.get_mut(bucket) {
            *count += 1;
        }
        self.duration_sum_s += duration_s;
    }
}
