//! What is held, for whoever keeps copies of it beyond this process's life, and how it comes back.
//!
//! What came back is known to no worker: the heir is handed it, and says which of it are tunnels still. A living worker's
//! arena is believed rather than one that came back.

use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use super::{Books, Descriptor, Place, Tunnel};
use crate::vault::copies::{Kept, KeptTunnel, Key};

impl Key {
    fn of(place: &Place, id: u64) -> Self {
        Self { listener: place.listener, version: place.version, id }
    }
}

impl<D> Books<D> {
    /// Every tunnel that is held.
    pub(in crate::vault) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let of_shelf = |(place, shelf): (&Place, &super::Shelf<D>)| -> Vec<Key> {
            shelf.tunnels.keys().map(|id| Key::of(place, *id)).collect()
        };
        self.shelves.iter().flat_map(of_shelf)
    }

    /// Every arena.
    pub(in crate::vault) fn arenas(&self) -> impl Iterator<Item = (SocketAddr, u32, &D)> {
        self.shelves.iter().filter_map(|(place, shelf)| {
            Some((place.listener, place.version, shelf.arena.as_ref()?))
        })
    }

    /// Every tally.
    pub(in crate::vault) fn tallies(&self) -> impl Iterator<Item = (SocketAddr, &D)> {
        self.tallies.iter().map(|(listener, tally)| (*listener, tally))
    }

    /// A held tunnel: its record, who had it last, its legs.
    pub(in crate::vault) fn tunnel(&self, key: &Key) -> Option<(u32, u64, &[D; 2])> {
        let Key { listener, version, id } = *key;
        let tunnel = self.shelves.get(&Place { listener, version })?.tunnels.get(&id)?;
        Some((tunnel.index, tunnel.lent_to, &tunnel.legs))
    }

    /// Listeners that have something here.
    pub(in crate::vault) fn listeners(&self) -> Vec<SocketAddr> {
        let places = self.shelves.keys().map(|place| place.listener);
        let mut listeners: Vec<_> = places.chain(self.tallies.keys().copied()).collect();
        listeners.sort_unstable();
        listeners.dedup();
        listeners
    }

    /// Takes in what was kept; before any worker comes.
    pub(in crate::vault) fn restore(&mut self, kept: Kept<D>) {
        for (listener, version, arena) in kept.arenas {
            let shelf = self.shelves.entry(Place { listener, version }).or_default();
            shelf.restored = true;
            // It may have been kept twice.
            let double =
                if shelf.arena.is_none() { shelf.arena.replace(arena) } else { Some(arena) };
            self.bin.extend(double);
        }
        for (listener, tally) in kept.tallies {
            match self.tallies.entry(listener) {
                Entry::Vacant(vacant) => {
                    vacant.insert(tally);
                }
                Entry::Occupied(_) => self.bin.push(tally),
            }
        }
        for KeptTunnel { key, index, generation, legs } in kept.tunnels {
            let Key { listener, version, id } = key;
            let left = self.budget.saturating_sub(self.descriptors());
            let shelf = self.shelves.get_mut(&Place { listener, version });
            // Without its arena nobody can go on with it.
            let shelf = shelf.filter(|shelf| shelf.arena.is_some() && left >= legs.len());
            match shelf.map(|shelf| shelf.tunnels.entry(id)) {
                Some(Entry::Vacant(vacant)) => {
                    let (by, handed) = (Vec::new(), Vec::new());
                    vacant.insert(Tunnel { index, legs, by, handed, lent_to: generation });
                    self.held += 1;
                }
                Some(Entry::Occupied(_)) | None => self.bin.extend(legs),
            }
        }
    }
}

