//! Sealed memory files that processes share: made, and checked before anything of them is trusted.
//!
//! A file that may shrink is never mapped: whoever touched what is gone would die of it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use thiserror::Error;

/// The size of such a file is fixed for good.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// What stands at the start of every such file, whatever its version: magic (8 bytes), then version (4 bytes).
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) magic: u64,
    pub(super) version: u32,
    pub(super) size: u64,
}

/// Why a file is not taken.
#[derive(Debug, Error)]
pub(super) enum Refused {
    /// A system call failed.
    #[error("shared memory cannot be used")]
    Io(#[from] io::Error),
    /// Its size could still change.
    #[error("the shared memory is not sealed")]
    Unsealed,
    /// It is something else.
    #[error("the descriptor is not the expected shared memory")]
    Foreign,
    /// It was laid out by another version.
    #[error("the shared memory has version {found}")]
    Version {
        /// Its version.
        found: u32,
    },
}

impl Kind {
    /// Makes an empty file of this kind.
    pub(super) fn create(&self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match rustix::fs::memfd_create(self.name, flags | MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3.
            Err(Errno::INVAL) => rustix::fs::memfd_create(self.name, flags)?,
            outcome => outcome?,
        };
        rustix::fs::ftruncate(&fd, self.size)?;
        rustix::fs::fcntl_add_seals(&fd, SEALS)?;
        write_at(&fd, &self.magic.to_ne_bytes(), 0)?;
        write_at(&fd, &self.version.to_ne_bytes(), 8)?;
        Ok(fd)
    }

    /// Whether a descriptor that came from elsewhere is a file of this kind.
    pub(super) fn check(&self, fd: BorrowedFd<'_>) -> Result<(), Refused> {
        match rustix::fs::fcntl_get_seals(fd) {
            Ok(seals) if seals.contains(SEALS) => {}
            Ok(_) => return Err(Refused::Unsealed),
            Err(Errno::INVAL | Errno::BADF) => return Err(Refused::Foreign),
            Err(error) => return Err(Refused::Io(error.into())),
        }
        let (mut magic, mut version) = ([0; 8], [0; 4]);
        if read_at(fd, &mut magic, 0)? != 8
            || read_at(fd, &mut version, 8)? != 4
            || u64::from_ne_bytes(magic) != self.magic
        {
            return Err(Refused::Foreign);
        }
        // Asked before the size, which may well be another one in another version.
        let found = u32::from_ne_bytes(version);
        if found != self.version {
            return Err(Refused::Version { found });
        }
        let size = rustix::fs::fstat(fd).map_err(io::Error::from)?.st_size;
        if u64::try_from(size) == Ok(self.size) { Ok(()) } else { Err(Refused::Foreign) }
    }
}

/// Writes all of `bytes`.
pub(super) fn write_at(
    fd: impl std::os::fd::AsFd,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&fd, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads as much of `into` as there is, and answers how much that was.
pub(super) fn read_at(
    fd: impl std::os::fd::AsFd,
    into: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest @ [_, ..]) = into.get_mut(done..) {
        match rustix::io::pread(&fd, rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Gives memory back; what was there reads as zeroes.
pub(super) fn punch(fd: impl std::os::fd::AsFd, offset: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(&fd, flags, offset, length) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}
