//! What a worker says, and what it changes in the books.

use std::collections::btree_map::Entry as MapEntry;

use holdfast_proto::control::Held;
use holdfast_proto::control::vault_request::{self, Kind as Request};

use super::outbox::Answer;
use super::{Attached, Books, Descriptor, Fault, Name, Party, Place, Tunnel};

impl<D: Descriptor> Books<D> {
    /// Takes in what a worker says.
    pub(in crate::vault) fn hear(
        &mut self,
        party: Party,
        said: Request,
        fds: Vec<D>,
    ) -> Result<(), Fault> {
        let attached = self.parties.get_mut(&party).ok_or(Fault::Gone)?;
        let announced = match &said {
            Request::Deposit(deposit) => 2 * deposit.tunnels.len(),
            Request::Keep(keep) => usize::from(keep.arena) + usize::from(keep.tally),
            Request::KeepPolls(polls) => polls.ids.len(),
            _ => 0,
        };
        let unfit = fds.is_empty() && matches!(said, Request::Deposit(_) | Request::KeepPolls(_));
        if announced != fds.len() && !unfit {
            return Err(Fault::Manifest { announced, came: fds.len() });
        }
        let (name, place) = (attached.name, attached.place);
        match said {
            Request::Keep(keep) if place.version > 0 || !keep.arena => {
                self.keep(party, keep, fds);
            }
            Request::Attach(_) | Request::Keep(_) => return Err(Fault::Phase),
            _ if place.version == 0 => return Err(Fault::Phase),
            Request::Deposit(deposit) if unfit => {
                // They came, and this process could not take them.
                let refused: Vec<u64> = deposit.tunnels.iter().map(|tunnel| tunnel.id).collect();
                attached.outbox.store(&[], &refused, "the supervisor may have no more descriptors");
                self.rung.push(party);
            }
            // Where they came, and this process could not take them, none are kept.
            Request::KeepPolls(polls) => self.keep_polls(party, polls.ids, fds),
            Request::Deposit(deposit) => self.deposit(party, deposit.tunnels, fds),
            // It talks of another arena's tunnels, and nobody here knows them.
            Request::Release(_) | Request::Frozen(_) | Request::Adopted(_)
                if attached.estranged => {}
            Request::Release(release) => self.release(party, place, release.ids),
            Request::Window(window) => {
                attached.outbox.widen(window.tunnels);
                self.rung.push(party);
            }
            Request::Frozen(frozen) => self.freeze(name, place, frozen.ids),
            Request::Adopted(adopted) => self.adopt(name, place, adopted),
        }
        self.prune();
        Ok(())
    }

    fn keep(&mut self, party: Party, keep: vault_request::Keep, fds: Vec<D>) {
        let Some(Attached { name, place, .. }) = self.parties.get(&party) else { return };
        let (name, place) = (*name, *place);
        let mut fds = fds.into_iter();
        if keep.arena {
            self.keep_arena(place, fds.next());
        }
        if keep.tally {
            self.keep_tally(name.listener, fds.next());
        }
        if let Some(attached) = self.parties.get_mut(&party) {
            attached.outbox.answer(Answer::Kept { arena: keep.arena, tally: keep.tally });
            self.rung.push(party);
        }
    }

    fn deposit(&mut self, party: Party, tunnels: Vec<Held>, fds: Vec<D>) {
        let mut left = self.budget.saturating_sub(self.descriptors()) / 2;
        let Some(depositor) = self.parties.get(&party) else { return };
        let Attached { name, place, estranged, .. } = *depositor;
        let shelf = self.shelves.entry(place).or_default();
        let (mut stored, mut refused, mut reason) = (Vec::new(), Vec::new(), "");
        let mut fresh = Vec::new();
        let mut fds = fds.into_iter();
        for tunnel in tunnels {
            let (Some(client), Some(backend)) = (fds.next(), fds.next()) else { break };
            let entry = shelf.tunnels.entry(tunnel.id);
            let why_not = match &entry {
                _ if estranged || shelf.arena.is_none() => Some("its arena is not in force"),
                MapEntry::Occupied(held) if held.get().index == tunnel.index => None,
                MapEntry::Occupied(_) => Some("another record of that id is held"),
                MapEntry::Vacant(_) if left == 0 => Some("no descriptors left for more tunnels"),
                MapEntry::Vacant(_) => None,
            };
            if let Some(why) = why_not {
                reason = why;
                refused.push(tunnel.id);
                self.bin.extend([client, backend]);
                continue;
            }
            stored.push(tunnel.id);
            match entry {
                MapEntry::Occupied(held) => {
                    held.into_mut().note_holder(name.generation);
                    self.bin.extend([client, backend]);
                }
                MapEntry::Vacant(vacant) => {
                    let index = tunnel.index;
                    vacant.insert(Tunnel::deposited(index, [client, backend], name.generation));
                    self.held += 1;
                    left -= 1;
                    fresh.push(tunnel.id);
                }
            }
        }
        for (number, it) in self.parties.iter_mut().filter(|(_, it)| it.place == place) {
            if *number == party {
                it.outbox.store(&stored, &refused, reason);
                self.rung.push(party);
            } else if it.is_heir && !fresh.is_empty() {
                it.outbox.hand(&fresh);
                self.rung.push(*number);
            }
        }
    }

    fn release(&mut self, by: Party, place: Place, ids: Vec<u64>) {
        let Some(shelf) = self.shelves.get_mut(&place) else { return };
        for id in ids {
            let Some(tunnel) = shelf.tunnels.remove(&id) else { continue };
            self.held -= 1;
            let others = self.parties.iter_mut().filter(|(number, _)| **number != by);
            for (number, other) in others.filter(|(_, it)| it.place == place) {
                if tunnel.knows(other.name.generation) {
                    other.outbox.release(id);
                    self.rung.push(*number);
                }
            }
            self.bin.extend(tunnel.legs);
        }
    }

    fn freeze(&mut self, by: Name, place: Place, ids: Vec<u64>) {
        let Some(shelf) = self.shelves.get(&place) else { return };
        let mut parties = self.parties.iter_mut().filter(|(_, it)| it.place == place);
        let heir = parties.find(|(_, it)| it.is_heir && it.name.generation > by.generation);
        let Some((number, heir)) = heir else { return };
        for id in ids.into_iter().filter(|id| shelf.tunnels.contains_key(id)) {
            heir.outbox.freeze(by.generation, id);
        }
        self.rung.push(*number);
    }

    fn adopt(&mut self, by: Name, place: Place, adopted: vault_request::Adopted) {
        let from = adopted.from_generation;
        if from == by.generation {
            return;
        }
        if let Some(shelf) = self.shelves.get_mut(&place) {
            for id in &adopted.ids {
                if let Some(tunnel) = shelf.tunnels.get_mut(id) {
                    tunnel.forget(from);
                    tunnel.note_holder(by.generation);
                }
            }
        }
        let mut parties = self.parties.iter_mut();
        let left = parties.find(|(_, it)| it.place == place && it.name.generation == from);
        if let Some((number, left)) = left {
            if left.is_heir {
                // Taken back from it. It is the next to need them all the same.
                left.outbox.hand(&adopted.ids);
            }
            left.outbox.adopt(adopted.ids);
            self.rung.push(*number);
        }
    }
}
