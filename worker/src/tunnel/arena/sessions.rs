//! The part of the arena for tunnels with TLS legs, byte by byte: what their sessions are, and how far each direction
//! has come in records.
//!
//! What a direction does is a row of *steps*, each a function of bytes that come in and of what stands here. A step is
//! written down whole before its first byte goes out, into the entry that is not in force, and comes into force by
//! one store. Secrets stand here and nowhere else outside the process; a record's are overwritten when it is freed.
//! ```text
//! session cell                            entry
//!   0  direction to the backend             0  u64  in_pos    first byte of the source that it takes
//! 192  direction to the client              8  u64  out_pos   first byte of the target that it gives
//! 384  8 secrets of 48 bytes:              16  u32  in_len    24  u32  in_records
//!      client rx, rx, tx, tx,              20  u32  out_len   28  u32  out_records
//!      backend rx, rx, tx, tx              32  u64  rx_seq    40  u64  tx_seq
//! 768  zero                                48  u32  rx_generation   52  u32  tx_generation
//!                                          56  u32  kind            60  u32  skip
//!                                          64  u32  asked           68  u32  answered
//!                                          72  u64  moved     peers' bytes before it
//!                                          80  u32  moves     84  u32  answers
//!
//! direction: u64 which entry is in force (0, 1), 2 entries of 88 bytes, u64 where the carry slot begins
//! ```
//! Positions count from the tunnel's opening: of a source its prelude first, then what comes from the socket; of a
//! target every byte that is given to its socket. A generation's secret stands in slot `generation % 2`.

use std::fmt;
use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use zeroize::Zeroize as _;

use super::Towards;
use crate::tls::keys::{Protocol, Secret};
use crate::tunnel::leg::Side;

/// What the sessions of one tunnel are.
#[repr(C)]
#[derive(Debug)]
pub(in crate::tunnel) struct SessionCell {
    directions: [DirectionCell; 2],
    secrets: [[[SecretCell; 2]; 2]; 2],
    zeroes: [AtomicU64; 32],
}

#[repr(C)]
#[derive(Debug)]
pub(in crate::tunnel) struct DirectionCell {
    in_force: AtomicU64,
    entries: [EntryCell; 2],
    carry_pos: AtomicU64,
}

#[repr(C)]
#[derive(Debug)]
struct EntryCell {
    in_pos: AtomicU64,
    out_pos: AtomicU64,
    in_len: AtomicU32,
    out_len: AtomicU32,
    in_records: AtomicU32,
    out_records: AtomicU32,
    rx_seq: AtomicU64,
    tx_seq: AtomicU64,
    rx_generation: AtomicU32,
    tx_generation: AtomicU32,
    kind: AtomicU32,
    skip: AtomicU32,
    asked: AtomicU32,
    answered: AtomicU32,
    moved: AtomicU64,
    moves: AtomicU32,
    answers: AtomicU32,
}

#[repr(C)]
struct SecretCell([AtomicU8; Secret::LONGEST]);

/// One half of a session: what we receive on a leg, or send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Half {
    Rx,
    Tx,
}

/// Where a direction stands: what has come in, what has gone out, and under which numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::tunnel) struct Position {
    /// Bytes of the source that are done with.
    pub(in crate::tunnel) in_pos: u64,
    /// Bytes that the target was given.
    pub(in crate::tunnel) out_pos: u64,
    /// Number of the next record from the source.
    pub(in crate::tunnel) rx_seq: u64,
    /// Number of the next record to the target.
    pub(in crate::tunnel) tx_seq: u64,
    /// Key updates of the source's peer.
    pub(in crate::tunnel) rx_generation: u32,
    /// Our key updates towards the target.
    pub(in crate::tunnel) tx_generation: u32,
    /// Bytes to be skipped of a message that began in an earlier record.
    pub(in crate::tunnel) skip: u32,
    /// How often the source's peer has asked for a key update of ours.
    pub(in crate::tunnel) asked: u32,
    /// How many such wishes of the target's peer are met.
    pub(in crate::tunnel) answered: u32,
    /// Peers' bytes that have gone this way.
    pub(in crate::tunnel) moved: u64,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::tunnel) enum Kind {
    /// Passes bytes on.
    #[default]
    Data,
    /// Takes a record that is no data and says nothing: a ticket, a warning.
    Skip,
    /// Takes the peer's key update.
    Updated {
        /// It asks for ours.
        asks: bool,
    },
    /// Sends our key update, and with it answers the wishes so far.
    Update {
        /// [`Position::answered`] after it.
        answered: u32,
    },
    /// Says that no more comes.
    Close,
}

