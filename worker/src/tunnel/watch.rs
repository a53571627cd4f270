//! Where a tunnel's legs are watched, and how what poll reports finds its tunnel: both mean the same to every process.
//!
//! An epoll instance outlives its process in the vault, with all that is registered there. So its name is unique for ever,
//! and the token that a leg is registered with names the tunnel's record. The kernel knows a registration by open file
//! *and* number: a successor, whose numbers are others, can neither change nor remove it, and it goes with the last
//! duplicate of the socket. Until then it may report on a tunnel that is another process's, or over: such tokens find nothing.

use std::sync::atomic::Ordering::Relaxed;

use super::TunnelId;
use super::arena::Cell;
use super::leg::Side;

/// Names an epoll instance, of whichever process of a listener: `generation << 8 | thread + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PollId(u64);

/// What a leg is registered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u64);

/// Where a token leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The tunnel's record.
    pub(super) index: u32,
    pub(super) side: Side,
    /// Of the tunnel's id: a record has many tunnels in its life.
    tag: u32,
}

/// Bits of a thread's number in a [`PollId`].
const THREAD_BITS: u32 = 8;
/// Bits of a record's [`Cell::watched`] that say which legs are watched for room.
const ROOM_BITS: u32 = 2;

// === impl PollId ===

impl PollId {
    /// That of a thread's own instance. None: there are more threads than names.
    pub(super) fn of(generation: u64, thread: usize) -> Option<Self> {
        let thread = u64::try_from(thread + 1).ok().filter(|it| *it < 1 << THREAD_BITS)?;
        Some(Self(generation << THREAD_BITS | thread))
    }

    /// Whether a thread of that generation has made it; another one's has registered what we cannot take out.
    pub(super) fn is_of(self, generation: u64) -> bool {
        self.0 >> THREAD_BITS == generation
    }

    /// As the vault is told it.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}

impl From<u64> for PollId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

// === impl Token ===

impl Token {
    pub(super) fn new(tunnel: TunnelId, index: u32, side: Side) -> Self {
        let mark = u64::from(index) << 1 | u64::from(side == Side::Backend);
        Self(u64::from(tag(tunnel)) << 32 | mark)
    }

    pub(super) fn number(self) -> u64 {
        self.0
    }
}

impl From<u64> for Token {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

// === impl Mark ===

impl Mark {
    pub(super) fn of(Token(number): Token) -> Self {
        let [tag, mark] = [number >> 32, number & u64::from(u32::MAX)]
            .map(|half| u32::try_from(half).unwrap_or_default());
        let side = if mark & 1 == 0 { Side::Client } else { Side::Backend };
        Self { index: mark >> 1, side, tag }
    }

    /// Whether it is that tunnel that is meant.
    pub(super) fn is_of(self, tunnel: TunnelId) -> bool {
        self.tag == tag(tunnel)
    }
}

/// Two tunnels of a record differ in their counters, or in their generations.
fn tag(tunnel: TunnelId) -> u32 {
    let [high, low] = [tunnel >> 32, tunnel & u64::from(u32::MAX)]
        .map(|half| u32::try_from(half).unwrap_or_default());
    low ^ high.wrapping_mul(0x9e37_79b1)
}

// === impl Cell ===

impl Cell {
    /// Notes that both legs are watched there: only once they are.
    pub(super) fn set_watched(&self, poll: PollId, room: [bool; 2]) {
        let [client, backend] = room.map(u64::from);
        self.watched.store(poll.0 << ROOM_BITS | backend << 1 | client, Relaxed);
    }

    /// Notes that they are watched nowhere: before they are not.
    pub(super) fn set_unwatched(&self) {
        self.watched.store(0, Relaxed);
    }

    /// Where both legs are watched.
    pub(super) fn watched_by(&self) -> Option<PollId> {
        let number = self.watched.load(Relaxed) >> ROOM_BITS;
        (number != 0).then_some(PollId(number))
    }

    /// Which legs, the client's first, are watched for room to write, too.
    pub(super) fn watched_for_room(&self) -> [bool; 2] {
        let word = self.watched.load(Relaxed);
        [word & 1 != 0, word & 2 != 0]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_token_leads_to_its_record_and_side_and_to_no_other_tunnel_of_it() {
        let tunnel = 7 << 40 | 0xc;
        for (index, side) in [(0, Side::Client), (131_071, Side::Backend)] {
            let mark = Mark::of(Token::from(Token::new(tunnel, index, side).number()));
            assert_eq!((mark.index, mark.side), (index, side));
            assert!(mark.is_of(tunnel));
            for other in [7 << 40 | 0xd, 8 << 40 | 0xc, 8 << 40 | 0xd, 0xc] {
                assert!(!mark.is_of(other), "{other:x}");
            }
        }
    }

    #[test]
    fn polls_of_different_threads_and_generations_have_different_names() {
        let names: std::collections::BTreeSet<_> =
            [(1, 0), (1, 1), (2, 0), (1, 254)].map(|(of, at)| PollId::of(of, at).unwrap()).into();
        assert_eq!(names.len(), 4);
        let last = PollId::of(1, 254).unwrap();
        assert!(last.is_of(1) && !last.is_of(2) && !last.is_of(0));
        assert!(PollId::of(1, 255).is_none() && PollId::of(0, 0).unwrap().number() > 0);
    }
}
