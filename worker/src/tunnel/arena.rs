//! The arena: the records of one listener's tunnels, in memory that its workers share and the vault keeps.
//!
//! Who may touch a tunnel stands in its record's owner word, which changes only by compare-exchange. Records never
//! move. Nothing that stands in the arena is trusted: its writer may have died in the middle of anything.
//!
//! Pages of free records, and of their sessions, stay: giving one back zeroes it, and between the look that finds its four records free and
//! the hole, another process may claim one of them, whose owner word the hole would wipe. They are 128 MiB at most, and so are the
//! intakes, whose pages stay for the next process.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};
use std::sync::{Mutex, PoisonError};

use holdfast_proto::process::ProcessId;
use thiserror::Error;

use super::leg::Side;
use super::mapping::Mapping;
use super::memfd::{self, Kind, Refused};

mod heap;
mod intakes;
pub(super) mod layout;
mod owner;
pub(super) mod sessions;
#[cfg(test)]
mod tests;

pub(super) use heap::{CARRY, Texts};
pub(super) use intakes::{Intake, Left, Seat};
pub(super) use layout::{Cell, VERSION};
pub(super) use owner::{Owner, State, ends};
pub(super) use sessions::SessionCell;

use layout::{CAPACITY, Layout, Process, RECORD_SIZE};

const KIND: Kind =
    Kind { name: "holdfast-arena", magic: layout::MAGIC, version: VERSION, size: layout::SIZE };

/// The layout that this process knows: [`VERSION`], unless a test says otherwise.
pub(super) fn version() -> u32 {
    static KNOWN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(|| holdfast_proto::planted_number!("arena").unwrap_or(VERSION))
}

fn kind() -> Kind {
    Kind { version: version(), ..KIND }
}

/// By how many records the arena grows at least: 16 pages.
const GROWTH: u32 = 64;

/// The records of a listener's tunnels.
#[derive(Debug)]
pub(super) struct Arena {
    fd: OwnedFd,
    map: Mapping<Layout>,
    /// Records that were free when this process last looked. Which they still are, their owner words know.
    candidates: Mutex<BTreeSet<u32>>,
}

/// A direction, by where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    Client,
    Backend,
}

/// Why an arena is not taken, or takes something not.
#[derive(Debug, Error)]
pub(super) enum ArenaError {
    /// A system call failed.
    #[error("the arena cannot be used")]
    Io(#[from] io::Error),
    /// Its size could still change.
    #[error("the arena is not sealed")]
    Unsealed,
    /// It is no arena, or no record of it.
    #[error("the descriptor is no arena")]
    Foreign,
    /// It was laid out by another version.
    #[error("the arena has version {found}, and this process knows {}", version())]
    Version {
        /// Its version.
        found: u32,
    },
    /// Texts and preludes do not fit.
    #[error("a tunnel's texts and preludes have {bytes} bytes, which is too long")]
    TooLong {
        /// What was to be written.
        bytes: usize,
    },
}

// === impl Arena ===

impl Arena {
    /// Makes an empty arena.
    pub(super) fn create() -> Result<Self, ArenaError> {
        let fd = kind().create()?;
        memfd::write_at(&fd, &RECORD_SIZE.to_ne_bytes(), 12)?;
        memfd::write_at(&fd, &CAPACITY.to_ne_bytes(), 16)?;
        Self::map(fd)
    }

    /// Takes an arena that another process has made.
    pub(super) fn open(fd: OwnedFd) -> Result<Self, ArenaError> {
        kind().check(fd.as_fd())?;
        let arena = Self::map(fd)?;
        let header = &arena.map.header;
        if (header.record_size.load(Relaxed), header.capacity.load(Relaxed))
            != (RECORD_SIZE, CAPACITY)
        {
            return Err(ArenaError::Foreign);
        }
        Ok(arena)
    }

    fn map(fd: OwnedFd) -> Result<Self, ArenaError> {
        let map = Mapping::new(fd.as_fd())?;
        Ok(Self { fd, map, candidates: Mutex::default() })
    }

    /// For other processes.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes a process known as a generation. False: the table is full, or the generation is another process's.
    pub(super) fn enrol(&self, generation: u64, process: ProcessId) -> bool {
        if generation == 0 {
            return false;
        }
        if self.entry(generation).is_some() {
            return self.process_of(generation) == Some(process);
        }
        let claim = |entry: &&Process| {
            entry.generation.compare_exchange(0, generation, AcqRel, Acquire).is_ok()
        };
        // One that nobody has left bytes in, if there is one: an heir may have died before it had taken them.
        let processes = &self.map.processes;
        let empty = |entry: &&Process| !entry.has_notes();
        let entry = processes.iter().filter(empty).find(claim);
        let any = || {
            tracing::warn!("every place in the arena's table has bytes that nobody has taken");
            processes.iter().find(claim)
        };
        let Some(entry) = entry.or_else(any) else { return false };
        for hand in &entry.hands {
            hand.store(0, Relaxed);
        }
        entry.forget_notes();
        entry.pid.store(process.pid, Relaxed);
        entry.start_time.store(process.start_time, Relaxed);
        entry.ready.store(generation, Release);
        // Somebody may have taken the half-written entry for a dead process's.
        entry.generation.load(Acquire) == generation
    }

    /// The process of a generation. None: it has never been there, or has left.
    pub(super) fn process_of(&self, generation: u64) -> Option<ProcessId> {
        let entry = self.entry(generation)?;
        let ready = entry.ready.load(Acquire) == generation;
        let pid = entry.pid.load(Relaxed);
        let start_time = entry.start_time.load(Relaxed);
        // The entry may have become another generation's meanwhile.
        fence(Acquire);
        let still = entry.generation.load(Relaxed) == generation;
        (ready && still).then_some(ProcessId { pid, start_time })
    }

