//! The ledger: every revision that was put in force, on disk, and what else has to outlive the supervisor.
//!
//! The newest whole revision is the one in force. Documents may hold private keys, so the files are the owner's only.
//!
//! ```text
//! STATE/revisions/00000007.json   {"checksum": sha256 of the record, "record": {revision, applied_at, …, document}}
//! STATE/file.json                 {"digest": of the configuration file when it was last read}
//! STATE/drained.json              [{"pool": …, "backend": …}]
//! ```
//!
//! # Invariants
//! - A file is complete under its name or is not there: written aside, fsynced, renamed, the directory fsynced.
//! - What does not match its checksum, its number or its digest is never loaded, and said so.
//! - What would be too long to be read back is never written.
//! - A number is given once, even when the file of the newest one is damaged.
//! - A failed call changes nothing: what was in force still is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::health::DrainedBackend;

mod error;
mod file;
mod kept_page;

/// Older revisions than this many are deleted: enough to roll back by days, little enough for any disk.
pub const MOST_REVISIONS: u64 = 100;

/// A document that was put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1.
    pub revision: u64,
    /// When, RFC 3339.
    pub applied_at: String,
    /// `file PATH`, `apply`, `reload`, `rollback to N`.
    pub source: String,
    /// `uid N pid N`, or `holdfast`.
    pub by: String,
    /// Relative paths in the document start here.
    pub base_dir: PathBuf,
    /// As given, byte for byte.
    pub document: String,
    /// SHA-256 of the document, in hexadecimal; see [`digest`].
    pub digest: String,
    /// Error pages that were fetched for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<KeptPage>,
}

/// What a caller of [`Ledger::append`] says about the next revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRevision {
    /// `file PATH`, `apply`, `reload`, `rollback to N`.
    pub source: String,
    /// `uid N pid N`, or `holdfast`.
    pub by: String,
    /// Relative paths in the document start here.
    pub base_dir: PathBuf,
    /// The document.
    pub document: String,
}

/// A revision in the list: all but its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionEntry {
    /// Its number.
    pub revision: u64,
    /// When, RFC 3339.
    pub applied_at: String,
    /// Where it came from.
    pub source: String,
    /// Who put it in force.
    pub by: String,
    /// SHA-256 of its document.
    pub digest: String,
}

/// The state directory of one supervisor.
#[derive(Debug)]
pub struct Ledger {
    state: PathBuf,
    /// `STATE/revisions`, locked while this value lives: two writers would give the same number twice.
    revisions: File,
    entries: BTreeMap<u64, RevisionEntry>,
    /// Every number with a file, damaged ones too.
    highest: u64,
    in_force: Option<Revision>,
    file_digest: Option<String>,
    drained: Vec<DrainedBackend>,
}

pub use error::LedgerError;
pub use file::{ReadError, digest};
pub use kept_page::KeptPage;

#[derive(Debug, Serialize, Deserialize)]
struct LastRead {
    digest: String,
}

// === impl Ledger ===

impl Ledger {
    /// Opens (or makes) the ledger in `state`, with what an operator should know: files that were left out.
    pub fn open(state: &Path) -> Result<(Self, Vec<String>), LedgerError> {
        Self::open_with(state, None)
    }

