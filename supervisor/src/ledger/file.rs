//! One file of the state directory: written so that it is whole or absent, read so that it is right or refused.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Revision;

/// Room for a gRPC message with what JSON escapes of a sane document, and pages in base64 on top, bytes. A longer file is
/// neither written nor read: what is in force must be found again by a restart.
pub(super) const LONGEST_FILE: u64 = 96 * 1024 * 1024;
/// Of a file that is being written.
const TEMPORARY_EXTENSION: &str = "new";

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// It is longer than any that we write.
    #[error("it is longer than {LONGEST_FILE} bytes")]
    TooLong,
    /// It is not the JSON that we write: cut short, or edited.
    #[error("it is not a whole record")]
    Decode(#[source] serde_json::Error),
    /// It is not what was written.
    #[error("its checksum does not match: it was damaged or edited")]
    Checksum,
    /// It was written under another name.
    #[error("it holds revision {found}")]
    Number {
        /// The number inside.
        found: u64,
    },
}

/// A record and what proves that it is whole.
#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    checksum: String,
    record: T,
}

/// SHA-256 in hexadecimal: how documents are compared.
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// The bytes of a revision's file.
pub(super) fn seal(revision: &Revision) -> Result<Vec<u8>, serde_json::Error> {
    let record = serde_json::to_vec(revision)?;
    if !fits(&record) {
        // Nor is it written: nobody will look for its checksum.
        return Ok(record);
    }
    let checksum = digest(&record);
    serde_json::to_vec(&Sealed { checksum, record: revision })
}

/// Reads a revision back and proves that it is the one that was written under `number`.
pub(super) fn read_revision(path: &Path, number: u64) -> Result<Revision, ReadError> {
    let sealed: Sealed<Revision> = read_json(path)?;
    let record = sealed.record;
    // Field order and escaping are serde's, so the same record gives the same bytes again.
    let bytes = serde_json::to_vec(&record).map_err(ReadError::Decode)?;
    if digest(&bytes) != sealed.checksum || digest(record.document.as_bytes()) != record.digest {
        return Err(ReadError::Checksum);
    }
    if record.revision != number {
        return Err(ReadError::Number { found: record.revision });
    }
    Ok(record)
}

/// Reads a bounded JSON file.
pub(super) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ReadError> {
    let file = File::open(path).map_err(ReadError::Io)?;
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(ReadError::TooLong);
    }
    serde_json::from_slice(&bytes).map_err(ReadError::Decode)
}

/// Whether a file of these bytes is read again.
pub(super) fn fits(bytes: &[u8]) -> bool {
    u64::try_from(bytes.len()).is_ok_and(|length| length <= LONGEST_FILE)
}

/// Replaces `path` by `bytes`, or leaves everything as it was. `directory` is the one that it is in, open.
pub(super) fn write(path: &Path, bytes: &[u8], directory: &File) -> io::Result<()> {
    let temporary = temporary_of(path);
    let written = write_aside(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        discard(&temporary);
        return Err(error);
    }
    // Renamed but perhaps not durable: the caller will say that it failed, so a later start must not find a new
    // revision. (Of a file that was replaced, the older content is gone; its reader takes either.)
    directory.sync_all().inspect_err(|_| {
        if path.parent().is_some_and(|parent| parent.ends_with("revisions")) {
            discard(path);
        }
    })
}

/// `0700`, parents included.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The numbers that have a file, ascending. What a killed writer left behind is deleted.
pub(super) fn numbers_in(directory: &Path, problems: &mut Vec<String>) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY_EXTENSION) {
            discard(&path);
            continue;
        }
        match number_of(&path) {
            Some(number) => numbers.push(number),
            None => problems.push(format!("{} is left out: it is no revision", path.display())),
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number in a name, if it is exactly the name that we would give.
fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = name.strip_suffix(".json")?.parse().ok()?;
    (format!("{number:08}.json") == name).then_some(number)
}

fn temporary_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(TEMPORARY_EXTENSION);
    name.into()
}

fn write_aside(temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn discard(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot delete"),
    }
}
