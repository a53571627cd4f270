//! Why the ledger could not be opened, read or written. Whatever it is, what was in force still is.

use std::io;
use std::path::PathBuf;

use super::file;

/// Why the ledger could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory could not be created, opened or listed.
    #[error("cannot open the ledger in {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another supervisor has it open, under another runtime directory.
    #[error(
        "{} is in use by another gateway: give each its own --state-dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file could not be written; nothing changed.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause: a full disk, a read-only file system, no permission.
        #[source]
        source: io::Error,
    },
    /// A file would be longer than any that is read; nothing changed.
    #[error(
        "{} would have {bytes} bytes, and at most {} are read back after a restart: shorten the document (what JSON \
         escapes counts double, control characters six times) or its error pages",
        path.display(),
        file::LONGEST_FILE
    )]
    TooLong {
        /// The file that was to be written.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// A record could not be put into JSON (a base directory that is not UTF-8).
    #[error("cannot put {} into JSON", path.display())]
    Encode {
        /// The file that was to be written.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A file could not be read, or is not what was written.
    #[error("cannot use {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: file::ReadError,
    },
    /// There is no higher number.
    #[error("revision numbers have run out: a file in {} has the highest there is", path.display())]
    Exhausted {
        /// The directory.
        path: PathBuf,
    },
}
