//! The access log: a line of JSON for each request, and one for each tunnel's end.
//!
//! ```text
//! requests, tunnels ──Line──> queue (bounded) ──> writer: one thread ──> file, FIFO or standard output
//! ```
//!
//! # Invariants
//! - Nobody waits for the log: a line that finds the queue full is dropped and counted. What blocks, blocks the writer's
//!   thread, which nobody waits for but the end of the process, and that for a bounded time.
//! - Lines of several processes stand in one file: only whole lines go out, never longer than what the kernel keeps
//!   together, and what a killed process leaves of a line is taken back by the next one that writes.
//! - Everything that a client has said is bounded and escaped.

mod line;
mod open_file;
mod queue;
mod sink;
mod text;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use holdfast_proto::control as wire;
use thiserror::Error;

pub(crate) use self::line::{ClientCheck, Line, Request, TunnelEnd};
use self::queue::Queue;
pub(crate) use self::text::Text;
use crate::metrics::counter;

/// All requests, as shares are counted.
const ALL: u32 = 1_000_000;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// There is no log any more.
    Nowhere,
    Stdout,
    File(PathBuf),
}

/// A log that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    destination: Destination,
    /// Of so many requests in a million; never 0.
    sampled: u32,
}

/// Why an access log cannot be had as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AccessLogRefusal {
    /// Its destination is none that this version knows.
    #[error("the destination is not known")]
    Destination,
    /// Its file is not named by an absolute path.
    #[error("the path is not absolute")]
    Path,
    /// Its share of requests is out of range.
    #[error("the share of requests is out of range")]
    Share,
}

/// The access log of a process.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    /// Requests in a million that get a line; 0: there is no log.
    sampled: AtomicU32,
    queue: Arc<Queue>,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn compile(log: wire::AccessLog) -> Result<Self, AccessLogRefusal> {
        let destination = match log.destination() {
            wire::AccessLogDestination::Stdout => Destination::Stdout,
            wire::AccessLogDestination::File => {
                let path = PathBuf::from(log.path);
                if !path.is_absolute() {
                    return Err(AccessLogRefusal::Path);
                }
                Destination::File(path)
            }
            wire::AccessLogDestination::Unspecified => return Err(AccessLogRefusal::Destination),
        };
        let sampled = log.sampled_per_million;
        if !(1..=ALL).contains(&sampled) {
            return Err(AccessLogRefusal::Share);
        }
        Ok(Self { destination, sampled })
    }
}

// === impl AccessLog ===

impl AccessLog {
    /// Goes on with other settings, or the first ones; lines that wait already go where these lead. `None`: there is no log.
    pub(crate) fn configure(&self, settings: Option<&Settings>) {
        let destination = settings.map_or(Destination::Nowhere, |it| it.destination.clone());
        // Before there is a writer, so that it never finds lines and knows not where they go.
        self.queue.set_destination(destination);
        let mut sampled = settings.map_or(0, |settings| settings.sampled);
        if settings.is_some() && !writer::start(&self.queue) {
            self.queue.set_destination(Destination::Nowhere);
            sampled = 0;
        }
        self.sampled.store(sampled, Relaxed);
    }

    /// Whether the request that begins now gets a line.
    pub(crate) fn takes(&self) -> bool {
        match self.sampled.load(Relaxed) {
            0 => false,
            ALL => true,
            share => rand::random_range(0..ALL) < share,
        }
    }

    /// Has a line written, soon. Never waits.
    pub(crate) fn write(&self, line: Line) {
        self.queue.push(line);
    }

    /// Opens the file anew before anything else is written.
    pub(crate) fn reopen(&self) {
        self.queue.reopen();
    }

    /// Waits until what waits now has been written, or dropped, but no longer than `patience`. Blocks.
    pub(crate) fn flush(&self, patience: Duration) {
        self.queue.flush(patience);
    }

    /// Lines of this process's life, for its report. None where there never was a log.
    pub(crate) fn samples(&self) -> Vec<wire::Sample> {
        if !self.queue.has_writer() {
            return Vec::new();
        }
        let counted = ["written", "dropped"].into_iter().zip(self.queue.counts());
        let name = "holdfast_access_log_lines_total";
        counted.map(|(outcome, lines)| counter(name, &[("outcome", outcome)], lines)).collect()
    }
}

#[cfg(test)]
mod tests;
