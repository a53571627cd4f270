//! One supervisor a runtime directory: an advisory lock that ends with its holder.
//!
//! The lock is an open file description that is closed on exec, so no child keeps a dead supervisor's directory
//! locked. The file itself is never removed: two processes would then hold locks on two files of one name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A holder's pid in the lock file is shorter than this, bytes.
const LONGEST_PID: u64 = 32;

/// Held as long as this supervisor is the one of its runtime directory.
#[derive(Debug)]
pub struct Lock {
    file: File,
    pid_file: PathBuf,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another supervisor runs on the directory.
    #[error(
        "{} is in use by the gateway with pid {holder}: stop it with `holdfast stop`, \
         or give another --runtime-dir",
        directory.display()
    )]
    Held {
        /// The runtime directory.
        directory: PathBuf,
        /// Who holds it; `unknown` in the instant between taking the lock and writing the pid.
        holder: String,
    },
    /// The lock or pid file could not be opened, locked or written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

// === impl Lock ===

impl Lock {
    /// Takes `RUNTIME/lock` without waiting and writes this process's pid into it and into `RUNTIME/holdfast.pid`.
    pub fn take(runtime: &Path) -> Result<Self, LockError> {
        let path = runtime.join("lock");
        let failed = |source| LockError::Write { path: path.clone(), source };
        // std opens everything close-on-exec. Not truncated: the pid in it is the holder's until we are that.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = pid_in(&mut file);
                return Err(LockError::Held { directory: runtime.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        write_pid(&mut file).map_err(failed)?;
        let pid_file = runtime.join("holdfast.pid");
        publish_pid(&pid_file)
            .map_err(|source| LockError::Write { path: pid_file.clone(), source })?;
        Ok(Self { file, pid_file })
    }

    /// Goes on with the lock that this process held before it re-executed itself: it was never let go of.
    pub(crate) fn inherit(held: OwnedFd, runtime: &Path) -> Self {
        let lock = Self { file: File::from(held), pid_file: runtime.join("holdfast.pid") };
        // The pid in it is the same: where it cannot be written again (a full disk), nothing is missing.
        if let Err(error) = publish_pid(&lock.pid_file) {
            let (error, path): (&dyn std::error::Error, _) = (&error, lock.pid_file.display());
            tracing::warn!(error, %path, "cannot write the pid file again; it stays as it was");
        }
        lock
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still ours: the lock is released only after this. A stale pid file after a crash harms nobody, since
        // whether a gateway runs is told by the lock.
        if let Err(error) = fs::remove_file(&self.pid_file) {
            tracing::debug!(path = %self.pid_file.display(), %error, "pid file not removed");
        }
        // Said rather than left to close(2): a child between fork and exec still has a copy of the descriptor.
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "lock not released");
        }
    }
}

fn pid_in(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(LONGEST_PID).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// By rename, so that a reader never finds an empty file.
fn publish_pid(path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("pid.new");
    fs::write(&temporary, format!("{}\n", std::process::id()))?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_second_holder_is_told_the_pid_of_the_first() {
        let runtime = tempfile::tempdir().unwrap();
        let first = Lock::take(runtime.path()).unwrap();
        let me = std::process::id().to_string();
        match Lock::take(runtime.path()).unwrap_err() {
            LockError::Held { holder, .. } => assert_eq!(holder, me),
            other @ LockError::Write { .. } => panic!("{other}"),
        }
        let pid_file = runtime.path().join("holdfast.pid");
        assert_eq!(fs::read_to_string(&pid_file).unwrap().trim(), me);
        drop(first);
        assert!(!pid_file.exists());
        Lock::take(runtime.path()).unwrap();
    }

    #[test]
    fn a_child_does_not_inherit_the_lock() {
        let runtime = tempfile::tempdir().unwrap();
        let lock = Lock::take(runtime.path()).unwrap();
        let flags = rustix::io::fcntl_getfd(&lock.file).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_stale_file_of_a_dead_holder_does_not_lock() {
        let runtime = tempfile::tempdir().unwrap();
        fs::write(runtime.path().join("lock"), "99999999 and rubbish").unwrap();
        fs::write(runtime.path().join("holdfast.pid"), "1").unwrap();
        let _lock = Lock::take(runtime.path()).unwrap();
        let text = fs::read_to_string(runtime.path().join("lock")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_missing_directory_is_an_error_with_the_path() {
        let error = Lock::take(Path::new("/nonexistent/holdfast")).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /nonexistent/holdfast/lock");
    }
}