/// A step: where it begins and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::tunnel) struct Step {
    pub(in crate::tunnel) from: Position,
    pub(in crate::tunnel) kind: Kind,
    /// Bytes of the source that it takes.
    pub(in crate::tunnel) in_len: u32,
    /// Bytes that the target is given.
    pub(in crate::tunnel) out_len: u32,
    /// Records that it opens.
    pub(in crate::tunnel) in_records: u32,
    /// Records that it seals.
    pub(in crate::tunnel) out_records: u32,
    /// [`Position::skip`] after it.
    pub(in crate::tunnel) skip: u32,
    /// Peers' bytes that it passes on.
    pub(in crate::tunnel) moves: u32,
}

// === impl Step ===

impl Step {
    /// Where its direction stands when it is done.
    pub(in crate::tunnel) fn end(&self) -> Position {
        let from = self.from;
        let mut to = Position {
            in_pos: from.in_pos.saturating_add(self.in_len.into()),
            out_pos: from.out_pos.saturating_add(self.out_len.into()),
            rx_seq: from.rx_seq.saturating_add(self.in_records.into()),
            tx_seq: from.tx_seq.saturating_add(self.out_records.into()),
            skip: self.skip,
            moved: from.moved.saturating_add(self.moves.into()),
            ..from
        };
        match self.kind {
            Kind::Data | Kind::Skip | Kind::Close => {}
            Kind::Updated { asks } => {
                to.rx_seq = 0;
                to.rx_generation = from.rx_generation.wrapping_add(1);
                to.asked = from.asked.wrapping_add(asks.into());
            }
            Kind::Update { answered } => {
                to.tx_seq = 0;
                to.tx_generation = from.tx_generation.wrapping_add(1);
                to.answered = answered;
            }
        }
        to
    }

    /// A step that does nothing, and is done.
    pub(in crate::tunnel) fn rest(at: Position) -> Self {
        Self { from: at, skip: at.skip, ..Self::default() }
    }
}

// === impl Kind ===

impl Kind {
    const fn code(self) -> (u32, u32) {
        match self {
            Self::Data => (0, 0),
            Self::Skip => (1, 0),
            Self::Updated { asks: false } => (2, 0),
            Self::Updated { asks: true } => (3, 0),
            Self::Update { answered } => (4, answered),
            Self::Close => (5, 0),
        }
    }

    const fn from_code(code: u32, answers: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Data,
            1 => Self::Skip,
            2 => Self::Updated { asks: false },
            3 => Self::Updated { asks: true },
            4 => Self::Update { answered: answers },
            5 => Self::Close,
            _ => return None,
        })
    }
}

// === impl SessionCell ===

impl SessionCell {
    pub(in crate::tunnel) fn direction(&self, towards: Towards) -> &DirectionCell {
        let [to_backend, to_client] = &self.directions;
        match towards {
            Towards::Backend => to_backend,
            Towards::Client => to_client,
        }
    }

    fn secret_cell(&self, side: Side, half: Half, generation: u32) -> &SecretCell {
        let [[client_rx, client_tx], [backend_rx, backend_tx]] = &self.secrets;
        let [even, odd] = match (side, half) {
            (Side::Client, Half::Rx) => client_rx,
            (Side::Client, Half::Tx) => client_tx,
            (Side::Backend, Half::Rx) => backend_rx,
            (Side::Backend, Half::Tx) => backend_tx,
        };
        if generation.is_multiple_of(2) { even } else { odd }
    }

    /// Writes the secret of a generation over that of the one before the last.
    pub(in crate::tunnel) fn set_secret(
        &self,
        (side, half): (Side, Half),
        generation: u32,
        secret: &Secret,
    ) {
        let cell = self.secret_cell(side, half, generation);
        for (to, from) in cell.0.iter().zip(secret.bytes()) {
            to.store(*from, Relaxed);
        }
    }

