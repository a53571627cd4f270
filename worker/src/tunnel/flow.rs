//! What a turn does for one direction, in the words that the relay and those who work for it share.

use super::arena::ends;
use super::leg::{Broken, Side};

/// What one direction may move before the other tunnels of the thread get their turn.
pub(super) const TURN: u64 = 256 * 1024;

/// The source says that no more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) truncated: bool,
}

/// What a turn has done for one direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Peers' bytes.
    pub(super) moved: u64,
    /// What it has cost, in bytes; where that is not the same.
    pub(super) spent: u64,
    /// The turn's bound came first.
    pub(super) more: bool,
    /// What went wrong, and on which leg.
    pub(super) broken: Option<(Part, Broken)>,
}

/// Which of a direction's legs.
#[derive(Debug)]
pub(super) enum Part {
    Source,
    Target,
}

/// Says that a leg is sent its FIN.
pub(super) const fn fin_mark(towards: Side) -> u64 {
    match towards {
        Side::Client => ends::CLIENT_FIN_SENT,
        Side::Backend => ends::BACKEND_FIN_SENT,
    }
}

/// Says that a leg has got its whole prelude.
pub(super) const fn prelude_mark(towards: Side) -> u64 {
    match towards {
        Side::Client => ends::TO_CLIENT_PRELUDE_DONE,
        Side::Backend => ends::TO_BACKEND_PRELUDE_DONE,
    }
}