    /// The generations in the table, each with its process, unless that has not written itself down completely.
    pub(super) fn processes(&self) -> impl Iterator<Item = (u64, Option<ProcessId>)> + '_ {
        let generations = self.map.processes.iter().map(|entry| entry.generation.load(Acquire));
        generations
            .filter(|generation| *generation != 0)
            .map(|generation| (generation, self.process_of(generation)))
    }

    /// Where a thread of a generation notes the record that it has in hand, as index + 1.
    pub(super) fn hand(&self, generation: u64, thread: usize) -> Option<&AtomicU32> {
        let entry = self.entry(generation)?;
        (entry.ready.load(Acquire) == generation).then_some(())?;
        entry.hands.get(thread)
    }

    /// Takes a generation out of the table. Only for a process that is gone or has no tunnel any more.
    pub(super) fn leave(&self, generation: u64) {
        if let Some(entry) = self.entry(generation) {
            // All in one step, so that no death leaves half an entry. Somebody else's success is as good.
            entry.generation.compare_exchange(generation, 0, AcqRel, Acquire).ok();
        }
    }

    fn entry(&self, generation: u64) -> Option<&Process> {
        let same = |entry: &&Process| entry.generation.load(Acquire) == generation;
        self.map.processes.iter().find(same).filter(|_| generation != 0)
    }

    /// Takes a free record, the lowest that is known; its owner word is now OPENING. None: all are taken.
    pub(super) fn claim(&self, generation: u64) -> Option<u32> {
        let opening = Owner::opening(generation);
        // Only indices lie under the lock, and each is a mere hint.
        let mut candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(index) = candidates.pop_first() {
                if self.cell(index).is_some_and(|cell| cell.swap_owner(0_u64, opening)) {
                    return Some(index);
                }
            }
            if !self.refill(&mut candidates) {
                return None;
            }
        }
    }

    /// Looks for free records below the high-water mark; where there is none, raises it. False: all are taken.
    ///
    /// It is raised by an eighth at least, so that however many records are taken, a claim costs a few looks.
    fn refill(&self, candidates: &mut BTreeSet<u32>) -> bool {
        loop {
            let mark = self.high_water();
            let free =
                |index: &u32| self.cell(*index).is_some_and(|cell| cell.owner.load(Relaxed) == 0);
            candidates.extend((0..mark).filter(free));
            if !candidates.is_empty() {
                return true;
            }
            if mark == CAPACITY {
                return false;
            }
            let raised = mark.saturating_add(GROWTH.max(mark / 8)).min(CAPACITY);
            let high_water = &self.map.header.high_water;
            if high_water.compare_exchange(mark, raised, AcqRel, Acquire).is_ok() {
                candidates.extend(mark..raised);
                return true;
            }
        }
    }

    fn high_water(&self) -> u32 {
        self.map.header.high_water.load(Acquire).min(CAPACITY)
    }

    /// A record, free or not.
    pub(super) fn cell(&self, index: u32) -> Option<&Cell> {
        self.map.records.get(usize::try_from(index).ok()?)
    }

    /// What the sessions of a record's tunnel are.
    pub(super) fn sessions(&self, index: u32) -> Option<&SessionCell> {
        self.map.sessions.get(usize::try_from(index).ok()?)
    }

    /// The records that are not free now.
    pub(super) fn occupied(&self) -> impl Iterator<Item = (u32, &Cell)> + '_ {
        (0..self.high_water())
            .filter_map(|index| Some((index, self.cell(index)?)))
            .filter(|(_, cell)| cell.owner.load(Acquire) != 0)
    }

    /// Peers' bytes of all tunnels that were ever in it, to backends and to clients. Never falls.
    pub(super) fn bytes(&self) -> [u64; 2] {
        let cells = (0..self.high_water()).filter_map(|index| self.cell(index));
        cells
            .map(Cell::bytes_ever)
            .fold([0, 0], |sum, one| [sum[0].wrapping_add(one[0]), sum[1].wrapping_add(one[1])])
    }

    /// Wipes a record and gives it back. The caller must be its owner, or its owner's heir. False: it was free, or
    /// somebody else has changed its owner meanwhile.
    ///
    /// Whoever dies in here leaves a record that is ENDING and has no id: no tunnel is left in it, so its heir has
    /// nothing to end or to count, and only frees it again.
    pub(super) fn free(&self, index: u32) -> bool {
        let Some(cell) = self.cell(index) else { return false };
        let found = cell.owner.load(Acquire);
        if found == 0 {
            return false;
        }
        let ending = Owner::ending(found).word();
        if found != ending && !cell.swap_owner(found, ending) {
            return false;
        }
        cell.id.store(0, Relaxed);
        fence(Release);
        let sessions = self.sessions(index).filter(|_| cell.has_sessions());
        // Wiped later, the note that there is an overflow outlives a death in between, and the heir punches again.
        if sessions.is_some() || cell.has_kept() || cell.heap.load(Relaxed) != heap::ALL_INLINE {
            self.punch_overflow(index);
        }
        sessions.into_iter().for_each(SessionCell::wipe);
        // The note that there are sessions outlives them.
        fence(Release);
        cell.wipe();
        let freed = cell.swap_owner(ending, 0_u64);
        if freed {
            self.candidates.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
        }
        freed
    }
}

impl From<Side> for Towards {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Backend => Self::Backend,
        }
    }
}

impl From<Refused> for ArenaError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Io(error) => Self::Io(error),
            Refused::Unsealed => Self::Unsealed,
            Refused::Foreign => Self::Foreign,
            Refused::Version { found } => Self::Version { found },
        }
    }
}
