//! Figures of all tunnels of this process's life.

use std::time::Duration;

use super::Cause;

/// Upper bounds of the duration histogram, in seconds: from a failed handshake's blink to a week.
pub const DURATION_BOUNDS_S: [f64; 12] =
    [0.1, 1.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0];

/// Upper bounds of the pause histogram, in seconds: how long a tunnel stands still while it changes hands.
pub const PAUSE_BOUNDS_S: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// How tunnels came to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Handover {
    /// Their predecessor let go of them.
    Restart,
    /// Their predecessor was gone.
    Crash,
}

/// Totals since the engine started. They never go back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Tunnels opened.
    pub opened: u64,
    /// Tunnels ended, in the order of [`Cause::ALL`].
    pub closed: [u64; Cause::ALL.len()],
    /// Ended tunnels by duration: one count a bound of [`DURATION_BOUNDS_S`] (not cumulative), and one for the rest.
    pub durations: [u64; DURATION_BOUNDS_S.len() + 1],
    /// Sum of the durations, in seconds.
    pub duration_sum_s: f64,
    /// Tunnels taken over, in the order of [`Handover::ALL`].
    pub handed_over: [u64; Handover::ALL.len()],
    /// Changes of hands by the pause: one count a bound of [`PAUSE_BOUNDS_S`] (not cumulative), and one for the rest.
    pub pauses: [u64; PAUSE_BOUNDS_S.len() + 1],
    /// Sum of the pauses, in seconds.
    pub pause_sum_s: f64,
    /// Tunnels that could not be carried on.
    pub lost: u64,
}

impl Totals {
    /// Tunnels ended with a cause.
    pub fn closed_by(&self, cause: Cause) -> u64 {
        self.closed.get(cause as usize).copied().unwrap_or_default()
    }

    /// Tunnels taken over in one way.
    pub fn handed_over_by(&self, handover: Handover) -> u64 {
        self.handed_over.get(handover as usize).copied().unwrap_or_default()
    }
}

impl Handover {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Restart, Self::Crash];

    /// The word that metrics and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Crash => "crash",
        }
    }
}

/// The place of a value among a histogram's bounds.
pub(super) fn bucket(bounds: &[f64], value: Duration) -> usize {
    let seconds = value.as_secs_f64();
    bounds.iter().position(|bound| seconds <= *bound).unwrap_or(bounds.len())
}
