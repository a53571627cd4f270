//! What comes of a change: what it did, or why nothing was changed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use holdfast_proto::admin;

use super::file::Occasion;
use crate::config::diagnostic::Diagnostic;
use crate::ledger::LedgerError;
use crate::mend;

/// What a change did.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// In force before.
    pub before: u64,
    /// In force now.
    pub revision: u64,
    /// Whether that is new.
    pub changed: bool,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
    /// The plan, for people.
    pub changes: Vec<admin::Change>,
    /// Workers whose tunnels are not counted in that: they have not answered.
    pub silent: Vec<admin::SilentWorker>,
    /// Workers that do not serve the revision.
    pub refusals: Vec<admin::Refusal>,
    /// A sentence.
    pub message: String,
    /// Places of the effective configuration that are other ones now, for the audit log.
    pub places: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The document has errors; the list holds warnings too.
    #[error("the document is not valid")]
    Invalid(Vec<Diagnostic>),
    /// Somebody was faster.
    #[error(
        "revision {in_force} is in force, not {expected}: look at it (`holdfast config`), make the change to it, and \
         apply that"
    )]
    Stale {
        /// Wanted.
        expected: u64,
        /// Found.
        in_force: u64,
    },
    /// A new listener's address can't be bound.
    #[error("cannot listen on {address}: {why}; {}", mend::of_address(why.kind()))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why; part of the sentence, so not a source that would be told once more.
        why: std::io::Error,
    },
    /// The revision can't be made durable.
    #[error("cannot write the revision to the state directory")]
    Ledger(#[from] LedgerError),
    /// A configuration file can't be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No such revision.
    #[error("revision {0} is not in the history, which `holdfast revisions` lists")]
    NoSuchRevision(u64),
    /// Reload without a file.
    #[error("this gateway was started without a configuration file; use `holdfast apply`")]
    NoFile,
    /// Too late.
    #[error("the gateway stops; start it again first")]
    Stopping,
}

/// A reload that is over.
#[derive(Debug)]
pub(crate) struct Reloaded {
    /// When it began to read.
    pub(super) began: Instant,
    pub(super) occasion: Occasion,
    pub(super) result: Result<Outcome, Arc<ChangeError>>,
}

impl ChangeError {
    /// What is wrong with the document; empty where it is something else.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(diagnostics) => diagnostics,
            _ => &[],
        }
    }

    /// What to do about it, where that is known and not said yet.
    pub fn mend(&self) -> Option<&'static str> {
        match self {
            Self::Read { source, .. } => mend::of_document(source.kind()),
            Self::Ledger(error) => mend::of(error),
            _ => None,
        }
    }
}
