//! One record of the arena in a tunnel's hands.

use std::ops::Deref;
use std::sync::Arc;

use super::arena::{Arena, ArenaError, Cell, Left, SessionCell, Texts, Towards};

/// A record that exists, and the arena that it is in.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    arena: Arc<Arena>,
    index: u32,
}

impl Slot {
    /// The record of that index; `None` where the arena has none.
    pub(super) fn of(arena: &Arc<Arena>, index: u32) -> Option<Self> {
        arena.cell(index)?;
        Some(Self { arena: Arc::clone(arena), index })
    }

    /// Takes a free record for a new tunnel of `generation`.
    pub(super) fn claim(arena: &Arc<Arena>, generation: u64) -> Option<Self> {
        Self::of(arena, arena.claim(generation)?)
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn write_heap(
        &self,
        texts: &Texts,
        to_client: &[&[u8]],
        to_backend: &[u8],
    ) -> Result<(), ArenaError> {
        self.arena.write_heap(self.index, texts, to_client, to_backend)
    }

    pub(super) fn read_texts(&self) -> Texts {
        self.arena.read_texts(self.index)
    }

    pub(super) fn read_prelude(&self, towards: Towards) -> Vec<u8> {
        self.arena.read_prelude(self.index, towards)
    }

    /// Gives back what the preludes took, once nobody needs them.
    pub(super) fn drop_preludes(&self) {
        self.arena.drop_preludes(self.index);
    }

    /// What its tunnel's sessions are.
    pub(super) fn sessions(&self) -> &SessionCell {
        self.arena.sessions(self.index).expect("a slot is made for a record that exists")
    }

    /// Writes into a direction's carry slot, `from` bytes behind its beginning.
    pub(super) fn write_carry(
        &self,
        towards: Towards,
        from: usize,
        bytes: &[u8],
    ) -> Result<(), ArenaError> {
        self.arena.write_carry(self.index, towards, from, bytes)
    }

    /// Gives the memory of a direction's carry slot back.
    pub(super) fn drop_carry(&self, towards: Towards) {
        self.arena.drop_carry(self.index, towards);
    }

    /// Bytes of a direction's carry slot, `from` bytes behind its beginning. Answers how many there are.
    pub(super) fn read_carry(&self, towards: Towards, from: usize, into: &mut [u8]) -> usize {
        self.arena.read_carry(self.index, towards, from, into)
    }

    /// Moves what a thread that is gone has left of this tunnel into the carry slot.
    pub(super) fn salvage(&self, left: &Left) -> Result<(), ArenaError> {
        self.arena.salvage(self.index, left)
    }

    /// Gives the record back.
    pub(super) fn free(&self) {
        if !self.arena.free(self.index) {
            tracing::error!(index = self.index, "a record was not ours to give back");
        }
    }
}

impl Deref for Slot {
    type Target = Cell;

    fn deref(&self) -> &Cell {
        self.arena.cell(self.index).expect("a slot is made for a record that exists")
    }
}
