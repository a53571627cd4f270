//! What a turn does for one direction, in the words that the relay and those who work for it share.

use super::leg::Broken;

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
