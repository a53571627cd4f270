//! Two words of a record: who may touch its tunnel, and which of its ends have been seen.

use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::Cell;
use crate::tunnel::Cause;

const GENERATION_BITS: u32 = 56;
const GENERATION: u64 = (1 << GENERATION_BITS) - 1;

/// What an owner does with a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum State {
    /// Writes the record; nothing has been said to the client.
    Opening = 1,
    /// Relays.
    Owned = 2,
    /// Has let go of it, for a successor.
    Frozen = 3,
    /// Ends it.
    Ending = 4,
}

/// An owner word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) struct Owner {
    pub(in crate::tunnel) state: State,
    /// At most 56 bits; what is above them is not kept.
    pub(in crate::tunnel) generation: u64,
}

/// The flags of `ends`. Its uppermost byte is the cause + 1, once the end is decided.
pub(in crate::tunnel) mod ends {
    /// The client's reset has been seen, and must not be looked for again.
    pub(in crate::tunnel) const CLIENT_RESET: u64 = 1;
    /// The same of the backend.
    pub(in crate::tunnel) const BACKEND_RESET: u64 = 1 << 1;
    /// Set before the FIN to the client is sent.
    pub(in crate::tunnel) const CLIENT_FIN_SENT: u64 = 1 << 2;
    /// Set before the FIN to the backend is sent.
    pub(in crate::tunnel) const BACKEND_FIN_SENT: u64 = 1 << 3;
    /// The client has got its whole prelude.
    pub(in crate::tunnel) const TO_CLIENT_PRELUDE_DONE: u64 = 1 << 4;
    /// The backend has got its whole prelude.
    pub(in crate::tunnel) const TO_BACKEND_PRELUDE_DONE: u64 = 1 << 5;
    /// The client's TLS ended without `close_notify`.
    pub(in crate::tunnel) const CLIENT_TRUNCATED: u64 = 1 << 6;
    /// The backend's TLS ended without `close_notify`.
    pub(in crate::tunnel) const BACKEND_TRUNCATED: u64 = 1 << 7;
    /// The client ended first.
    pub(in crate::tunnel) const FIRST_END_CLIENT: u64 = 1 << 8;
    /// The backend ended first.
    pub(in crate::tunnel) const FIRST_END_BACKEND: u64 = 1 << 9;
    /// The vault holds the legs.
    pub(in crate::tunnel) const PROTECTED: u64 = 1 << 10;
    /// The end has been counted.
    pub(in crate::tunnel) const COUNTED: u64 = 1 << 11;
    /// The client may have heard of it: it counts as opened.
    pub(in crate::tunnel) const OPENED: u64 = 1 << 12;
    /// It ends by resets, not by FINs.
    pub(in crate::tunnel) const ABRUPT: u64 = 1 << 13;
    /// The client's `close_notify` has been seen: what still comes from it is ignored.
    pub(in crate::tunnel) const CLIENT_CLOSED: u64 = 1 << 14;
    /// The same of the backend.
    pub(in crate::tunnel) const BACKEND_CLOSED: u64 = 1 << 15;

    /// Its opening has a line in the access log. A version that does not know this writes none of its end.
    pub(in crate::tunnel) const LOGGED: u64 = 1 << 16;
    /// The client's TLS sent a fatal alert. This and the next three are for those who are told of the end.
    pub(in crate::tunnel) const CLIENT_ALERT: u64 = 1 << 17;
    /// The same of the backend.
    pub(in crate::tunnel) const BACKEND_ALERT: u64 = 1 << 18;
    /// The client's leg failed otherwise than by a reset; the cause says how.
    pub(in crate::tunnel) const CLIENT_BROKE: u64 = 1 << 19;
    /// The same of the backend.
    pub(in crate::tunnel) const BACKEND_BROKE: u64 = 1 << 20;

    pub(super) const CAUSE_SHIFT: u32 = 56;
}

// === impl Owner ===

impl Owner {
    pub(in crate::tunnel) const fn opening(generation: u64) -> Self {
        Self::new(State::Opening, generation)
    }

    pub(in crate::tunnel) const fn owned(generation: u64) -> Self {
        Self::new(State::Owned, generation)
    }

    pub(in crate::tunnel) const fn frozen(generation: u64) -> Self {
        Self::new(State::Frozen, generation)
    }

    pub(in crate::tunnel) const fn ending(generation: u64) -> Self {
        Self::new(State::Ending, generation)
    }

    const fn new(state: State, generation: u64) -> Self {
        Self { state, generation: generation & GENERATION }
    }

    pub(in crate::tunnel) const fn word(self) -> u64 {
        (self.state as u64) << GENERATION_BITS | (self.generation & GENERATION)
    }

    /// None: the record is free, or its owner word is none that this version knows.
    pub(in crate::tunnel) const fn parse(word: u64) -> Option<Self> {
        let state = match word >> GENERATION_BITS {
            1 => State::Opening,
            2 => State::Owned,
            3 => State::Frozen,
            4 => State::Ending,
            _ => return None,
        };
        Some(Self::new(state, word))
    }
}

impl From<Owner> for u64 {
    fn from(owner: Owner) -> Self {
        owner.word()
    }
}

// === impl Cell ===

impl Cell {
    /// Who may touch the tunnel now.
    pub(in crate::tunnel) fn owner(&self) -> Option<Owner> {
        Owner::parse(self.owner.load(Acquire))
    }

    /// Sets flags of [`ends`]. True: all of them were set before.
    pub(in crate::tunnel) fn set_ends(&self, flags: u64) -> bool {
        self.ends.fetch_or(flags, AcqRel) & flags == flags
    }

    /// Whether all of these flags of [`ends`] are set.
    pub(in crate::tunnel) fn has_ends(&self, flags: u64) -> bool {
        self.ends.load(Acquire) & flags == flags
    }

    /// Decides why the tunnel ends, unless that has been decided. Answers what holds.
    pub(in crate::tunnel) fn decide(&self, cause: Cause) -> Cause {
        let byte = (cause as u64 + 1) << ends::CAUSE_SHIFT;
        let decided = |word: u64| (word >> ends::CAUSE_SHIFT == 0).then_some(word | byte);
        match self.ends.fetch_update(AcqRel, Acquire, decided) {
            Ok(_) => cause,
            Err(word) => cause_of(word).unwrap_or(Cause::Lost),
        }
    }

    /// Why the tunnel ends, once that is decided.
    pub(in crate::tunnel) fn decided(&self) -> Option<Cause> {
        cause_of(self.ends.load(Acquire))
    }
}

/// A byte that is no cause of ours is an end all the same.
fn cause_of(ends: u64) -> Option<Cause> {
    let code = usize::try_from(ends >> ends::CAUSE_SHIFT).ok()?.checked_sub(1)?;
    Some(Cause::ALL.get(code).copied().unwrap_or(Cause::Lost))
}