    /// The secret of a generation, the last or the one before it.
    pub(in crate::tunnel) fn secret(
        &self,
        (side, half): (Side, Half),
        generation: u32,
        protocol: Protocol,
    ) -> Option<Secret> {
        let cell = self.secret_cell(side, half, generation);
        let mut bytes = cell.0.each_ref().map(|byte| byte.load(Relaxed));
        let secret = bytes.get(..protocol.secret_len()).and_then(Secret::new);
        bytes.zeroize();
        secret
    }

    /// Overwrites everything, secrets first.
    pub(super) fn wipe(&self) {
        let Self { directions, secrets, zeroes: _ } = self;
        for secret in secrets.as_flattened().as_flattened() {
            secret.0.iter().for_each(|byte| byte.store(0, Relaxed));
        }
        directions.iter().for_each(DirectionCell::wipe);
    }
}

// === impl DirectionCell ===

impl DirectionCell {
    /// The step in force. None: nothing that we know.
    pub(in crate::tunnel) fn step(&self) -> Option<Step> {
        let [first, second] = &self.entries;
        let entry = match self.in_force.load(Acquire) {
            0 => first,
            1 => second,
            _ => return None,
        };
        let (in_len, skip) = (entry.in_len.load(Relaxed), entry.skip.load(Relaxed));
        Some(Step {
            from: Position {
                in_pos: entry.in_pos.load(Relaxed),
                out_pos: entry.out_pos.load(Relaxed),
                rx_seq: entry.rx_seq.load(Relaxed),
                tx_seq: entry.tx_seq.load(Relaxed),
                rx_generation: entry.rx_generation.load(Relaxed),
                tx_generation: entry.tx_generation.load(Relaxed),
                // One that takes something is made again only where there is nothing to skip.
                skip: if in_len == 0 { skip } else { 0 },
                asked: entry.asked.load(Relaxed),
                answered: entry.answered.load(Relaxed),
                moved: entry.moved.load(Relaxed),
            },
            kind: Kind::from_code(entry.kind.load(Relaxed), entry.answers.load(Relaxed))?,
            in_len,
            out_len: entry.out_len.load(Relaxed),
            in_records: entry.in_records.load(Relaxed),
            out_records: entry.out_records.load(Relaxed),
            skip,
            moves: entry.moves.load(Relaxed),
        })
    }

    /// Puts a step into force: whoever dies before the last store leaves the one before it.
    pub(in crate::tunnel) fn begin(&self, step: &Step) {
        let [first, second] = &self.entries;
        let (entry, next) = if self.in_force.load(Relaxed) == 0 { (second, 1) } else { (first, 0) };
        let (kind, answers) = step.kind.code();
        entry.in_pos.store(step.from.in_pos, Relaxed);
        entry.out_pos.store(step.from.out_pos, Relaxed);
        entry.in_len.store(step.in_len, Relaxed);
        entry.out_len.store(step.out_len, Relaxed);
        entry.in_records.store(step.in_records, Relaxed);
        entry.out_records.store(step.out_records, Relaxed);
        entry.rx_seq.store(step.from.rx_seq, Relaxed);
        entry.tx_seq.store(step.from.tx_seq, Relaxed);
        entry.rx_generation.store(step.from.rx_generation, Relaxed);
        entry.tx_generation.store(step.from.tx_generation, Relaxed);
        entry.kind.store(kind, Relaxed);
        entry.skip.store(step.skip, Relaxed);
        entry.asked.store(step.from.asked, Relaxed);
        entry.answered.store(step.from.answered, Relaxed);
        entry.moved.store(step.from.moved, Relaxed);
        entry.moves.store(step.moves, Relaxed);
        entry.answers.store(answers, Relaxed);
        self.in_force.store(next, Release);
    }

    /// Where the bytes in the carry slot begin, as a position of the source.
    pub(in crate::tunnel) fn carry_pos(&self) -> u64 {
        self.carry_pos.load(Relaxed)
    }

    pub(in crate::tunnel) fn set_carry_pos(&self, pos: u64) {
        self.carry_pos.store(pos, Relaxed);
    }