    /// The same, with the directory that this process had locked before it re-executed itself.
    pub(crate) fn open_with(
        state: &Path,
        held: Option<OwnedFd>,
    ) -> Result<(Self, Vec<String>), LedgerError> {
        let path = state.join("revisions");
        let failed = |source| LedgerError::Open { path: path.clone(), source };
        file::make_directory(&path).map_err(failed)?;
        let revisions = match held {
            Some(held) => File::from(held),
            None => File::open(&path).map_err(failed)?,
        };
        match revisions.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(LedgerError::InUse { path: state.to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut problems = Vec::new();
        let numbers = file::numbers_in(&path, &mut problems).map_err(failed)?;
        let mut ledger = Self {
            state: state.to_owned(),
            revisions,
            entries: BTreeMap::new(),
            highest: numbers.last().copied().unwrap_or(0),
            in_force: None,
            file_digest: None,
            drained: Vec::new(),
        };
        ledger.load_revisions(&numbers, &mut problems);
        let last_read: Option<LastRead> = load(&state.join("file.json"), &mut problems);
        ledger.file_digest = last_read.map(|last_read| last_read.digest);
        ledger.drained = load(&state.join("drained.json"), &mut problems).unwrap_or_default();
        Ok((ledger, problems))
    }

    /// A revision of the ledger in `state`, for one who neither writes there nor holds its lock.
    pub(crate) fn read(state: &Path, number: u64) -> Result<Revision, LedgerError> {
        let path = state.join("revisions").join(format!("{number:08}.json"));
        file::read_revision(&path, number).map_err(|source| LedgerError::Read { path, source })
    }

    /// What the lock hangs on.
    pub(crate) fn locked(&self) -> BorrowedFd<'_> {
        self.revisions.as_fd()
    }

    /// The revision in force; `None` before the first.
    pub fn in_force(&self) -> Option<&Revision> {
        self.in_force.as_ref()
    }

    /// As [`Self::append_with`], for a document that names no page.
    pub fn append(&mut self, new: NewRevision) -> Result<Revision, LedgerError> {
        self.append_with(new, Vec::new())
    }

    /// Puts a document in force under the next number, with the pages that were fetched for it. When this returns, it
    /// is on the disk.
    pub fn append_with(
        &mut self,
        new: NewRevision,
        pages: Vec<KeptPage>,
    ) -> Result<Revision, LedgerError> {
        let number = self
            .highest
            .checked_add(1)
            .ok_or_else(|| LedgerError::Exhausted { path: self.directory() })?;
        let revision = Revision {
            revision: number,
            applied_at: jiff::Timestamp::now().to_string(),
            source: new.source,
            by: new.by,
            base_dir: new.base_dir,
            digest: digest(new.document.as_bytes()),
            document: new.document,
            pages,
        };
        let path = self.path_of(number);
        let bytes = file::seal(&revision)
            .map_err(|source| LedgerError::Encode { path: path.clone(), source })?;
        write(path, &bytes, &self.revisions)?;
        self.highest = number;
        self.entries.insert(number, entry_of(&revision));
        self.in_force = Some(revision.clone());
        self.prune();
        Ok(revision)
    }

    /// The revision `number`; `None` if it never was, has been deleted, or was damaged at the start.
    pub fn get(&self, number: u64) -> Result<Option<Revision>, LedgerError> {
        if let Some(revision) = self.in_force.as_ref().filter(|it| it.revision == number) {
            return Ok(Some(revision.clone()));
        }
        if !self.entries.contains_key(&number) {
            return Ok(None);
        }
        let path = self.path_of(number);
        file::read_revision(&path, number)
            .map(Some)
            .map_err(|source| LedgerError::Read { path, source })
    }

    /// All revisions that can be gone back to, oldest first; the last one is in force.
    pub fn list(&self) -> Vec<RevisionEntry> {
        self.entries.values().cloned().collect()
    }

    /// The digest of the configuration file when it was last read, in force or not.
    pub fn file_digest(&self) -> Option<&str> {
        self.file_digest.as_deref()
    }

    /// Notes that the configuration file was read.
    pub fn set_file_digest(&mut self, digest: &str) -> Result<(), LedgerError> {
        self.store("file.json", &LastRead { digest: digest.to_owned() })?;
        self.file_digest = Some(digest.to_owned());
        Ok(())
    }

    /// The backends that are out of rotation by an operator's wish.
    pub fn drained(&self) -> &[DrainedBackend] {
        &self.drained
    }

    /// Replaces the set of drained backends.
    pub fn set_drained(&mut self, drained: &[DrainedBackend]) -> Result<(), LedgerError> {
        let mut drained = drained.to_vec();
        drained.sort();
        drained.dedup();
        self.store("drained.json", &drained)?;
        self.drained = drained;
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        self.state.join("revisions")
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.directory().join(format!("{number:08}.json"))
    }

    fn load_revisions(&mut self, numbers: &[u64], problems: &mut Vec<String>) {
        for number in numbers {
            let path = self.path_of(*number);
            match file::read_revision(&path, *number) {
                Ok(revision) => {
                    self.entries.insert(*number, entry_of(&revision));
                    self.in_force = Some(revision);
                }
                Err(error) => {
                    problems.push(problem(&path, &error));
                }
            }
        }
        if let Some(revision) = self.in_force.as_ref().filter(|it| it.revision != self.highest) {
            problems.push(format!(
                "revision {} is damaged: revision {} is in force instead",
                self.highest, revision.revision
            ));
        }
    }

    fn store<T: Serialize>(&self, name: &str, value: &T) -> Result<(), LedgerError> {
        let path = self.state.join(name);
        let bytes = serde_json::to_vec(value)
            .map_err(|source| LedgerError::Encode { path: path.clone(), source })?;
        match File::open(&self.state) {
            Ok(directory) => write(path, &bytes, &directory),
            Err(source) => Err(LedgerError::Write { path, source }),
        }
    }

    /// A file that cannot be deleted costs space and nothing else, so that is no failure of an append.
    fn prune(&mut self) {
        let oldest = self.highest.saturating_sub(MOST_REVISIONS - 1);
        self.entries.retain(|number, _| *number >= oldest);
        let numbers = match file::numbers_in(&self.directory(), &mut Vec::new()) {
            Ok(numbers) => numbers,
            Err(error) => {
                tracing::warn!(%error, "cannot list old revisions");
                return;
            }
        };
        for number in numbers.into_iter().take_while(|number| *number < oldest) {
            if let Err(error) = fs::remove_file(self.path_of(number)) {
                tracing::warn!(revision = number, %error, "cannot delete an old revision");
            }
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Said rather than left to close(2): a child between fork and exec still has a copy of the descriptor.
        if let Err(error) = self.revisions.unlock() {
            tracing::debug!(%error, "ledger not unlocked");
        }
    }
}

/// Writes what is read back, and nothing else.
fn write(path: PathBuf, bytes: &[u8], directory: &File) -> Result<(), LedgerError> {
    if !file::fits(bytes) {
        return Err(LedgerError::TooLong { path, bytes: bytes.len() });
    }
    file::write(&path, bytes, directory).map_err(|source| LedgerError::Write { path, source })
}

fn entry_of(revision: &Revision) -> RevisionEntry {
    RevisionEntry {
        revision: revision.revision,
        applied_at: revision.applied_at.clone(),
        source: revision.source.clone(),
        by: revision.by.clone(),
        digest: revision.digest.clone(),
    }
}

/// What is in a file of ours; a damaged one is a problem to report, a missing one is none.
fn load<T: for<'a> Deserialize<'a>>(path: &Path, problems: &mut Vec<String>) -> Option<T> {
    match file::read_json(path) {
        Ok(value) => Some(value),
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            problems.push(problem(path, &error));
            None
        }
    }
}

fn problem(path: &Path, error: &ReadError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{} is left out: {error}{}", path.display(), cause.unwrap_or_default())
}

#[cfg(test)]
mod tests;
