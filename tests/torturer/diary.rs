//! What was done to the gateway, when, and how it went: the events' own account, for the report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::options::Kind;

/// What was done, and how it went.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) begun: Vec<(Instant, Kind, String)>,
    /// Waits before kills of workers until every tunnel was protected.
    pub(crate) waits: Vec<Duration>,
    /// From an event until every tunnel was protected again. Of the supervisor: from its start. Of the prober: until there
    /// was another one.
    pub(crate) recovered: BTreeMap<Kind, Vec<Duration>>,
    pub(crate) commands: BTreeMap<Kind, Vec<Duration>>,
    pub(crate) kills: Vec<(Instant, usize)>,
    pub(crate) found: Vec<Found>,
    /// What was not as it should be, in words.
    pub(crate) faults: Vec<String>,
    /// Commands that failed while their supervisor went away.
    pub(crate) interrupted: u64,
}

/// What the board said of a worker's tunnels at the moment of its kill.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    pub(crate) directions: u64,
    pub(crate) bytes: u64,
    pub(crate) half_closed: u64,
}

impl Log {
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.begun.iter().filter(|(_, one, _)| *one == kind).count() as u64
    }
}