    fn wipe(&self) {
        self.begin(&Step::default());
        self.begin(&Step::default());
        self.in_force.store(0, Relaxed);
        self.carry_pos.store(0, Relaxed);
    }
}

impl fmt::Debug for SecretCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretCell(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::mem::offset_of;

    use super::*;
    use crate::tls::keys::{Suite, Version};
    use crate::tunnel::arena::Arena;

    #[test]
    fn the_layout_is_as_documented() {
        assert_eq!(size_of::<SessionCell>(), 1024);
        assert_eq!((size_of::<EntryCell>(), size_of::<DirectionCell>()), (88, 192));
        assert_eq!(
            [
                offset_of!(SessionCell, directions),
                offset_of!(SessionCell, secrets),
                offset_of!(SessionCell, zeroes)
            ],
            [0, 384, 768]
        );
        assert_eq!(
            [
                offset_of!(EntryCell, in_len),
                offset_of!(EntryCell, in_records),
                offset_of!(EntryCell, rx_seq),
                offset_of!(EntryCell, rx_generation),
                offset_of!(EntryCell, kind),
                offset_of!(EntryCell, asked),
                offset_of!(EntryCell, moved),
                offset_of!(EntryCell, answers)
            ],
            [16, 24, 32, 48, 56, 64, 72, 84]
        );
    }

    #[test]
    fn what_was_begun_is_in_force_and_its_end_is_where_the_next_begins() {
        let arena = Arena::create().unwrap();
        let cell = arena.sessions(5).unwrap().direction(Towards::Client);
        assert_eq!(cell.step(), Some(Step::default()));
        let mut at = Position { skip: 0, ..Position::default() };
        let steps = [
            (Kind::Data, 40, 60, 2, 3),
            (Kind::Updated { asks: true }, 27, 0, 1, 0),
            (Kind::Update { answered: 1 }, 0, 27, 0, 1),
            (Kind::Skip, 99, 0, 1, 0),
            (Kind::Close, 0, 24, 0, 1),
        ];
        for (kind, in_len, out_len, in_records, out_records) in steps {
            let moves = if kind == Kind::Data { 17 } else { 0 };
            let step =
                Step { from: at, kind, in_len, out_len, in_records, out_records, skip: 0, moves };
            cell.begin(&step);
            assert_eq!(cell.step(), Some(step));
            at = step.end();
        }
        let end = Position {
            in_pos: 166,
            out_pos: 111,
            rx_seq: 1,
            tx_seq: 1,
            rx_generation: 1,
            tx_generation: 1,
            skip: 0,
            asked: 1,
            answered: 1,
            moved: 17,
        };
        assert_eq!(at, end);
        cell.begin(&Step::rest(at));
        assert_eq!(cell.step().unwrap().end(), end);
    }

    #[test]
    fn secrets_go_with_the_record() {
        let arena = Arena::create().unwrap();
        let index = arena.claim(1).unwrap();
        let cell = arena.sessions(index).unwrap();
        let protocol = Protocol { version: Version::Tls13, suite: Suite::Aes256Gcm };
        arena.cell(index).unwrap().set_protocols([None, Some(protocol)]);
        assert_eq!(arena.cell(index).unwrap().protocols(), [None, Some(protocol)]);
        let secrets = [1, 2].map(|byte| Secret::new(&[byte; 48]).unwrap());
        for side in Side::BOTH {
            for half in [Half::Rx, Half::Tx] {
                cell.set_secret((side, half), 6, &secrets[0]);
                cell.set_secret((side, half), 7, &secrets[1]);
                for (generation, secret) in [(6, &secrets[0]), (7, &secrets[1])] {
                    let found = cell.secret((side, half), generation, protocol);
                    assert_eq!(found.as_ref(), Some(secret));
                }
            }
        }
        cell.direction(Towards::Backend).set_carry_pos(3);
        assert!(arena.free(index));
        let mut bytes = [1; 1024];
        let at = std::mem::offset_of!(super::super::Layout, sessions) as u64;
        crate::tunnel::memfd::read_at(arena.fd(), &mut bytes, at + u64::from(index) * 1024)
            .unwrap();
        assert_eq!(bytes, [0; 1024]);
    }
}
