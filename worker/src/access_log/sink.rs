//! Where lines end up: a file that may be moved away or cut short under us, a FIFO, standard output.
//!
//! # Invariants
//! - One write(2) holds whole lines. A file is written to by one process at a time (`open_file`); into a pipe or a socket
//!   goes only what the kernel keeps together, [`KEPT_TOGETHER`] bytes.
//! - A pipe or a socket is written to only when it takes something, and a file is never waited for to be opened: a FIFO
//!   without a reader is a log that is not there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, write};

use super::Destination;
use super::open_file::OpenFile;

/// Longest write into a pipe that is never mixed with another process's (`PIPE_BUF`).
pub(super) const KEPT_TOGETHER: usize = 4096;
/// Longest value of a client in a line that must not be longer than that.
pub(super) const NARROW: usize = 200;
/// Longest write into a file.
pub(super) const AT_ONCE: usize = 64 << 10;
/// Longest value of a client in a line of a file.
const WIDE: usize = 8 << 10;
/// Between two looks at whether the file was moved away.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a write waits for a pipe's reader before orders are looked at again.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A destination, open or not.
#[derive(Debug)]
pub(super) struct Sink {
    to: To,
    /// What stands there last has no end, as far as is known: the disk was full in the middle of a line.
    torn: bool,
}

#[derive(Debug)]
enum To {
    Stdout,
    File { path: PathBuf, open: Option<OpenFile>, looked: Option<Instant> },
}

/// What came of a write.
#[derive(Debug)]
pub(super) enum Written {
    All,
    /// Nothing of it: who reads the pipe is behind.
    Nothing,
    Failed(io::Error),
}

// === impl Sink ===

impl Sink {
    /// `None`: nowhere.
    pub(super) fn new(destination: Destination) -> Option<Self> {
        let to = match destination {
            Destination::Nowhere => return None,
            Destination::Stdout => To::Stdout,
            Destination::File(path) => To::File { path, open: None, looked: None },
        };
        Some(Self { to, torn: false })
    }

    /// The next write opens the file that the path leads to then.
    pub(super) fn reopen(&mut self) {
        if let To::File { open, .. } = &mut self.to {
            *open = None;
        }
    }

    /// Longest write, and longest value of a client in it.
    pub(super) fn bounds(&mut self) -> [usize; 2] {
        let regular = match &mut self.to {
            To::Stdout => is_regular(io::stdout().as_fd()),
            // Why it cannot be opened, the write says.
            To::File { path, open, looked } => {
                opened(path, open, looked).is_ok_and(|(open, _)| open.regular)
            }
        };
        if regular { [AT_ONCE, WIDE] } else { [KEPT_TOGETHER, NARROW] }
    }

    /// Writes whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> Written {
        let Self { to, torn } = self;
        match to {
            To::Stdout => {
                let stdout = io::stdout();
                put(stdout.as_fd(), is_regular(stdout.as_fd()), lines, torn)
            }
            To::File { path, open, looked } => match opened(path, open, looked) {
                Ok((open, anew)) => {
                    *torn &= !anew;
                    let regular = open.regular;
                    let (turn, end) = open.take_turn();
                    *torn = end.unwrap_or(*torn);
                    put(turn.fd(), regular, lines, torn)
                }
                Err(error) => Written::Failed(error),
            },
        }
    }
}

/// The file, opened if it is not open or if its path leads elsewhere by now; and whether it was.
fn opened<'a>(
    path: &Path,
    open: &'a mut Option<OpenFile>,
    looked: &mut Option<Instant>,
) -> io::Result<(&'a mut OpenFile, bool)> {
    let due = looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
    if due {
        *looked = Some(Instant::now());
    }
    let anew = match open {
        None => Some(OpenFile::at(path)?),
        // Where that fails: better into the file that was moved away than nowhere.
        Some(known) if due && !known.is_at(path) => OpenFile::at(path).ok(),
        Some(_) => None,
    };
    let is_new = anew.is_some();
    match anew {
        Some(file) => Ok((open.insert(file), is_new)),
        None => open.as_mut().map(|open| (open, false)).ok_or_else(|| Errno::BADF.into()),
    }
}

fn put(fd: BorrowedFd<'_>, regular: bool, lines: &[u8], torn: &mut bool) -> Written {
    let mended;
    let lines = if *torn {
        mended = [b"\n", lines].concat();
        &mended
    } else {
        lines
    };
    if !regular {
        if lines.len() > KEPT_TOGETHER {
            // What was a file when the lines were put together.
            return Written::Failed(Errno::MSGSIZE.into());
        }
        if !takes_something(fd) {
            return Written::Nothing;
        }
    }
    let mut left = lines;
    while !left.is_empty() {
        let begun = left.len() < lines.len();
        match write(fd, left) {
            Ok(count) if count > 0 => left = left.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process was faster.
            Err(Errno::AGAIN) if !begun => return Written::Nothing,
            failed => {
                *torn |= begun;
                let why = failed.err().unwrap_or(Errno::NOSPC);
                return Written::Failed(why.into());
            }
        }
    }
    *torn = false;
    Written::All
}

/// Waits a turn for a pipe or a socket. One whose reader is gone takes something, too: an error.
fn takes_something(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    !matches!(poll(&mut fds, Some(&TURN)), Ok(0) | Err(_))
}

pub(super) fn is_regular(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::RegularFile)
}
