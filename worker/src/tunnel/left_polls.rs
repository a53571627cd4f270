//! Epoll instances that dead processes have left in the vault: which of them this process's threads go on with.
//!
//! Two processes on one instance would take one another's news away. So one is only taken if everybody who may wait on it is
//! known to be gone; whoever is not in the arena's table may live.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use holdfast_proto::process;

use super::arena::Arena;
use super::watch::PollId;

/// An epoll instance from the vault.
#[derive(Debug)]
pub struct LeftPoll {
    id: PollId,
    /// The generations that may wait on it.
    holders: Vec<u64>,
    epoll: OwnedFd,
}

impl LeftPoll {
    /// An epoll instance as the vault has handed it in.
    pub fn new(id: u64, holders: Vec<u64>, epoll: OwnedFd) -> Self {
        Self { id: id.into(), holders, epoll }
    }
}

/// Those that the most tunnels are watched by, one for each of so many threads at most. Others are closed.
pub(super) fn pick(
    mut left: Vec<LeftPoll>,
    arena: &Arena,
    threads: usize,
) -> Vec<(PollId, OwnedFd)> {
    if left.is_empty() {
        return Vec::new();
    }
    let gone: HashSet<u64> = arena
        .processes()
        .filter(|(_, process)| process.is_some_and(|process| !process::runs(process)))
        .map(|(generation, _)| generation)
        .collect();
    let mut tunnels: HashMap<PollId, usize> = HashMap::new();
    let mut in_use = HashSet::new();
    for cell in arena.occupied().map(|(_, cell)| cell) {
        let Some(poll) = cell.watched_by() else { continue };
        *tunnels.entry(poll).or_default() += 1;
        if cell.owner().is_some_and(|owner| !gone.contains(&owner.generation)) {
            // Whatever the vault believes.
            in_use.insert(poll);
        }
    }
    left.retain(|it| {
        it.holders.iter().all(|holder| gone.contains(holder))
            && tunnels.contains_key(&it.id)
            && !in_use.contains(&it.id)
    });
    left.sort_unstable_by_key(|it| (std::cmp::Reverse(tunnels.get(&it.id).copied()), it.id));
    left.truncate(threads);
    left.into_iter().map(|it| (it.id, it.epoll)).collect()
}
