//! The log's file, which several processes append to.
//!
//! A process that is killed while the kernel copies its lines leaves a part of them, up to the end of some page. So whoever
//! writes takes the file for itself for that moment and looks first whether it ends in the middle of a line. A line that
//! nobody can finish any more is taken back; nothing else in the file is ever touched.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, ftruncate, open};
use rustix::io::{Errno, pread};

use super::line::BEGIN;
use super::sink::{AT_ONCE, is_regular};

/// How long another process may have the file. One that is stopped while it has it must not stop all others.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts to take it.
const AGAIN: Duration = Duration::from_millis(1);

/// An open file, FIFO or device.
#[derive(Debug)]
pub(super) struct OpenFile {
    fd: OwnedFd,
    /// Device and inode, to see whether the path still leads here.
    identity: (u64, u64),
    pub(super) regular: bool,
    /// Somebody has it for longer than is waited for.
    given_up: bool,
}

/// The file is this process's until this is dropped.
pub(super) struct Turn<'a> {
    fd: BorrowedFd<'a>,
    /// It was given up to wait for it.
    shared: bool,
}

// === impl OpenFile ===

impl OpenFile {
    /// Opens what the path leads to, or makes a file there. Waits for nobody.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        // Who could read a FIFO would be its reader, and never know that there is none.
        let is_fifo = fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo());
        let fd = match open_as(path, OFlags::RDWR) {
            _ if is_fifo => open_as(path, OFlags::WRONLY)?,
            // May be written and not read: then it cannot be mended.
            Err(Errno::ACCESS) => open_as(path, OFlags::WRONLY)?,
            opened => opened?,
        };
        let regular = is_regular(fd.as_fd());
        let found = fs::File::from(fd);
        let about = found.metadata()?;
        let identity = (about.dev(), about.ino());
        Ok(Self { fd: found.into(), identity, regular, given_up: false })
    }

    /// Whether the path still leads here.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == self.identity)
    }

    /// Takes a regular file for this process, and mends its end; whether what is written must begin with a line's end. `None`:
    /// somebody else may be writing, too, and may yet end what has no end.
    pub(super) fn take_turn(&mut self) -> (Turn<'_>, Option<bool>) {
        let mut has_it = false;
        if self.regular {
            let patience = if self.given_up { Duration::ZERO } else { PATIENCE };
            has_it = take(self.fd.as_fd(), patience);
            self.given_up = !has_it;
        }
        let turn = Turn { fd: self.fd.as_fd(), shared: !has_it };
        let end = has_it.then(|| mend(turn.fd));
        (turn, end)
    }
}

// === impl Turn ===

impl Turn<'_> {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.shared {
            // The one that cannot be undone is undone with the process.
            flock(self.fd, FlockOperation::Unlock).unwrap_or_default();
        }
    }
}

fn open_as(path: &Path, access: OFlags) -> rustix::io::Result<OwnedFd> {
    // Without NONBLOCK a FIFO without a reader would be waited for; for files it means nothing.
    let flags = access
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::CLOEXEC
        | OFlags::NOCTTY
        | OFlags::NONBLOCK;
    open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP)
}

/// False: somebody else has it all the time, or the file system knows no locks.
fn take(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        match flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return true,
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => park_timeout(AGAIN),
            Err(_) => return false,
        }
    }
}

/// Takes back a line of ours that has no end. True: the end is somebody else's, and lacks only that.
fn mend(fd: BorrowedFd<'_>) -> bool {
    let Some(size) = fstat(fd).ok().and_then(|it| u64::try_from(it.st_size).ok()) else {
        return false;
    };
    let mut last = [0];
    if size == 0 || pread(fd, &mut last, size - 1) != Ok(1) || last == *b"\n" {
        return false;
    }
    // No write of ours is longer than that.
    let from = size.saturating_sub(AT_ONCE as u64);
    let mut end = vec![0; AT_ONCE];
    let Ok(count) = pread(fd, &mut end, from) else { return true };
    end.truncate(count);
    let begin = match end.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        None if from == 0 => 0,
        None => return true,
    };
    let part = end.get(begin..).unwrap_or_default();
    let ours = part.starts_with(BEGIN) || BEGIN.starts_with(part);
    !ours || ftruncate(fd, from + begin as u64).is_err()
}