impl<D: Descriptor> Books<D> {
    /// A worker comes to a place, with its own arena or none. Where that is another one than what came back, what came back
    /// is out of date.
    pub(super) fn believe(&mut self, place: Place, brought: Option<&D>) {
        let Some(shelf) = self.shelves.get_mut(&place) else { return };
        if !std::mem::replace(&mut shelf.restored, false) {
            return;
        }
        let differs =
            shelf.arena.as_ref().zip(brought).is_some_and(|(one, other)| !one.same(other));
        if differs && let Some(shelf) = self.shelves.remove(&place) {
            self.held -= shelf.tunnels.len();
            self.discard(shelf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Luggage, Name, Posted};
    use super::*;
    use holdfast_proto::control::vault_reply::Kind as Reply;
    use holdfast_proto::control::vault_request::{Kind as Request, Window};

    impl Descriptor for u64 {
        fn same(&self, other: &Self) -> bool {
            self == other
        }
    }

    const ARENA: u64 = 100;

    fn listener() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 80))
    }

    fn tunnel(id: u64, version: u32) -> KeptTunnel<u64> {
        let key = Key { listener: listener(), version, id };
        KeptTunnel { key, index: 4, generation: 7, legs: [10 * id, 10 * id + 1] }
    }

    fn restored() -> Books<u64> {
        let mut books = Books::default();
        books.set_budget(50);
        let tunnels = vec![tunnel(1, 3), tunnel(2, 3), tunnel(1, 3), tunnel(5, 9)];
        let kept = Kept {
            arenas: vec![(listener(), 3, ARENA)],
            tallies: vec![(listener(), 200)],
            tunnels,
        };
        books.restore(kept);
        books
    }

    fn attach(books: &mut Books<u64>, generation: u64, arena: Option<u64>) -> super::super::Party {
        let luggage = Luggage { version: 3, arena, tally: None, keeps_polls: false };
        books.attach(Name { listener: listener(), generation }, luggage)
    }

    #[test]
    fn what_came_back_is_there_once_and_only_with_its_arena() {
        let mut books = restored();
        let ids: Vec<_> = books.keys().map(|key| (key.version, key.id)).collect();
        assert_eq!(ids, [(3, 1), (3, 2)]);
        // The double, and the one without an arena.
        assert_eq!(books.take_bin(), [10, 11, 50, 51]);
        assert_eq!(books.orphans(), 2);
        let key = tunnel(2, 3).key;
        assert_eq!(books.tunnel(&key), Some((4, 7, &[20, 21])));
        assert_eq!(books.arenas().collect::<Vec<_>>(), [(listener(), 3, &ARENA)]);
        assert_eq!(books.tallies().collect::<Vec<_>>(), [(listener(), &200)]);
    }

    #[test]
    fn the_first_worker_is_handed_all_of_it() {
        let mut books = restored();
        let party = attach(&mut books, 8, None);
        books.hear(party, Request::Window(Window { tunnels: 9 }), Vec::new()).unwrap();
        let mut handed = Vec::new();
        let mut granted = Vec::new();
        let mut send = |reply: holdfast_proto::control::VaultReply, fds: &[&u64]| {
            match reply.kind.unwrap() {
                Reply::Granted(_) => granted.extend(fds.iter().map(|fd| **fd)),
                Reply::Handed(_) => handed.extend(fds.iter().map(|fd| **fd)),
                _ => {}
            }
            Ok::<(), ()>(())
        };
        while books.post(party, &mut send) == Ok(Posted::Sent) {}
        assert_eq!(granted, [ARENA, 200]);
        assert_eq!(handed, [10, 11, 20, 21]);
    }

    #[test]
    fn a_living_workers_arena_is_believed_rather_than_one_that_came_back() {
        let mut books = restored();
        attach(&mut books, 8, Some(ARENA));
        assert_eq!(books.keys().count(), 2);
        let mut books = restored();
        attach(&mut books, 8, Some(ARENA + 1));
        assert_eq!(books.keys().count(), 0);
        assert_eq!(books.arenas().collect::<Vec<_>>(), [(listener(), 3, &(ARENA + 1))]);
        // The second one's is no reason to doubt the first one's.
        attach(&mut books, 9, Some(ARENA + 2));
        assert_eq!(books.arenas().collect::<Vec<_>>(), [(listener(), 3, &(ARENA + 1))]);
    }

    #[test]
    fn no_more_comes_back_than_may_be_held() {
        let mut books: Books<u64> = Books::default();
        books.set_budget(6);
        let tunnels = (1..9).map(|id| tunnel(id, 3)).collect();
        books.restore(Kept { arenas: vec![(listener(), 3, ARENA)], tallies: Vec::new(), tunnels });
        assert_eq!(books.keys().count(), 2);
        assert_eq!(books.take_bin().len(), 12);
    }
}
