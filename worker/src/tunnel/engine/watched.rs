//! A thread's tunnels, found by key, and by what poll reports.
//!
//! A key is this thread's, and handed on when its tunnel has left; what poll reports names a tunnel's record, and may
//! come for one that this thread does not have, or has no more.

use slab::Slab;

use crate::tunnel::relay::Tunnel;
use crate::tunnel::watch::Mark;

#[derive(Default)]
pub(super) struct Watched {
    tunnels: Slab<Tunnel>,
    /// Key + 1 of the tunnel of a record, by the record's index; 0: none of ours.
    keys: Vec<u32>,
}

impl Watched {
    pub(super) fn insert(&mut self, tunnel: Tunnel) -> usize {
        let place = place_of(&tunnel);
        let key = self.tunnels.insert(tunnel);
        if self.keys.len() <= place {
            self.keys.resize(place + 1, 0);
        }
        if let (Some(slot), Ok(key)) = (self.keys.get_mut(place), u32::try_from(key + 1)) {
            *slot = key;
        }
        key
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<Tunnel> {
        let tunnel = self.tunnels.try_remove(key)?;
        if let Some(slot) = self.keys.get_mut(place_of(&tunnel)) {
            *slot = 0;
        }
        Some(tunnel)
    }

    pub(super) fn get(&self, key: usize) -> Option<&Tunnel> {
        self.tunnels.get(key)
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Tunnel> {
        self.tunnels.get_mut(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Tunnel)> {
        self.tunnels.iter()
    }

    /// The tunnel that is meant and its key, if it is ours.
    pub(super) fn find(&mut self, mark: Mark) -> Option<(usize, &mut Tunnel)> {
        let key = self.keys.get(usize::try_from(mark.index).ok()?)?.checked_sub(1)?;
        let key = usize::try_from(key).ok()?;
        let tunnel = self.tunnels.get_mut(key)?;
        mark.is_of(tunnel.record.id).then_some((key, tunnel))
    }
}

fn place_of(tunnel: &Tunnel) -> usize {
    usize::try_from(tunnel.record.slot.index()).unwrap_or(usize::MAX)
}
