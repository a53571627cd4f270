//! The configuration file: read at a start, at SIGHUP and at `holdfast reload`; it makes a revision only when its digest has
//! changed. What an unchanged document names by URL is fetched again only where an operator asks for it: a SIGHUP may
//! come from a log rotation, and must not undo what a rollback has brought back.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::outcome::Reloaded;
use super::pages::Source;
use super::{ChangeError, Outcome, Proposal};
use crate::ledger;
use crate::mend;
use crate::service::Reloading;
use crate::state::Supervisor;

/// Largest configuration file, bytes: anything longer is not one.
const LARGEST_FILE: u64 = 32 * 1024 * 1024;

/// Why the configuration file is read. In order: a reading for a later one serves those who wanted an earlier one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Occasion {
    /// The gateway starts: what is kept needs no network.
    Start,
    /// SIGHUP: a file that has changed counts as if it were applied.
    Hangup,
    /// `holdfast reload`: the same, and pages are fetched again whatever has changed.
    Asked,
}

impl Supervisor {
    /// Reads the configuration file again, for a crowd of callers: each is answered of a reading that began after it
    /// had asked, and they share readings, so that a flood of them holds an apply up for one reading only.
    pub(crate) async fn reload(
        &self,
        occasion: Occasion,
        by: String,
    ) -> Result<Outcome, Arc<ChangeError>> {
        let asked = Instant::now();
        let _told = Reloading::begin();
        // Whatever comes of the file: who has moved the access log away asks for this alone.
        self.reopen_logs().await;
        let mut last = self.reloading.lock().await;
        let serves = |last: &&Reloaded| last.began > asked && last.occasion >= occasion;
        if let Some(reloaded) = last.as_ref().filter(serves) {
            return reloaded.result.clone();
        }
        let (began, result) = self.read_again(occasion, by).await;
        let result = result.map_err(Arc::new);
        *last = Some(Reloaded { began, occasion, result: result.clone() });
        result
    }

    /// Has every worker open its access log anew.
    async fn reopen_logs(&self) {
        let workers: Vec<_> = self.all_groups().iter().flat_map(|group| group.workers()).collect();
        let telling = workers.iter().map(|worker| worker.reopen_logs());
        futures_util::future::join_all(telling).await;
    }

    /// Reads the configuration file at a start or for [`Self::reload`]; says when the reading began. An unchanged file
    /// leaves the revision in force, be it the file's or an applied one; a certificate file that
    /// it names and that has other contents now is read again.
    pub(crate) async fn read_again(
        &self,
        occasion: Occasion,
        by: String,
    ) -> (Instant, Result<Outcome, ChangeError>) {
        // Read under the lock: of two readings, the older one is never put in force after the newer one. And nobody
        // else changes anything: what is in force when it is looked at is what is replaced.
        let _one_at_a_time = self.changing.lock().await;
        let began = Instant::now();
        let Some(path) = self.config_file.clone() else { return (began, Err(ChangeError::NoFile)) };
        let result = self.reload_from(&path, occasion, by).await;
        self.problem("file", result.as_ref().err().map(|error| kept_out(&path, error)));
        if result.is_err() {
            self.metrics.reload_refused();
        }
        (began, result)
    }

    /// Whether the configuration file could be put in force at a first start; changes nothing.
    pub(crate) fn check_file(&self) -> Result<(), ChangeError> {
        let Some(path) = &self.config_file else { return Ok(()) };
        super::load(&read(path)?, &self.base_dir).map(drop)
    }

    async fn reload_from(
        &self,
        path: &Path,
        occasion: Occasion,
        by: String,
    ) -> Result<Outcome, ChangeError> {
        let text = read(path)?;
        let digest = ledger::digest(text.as_bytes());
        let source = match occasion {
            Occasion::Start => format!("file {}", path.display()),
            Occasion::Hangup | Occasion::Asked => format!("reload of {}", path.display()),
        };
        let unchanged = self.ledger().file_digest() == Some(digest.as_str());
        if unchanged && let Some(in_force) = self.in_force() {
            let mut outcome = self.refresh_locked(super::load).await?;
            if occasion == Occasion::Asked && in_force.gateway.has_fetched_pages() {
                let (known, base_dir) = (self.known_pages(), self.base_dir_in_force());
                let document = in_force.document.clone();
                let source = format!("{source}, pages of revision {}", in_force.revision);
                let proposal =
                    Proposal { document, base_dir, source, by, if_revision: None, dry_run: false };
                match self.change_locked(proposal, Source::Fresh(&known)).await {
                    Ok(mut fetched) if fetched.changed => {
                        // What the files have changed is in force as well.
                        fetched.changes.splice(0..0, outcome.changes);
                        return Ok(fetched);
                    }
                    Ok(fetched) => outcome.warnings = fetched.warnings,
                    Err(error) if outcome.changed => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(
                            error,
                            "certificate files are in force, error pages are as before"
                        );
                        outcome.message.push_str("; its error pages could not be looked at again");
                    }
                    Err(error) => return Err(error),
                }
            }
            if !outcome.changed {
                outcome.message = format!(
                    "{} has not changed since it was last read; revision {} stays in force",
                    path.display(),
                    outcome.revision
                );
            }
            return Ok(outcome);
        }
        let proposal = Proposal {
            document: text,
            base_dir: self.base_dir.clone(),
            source,
            by,
            if_revision: None,
            dry_run: false,
        };
        let known = self.known_pages();
        let pages = match occasion {
            Occasion::Start => Source::Kept(&known),
            Occasion::Hangup | Occasion::Asked => Source::Fresh(&known),
        };
        let mut outcome = self.change_locked(proposal, pages).await?;
        let noted = self.ledger().set_file_digest(&digest);
        if let Err(error) = noted {
            // No refusal: the revision is in force, and who is told otherwise makes it again.
            let error = mend::told(&error);
            tracing::error!(
                error,
                "the configuration file was read, but that cannot be written down"
            );
            outcome.message = format!(
                "{}; that the file was read cannot be written down ({error}): the next start or reload reads it again",
                outcome.message
            );
        }
        Ok(outcome)
    }

    pub(super) fn base_dir_in_force(&self) -> std::path::PathBuf {
        self.ledger().in_force().map_or_else(|| self.base_dir.clone(), |it| it.base_dir.clone())
    }
}

fn read(path: &Path) -> Result<String, ChangeError> {
    use std::io::Read;
    let fail = |source| ChangeError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > LARGEST_FILE {
        // Cut, it would be found broken where it is not.
        let reason = format!("it has more than {LARGEST_FILE} bytes");
        return Err(fail(std::io::Error::new(std::io::ErrorKind::FileTooLarge, reason)));
    }
    Ok(text)
}

/// What `status` says while a bad file is kept out.
fn kept_out(path: &Path, error: &ChangeError) -> String {
    let detail = match error {
        ChangeError::Invalid(diagnostics) => {
            diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    };
    format!("{} was not taken, the last good revision is served: {detail}", path.display())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.json");
        let whole = " ".repeat(usize::try_from(LARGEST_FILE).unwrap());
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(read(&path).unwrap().len(), whole.len());
        std::fs::write(&path, whole + " ").unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, ChangeError::Read { .. }), "{error}");
        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert!(reason.contains("more than 33554432 bytes"), "{reason}");
    }
}
