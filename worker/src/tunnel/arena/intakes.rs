//! Where the engine's threads receive the bytes of plain legs: one intake a thread, in the arena's file.
//!
//! Before anything is received, the intake says whose bytes they will be and where in the stream they begin, and it says so until
//! they are with the target or in the tunnel's carry slot. So whenever its thread dies, every byte that was taken from a source is
//! in one of these, or here under its tunnel's id, and the kernel's counters say how much (`counters`).
//!
//! Only the thread that an intake belongs to writes to it; others read it only when that thread's process is gone.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use holdfast_proto::failpoint;

use super::layout::{HANDS, INTAKE_EACH, INTAKES, Note, Process};
use super::{Arena, ArenaError, Towards};
use crate::tunnel::TunnelId;
use crate::tunnel::mapping::Window;
use crate::tunnel::memfd;

#[cfg(test)]
mod tests;

/// A thread's place in the process table: found once, and no other's until its process has left.
#[derive(Clone)]
pub(in crate::tunnel) struct Seat {
    arena: Arc<Arena>,
    entry: usize,
    thread: usize,
}

/// One thread's intake.
pub(in crate::tunnel) struct Intake {
    seat: Seat,
    window: Window,
}

/// What an intake whose thread is gone says that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) struct Left {
    pub(in crate::tunnel) id: TunnelId,
    entry: usize,
    thread: usize,
    towards: Towards,
    from: u64,
}

// === impl Arena ===

impl Arena {
    /// The place of a thread of a generation. None: the generation is not in the table, which has places for so many of its
    /// threads only.
    pub(in crate::tunnel) fn seat(
        self: &Arc<Self>,
        generation: u64,
        thread: usize,
    ) -> Option<Seat> {
        let same = |entry: &Process| entry.generation.load(Acquire) == generation;
        let entry = self.map.processes.iter().position(same).filter(|_| generation != 0)?;
        (thread < HANDS).then(|| Seat { arena: Arc::clone(self), entry, thread })
    }

    /// What the intakes of other generations say that they have; what was received later comes later.
    pub(in crate::tunnel) fn left_in_intakes(&self, own: u64) -> Vec<Left> {
        let others = |entry: &&(usize, &Process)| entry.1.generation.load(Acquire) != own;
        let mut left = Vec::new();
        for (entry, process) in self.map.processes.iter().enumerate().filter(|it| others(&it)) {
            for (thread, note) in process.intakes.iter().enumerate() {
                let (id, place) = (note.id.load(Acquire), note.place.load(Relaxed));
                if id != 0 {
                    let towards = if place & 1 == 0 { Towards::Client } else { Towards::Backend };
                    left.push(Left { id, entry, thread, towards, from: place >> 1 });
                }
            }
        }
        left.sort_by_key(|left: &Left| left.from);
        left
    }

    /// Moves what was left of a tunnel into the carry slot of its record, which must be the caller's by now; the thread must be
    /// gone. Whoever dies in between leaves it to be done again.
    pub(in crate::tunnel) fn salvage(&self, index: u32, left: &Left) -> Result<(), ArenaError> {
        let cell = self.cell(index).ok_or(ArenaError::Foreign)?;
        let note = note(self, left.entry, left.thread).ok_or(ArenaError::Foreign)?;
        let mut bytes = vec![0; INTAKE_EACH];
        let read = memfd::read_at(&self.fd, &mut bytes, place_of(left.entry, left.thread));
        // Its place in the table may be another process's by now.
        if !note.says(left) {
            return Ok(());
        }
        let written = read.map_err(ArenaError::from).and_then(|count| {
            cell.set_kept(left.towards, Some(left.from));
            self.write_carry(index, left.towards, 0, bytes.get(..count).unwrap_or_default())
        });
        if written.is_err() {
            // Or a hole would be taken for bytes: without a mark, counters that ask for some are called impossible.
            cell.set_kept(left.towards, None);
        }
        failpoint!("salvage.written");
        note.forget();
        written
    }

    /// Forgets what a generation that is gone has left of tunnels that are over.
    pub(in crate::tunnel) fn tidy_intakes(&self, generation: u64) {
        let Some(process) = self.entry(generation) else { return };
        for note in process.intakes.iter().filter(|note| note.id.load(Relaxed) != 0) {
            let id = note.id.load(Relaxed);
            if !self.occupied().any(|(_, cell)| cell.id.load(Relaxed) == id) {
                note.forget();
            }
        }
    }
}

fn place_of(entry: usize, thread: usize) -> u64 {
    INTAKES + ((entry * HANDS + thread) * INTAKE_EACH) as u64
}

fn place(towards: Towards, from: u64) -> u64 {
    from << 1 | u64::from(towards == Towards::Backend)
}

// === impl Process ===

impl Process {
    pub(super) fn has_notes(&self) -> bool {
        self.intakes.iter().any(|note| note.id.load(Relaxed) != 0)
    }

    pub(super) fn forget_notes(&self) {
        self.intakes.iter().for_each(Note::forget);
    }
}

// === impl Note ===

impl Note {
    /// A death in the middle leaves a note of nobody's, or a whole one.
    fn set(&self, id: TunnelId, place: u64) {
        self.id.store(0, Relaxed);
        self.place.store(place, Release);
        self.id.store(id, Release);
    }

    fn forget(&self) {
        self.id.store(0, Release);
    }

    fn says(&self, left: &Left) -> bool {
        let place = place(left.towards, left.from);
        self.place.load(Acquire) == place && self.id.load(Acquire) == left.id
    }
}

// === impl Seat ===

impl Seat {
    /// The thread's intake, at most `most` bytes of it; to be asked for once.
    pub(in crate::tunnel) fn intake(self, most: usize) -> io::Result<Intake> {
        let length = most.min(INTAKE_EACH);
        let place = place_of(self.entry, self.thread);
        let window = Window::new(self.arena.fd.as_fd(), place, length)?;
        Ok(Intake { seat: self, window })
    }

    /// Notes the index of the record that the thread has in hand: should the process die of it, its successor knows which it was.
    pub(in crate::tunnel) fn take_in_hand(&self, record: Option<u32>) {
        let process = self.arena.map.processes.get(self.entry);
        if let Some(hand) = process.and_then(|process| process.hands.get(self.thread)) {
            hand.store(record.map_or(0, |index| index + 1), Relaxed);
        }
    }

    fn note(&self) -> Option<&Note> {
        note(&self.arena, self.entry, self.thread)
    }
}

// === impl Intake ===

impl Intake {
    /// Says whose bytes come next, and where in the stream they begin; answers the room for them.
    pub(in crate::tunnel) fn begin(
        &mut self,
        id: TunnelId,
        towards: Towards,
        from: u64,
    ) -> &mut [u8] {
        if let Some(note) = self.seat.note() {
            note.set(id, place(towards, from));
        }
        &mut self.window
    }

    /// All that was received is with the target, or in the carry slot.
    pub(in crate::tunnel) fn end(&self) {
        if let Some(note) = self.seat.note() {
            note.forget();
        }
    }
}

fn note(arena: &Arena, entry: usize, thread: usize) -> Option<&Note> {
    arena.map.processes.get(entry)?.intakes.get(thread)
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes.
        f.debug_struct("Intake").field("entry", &self.seat.entry).finish_non_exhaustive()
    }
}
