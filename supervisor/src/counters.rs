//! `RUNTIME/counters`: what has been counted, for the next supervisor.
//!
//! Whatever was once exposed is written down before, so that no counter is ever seen to go back. The file goes with the
//! runtime directory; it is never synced, since a machine that goes down takes what was counted with it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::directories::write_private;
use crate::metrics::Metrics;

/// Beyond it a file is none of ours: a thousand series of each metric come to a few megabytes.
const LONGEST: u64 = 64 * 1024 * 1024;

/// The file, and what is counted.
#[derive(Debug)]
pub struct Counters {
    metrics: Arc<Metrics>,
    path: PathBuf,
    writing: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    last: String,
    failed: bool,
}

// === impl Counters ===

impl Counters {
    /// To be kept at `RUNTIME/counters`.
    pub fn new(runtime: &Path, metrics: Arc<Metrics>) -> Self {
        Self { metrics, path: runtime.join("counters"), writing: Mutex::default() }
    }

    /// Goes on from what an earlier supervisor has counted, where that can be read.
    pub fn recall(&self) {
        let text = match self.read() {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.begin_at_zero(&error),
        };
        if let Err(error) = self.metrics.recall(&text) {
            self.begin_at_zero(&error);
        }
    }

    fn read(&self) -> io::Result<String> {
        if std::fs::metadata(&self.path)?.len() > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        std::fs::read_to_string(&self.path)
    }

    fn begin_at_zero(&self, error: &(dyn std::error::Error + 'static)) {
        let path = self.path.display();
        tracing::warn!(error, %path, "what was counted cannot be read; counters begin at zero");
    }

    /// The exposition; what is in it is written down when this returns. Blocks.
    pub fn expose(&self) -> String {
        let mut written = self.lock();
        // Under the lock: no older text ever replaces a newer one.
        let (exposition, text) = self.metrics.render_and_save();
        self.write(&mut written, text);
        exposition
    }

    /// Writes down what is counted. Blocks for a small file.
    pub fn save(&self) {
        let mut written = self.lock();
        let (_, text) = self.metrics.render_and_save();
        self.write(&mut written, text);
    }

    fn write(&self, written: &mut Written, text: String) {
        if text == written.last {
            return;
        }
        match write_private(&self.path, text.as_bytes()) {
            Ok(()) => {
                written.failed = false;
                written.last = text;
            }
            // Serving comes first, and so does measuring.
            Err(error) if !std::mem::replace(&mut written.failed, true) => {
                let (error, path): (&dyn std::error::Error, _) = (&error, self.path.display());
                tracing::warn!(error, %path, "cannot write down what is counted");
            }
            Err(_) => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn counters(directory: &Path) -> Counters {
        let counters = Counters::new(directory, Arc::new(Metrics::new()));
        counters.recall();
        counters
    }

    #[test]
    fn what_was_exposed_is_not_taken_back_by_the_next_supervisor() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let first = counters(directory.path());
        first.metrics.reload_refused();
        assert!(first.expose().contains("holdfast_reloads_refused_total 1"));
        let mode = std::fs::metadata(directory.path().join("counters")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let second = counters(directory.path());
        assert!(second.expose().contains("holdfast_reloads_refused_total 1"));
    }

    #[test]
    fn a_file_that_is_none_of_ours_begins_at_zero_and_is_replaced() {
        for text in ["", "{", "[]", "{\"version\":2}", "{\"version\":1}", "\u{fffd}"] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("counters"), text).unwrap();
            let found = counters(directory.path());
            assert!(found.expose().contains("holdfast_reloads_refused_total 0"), "{text}");
            found.metrics.reload_refused();
            found.save();
            let next = counters(directory.path());
            assert!(next.expose().contains("holdfast_reloads_refused_total 1"), "{text}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_stops_no_exposition() {
        let directory = tempfile::tempdir().unwrap();
        let gone = counters(&directory.path().join("gone"));
        gone.metrics.reload_refused();
        assert!(gone.expose().contains("holdfast_reloads_refused_total 1"));
    }
}
