//! Epoll instances that dead processes have left in the vault: which of them this process's threads go on with.
//!
//! Two processes on one instance would take one another's news away. So one is only taken of a process that is known to be
//! gone; whoever is not in the arena's table may live.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use holdfast_proto::process;

use super::arena::Arena;
use super::watch::PollId;

/// An epoll instance from the vault.
#[derive(Debug)]
pub struct LeftPoll {
    id: PollId,
    /// The generation that had it last.
    holder: u64,
    epoll: OwnedFd,
}

impl LeftPoll {
    /// An epoll instance as the vault has handed it in.
    pub fn new(id: u64, holder: u64, epoll: OwnedFd) -> Self {
        Self { id: id.into(), holder, epoll }
    }
}

/// Those that the most tunnels are watched by, one for each of so many threads at most. Others are closed.
pub(super) fn pick(
    mut left: Vec<LeftPoll>,
    arena: &Arena,
    threads: usize,
) -> Vec<(PollId, OwnedFd)> {
    let gone = |it: &LeftPoll| arena.process_of(it.holder).is_some_and(|it| !process::runs(it));
    left.retain(gone);
    if left.is_empty() {
        return Vec::new();
    }
    let mut tunnels: HashMap<PollId, usize> = HashMap::new();
    for poll in arena.occupied().filter_map(|(_, cell)| cell.watched_by()) {
        *tunnels.entry(poll).or_default() += 1;
    }
    left.retain(|it| tunnels.contains_key(&it.id));
    left.sort_unstable_by_key(|it| (std::cmp::Reverse(tunnels.get(&it.id).copied()), it.id));
    left.dedup_by_key(|it| it.id);
    left.truncate(threads);
    left.into_iter().map(|it| (it.id, it.epoll)).collect()
}
