//! The books against a model of them, under random events.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use holdfast_proto::control::vault_reply::Kind as Reply;
use holdfast_proto::control::vault_request::{self, Kind as Request};
use holdfast_proto::control::{Held, VaultReply};
use proptest::prelude::*;

use super::*;

/// A descriptor with a label; the test can tell how many live.
#[derive(Debug, Clone)]
struct Token(Rc<u64>);

impl Descriptor for Token {
    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

#[derive(Debug, Clone)]
enum Event {
    Attach { listener: u64, generation: u64, version: u32 },
    Detach,
    Deposit(Vec<u64>),
    Release(Vec<u64>),
    Window(u32),
    Frozen(Vec<u64>),
    Adopted(u64, Vec<u64>),
    Post { fails: bool },
    Forget,
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let ids = || proptest::collection::vec(0..12_u64, 0..6);
    let attach = (0..2_u64, 1..5_u64, 1..3_u32);
    let attach = attach.prop_map(|(listener, generation, version)| Event::Attach {
        listener,
        generation,
        version,
    });
    let event = prop_oneof![
        3 => attach,
        1 => Just(Event::Detach),
        4 => ids().prop_map(Event::Deposit),
        2 => ids().prop_map(Event::Release),
        3 => (0..4_u32).prop_map(Event::Window),
        2 => ids().prop_map(Event::Frozen),
        2 => (1..5_u64, ids()).prop_map(|(from, ids)| Event::Adopted(from, ids)),
        12 => any::<bool>().prop_map(|fails| Event::Post { fails }),
    ];
    // A listener goes rarely.
    let event = prop_oneof![40 => event, 1 => Just(Event::Forget)];
    (0..8_usize, event)
}

#[derive(Debug)]
struct Seen {
    place: Place,
    generation: u64,
    /// Handed on this channel, and still its.
    handed: BTreeSet<u64>,
    window: u64,
    /// Released by others, and not yet heard of.
    to_hear: Vec<u64>,
    adopted: BTreeSet<u64>,
    granted: bool,
    caught_up: bool,
    successor: u64,
    estranged: bool,
}

/// What a model of the vault, and of those who talk to it, knows.
#[derive(Default)]
struct Model {
    books: Books<Token>,
    parties: BTreeMap<Party, Seen>,
    /// Who has it for certain.
    held: BTreeMap<u64, BTreeSet<u64>>,
    tokens: Vec<Weak<u64>>,
}

const BUDGET: usize = 40;

fn address(listener: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8000 + u16::try_from(listener).unwrap()))
}

/// Ids are unique in a listener, and one that is in an arena is in no other.
fn id(place: Place, small: u64) -> u64 {
    u64::from(place.listener.port()) * 1000 + u64::from(place.version) * 100 + small
}

impl Model {
    fn token(&mut self, label: u64) -> Token {
        let token = Rc::new(label);
        self.tokens.push(Rc::downgrade(&token));
        Token(token)
    }

    fn living(&self) -> usize {
        self.tokens.iter().filter(|token| token.upgrade().is_some()).count()
    }

    fn highest(&self, place: Place) -> u64 {
        let here = self.parties.values().filter(|it| it.place == place && !it.estranged);
        here.map(|it| it.generation).max().unwrap_or_default()
    }

    fn attach(&mut self, listener: u64, generation: u64, version: u32) {
        let name = Name { listener: address(listener), generation };
        let place = Place { listener: name.listener, version };
        // Another process of that generation has another layout: that cannot be.
        let other = |it: &&Seen| it.place.listener == name.listener && it.generation == generation;
        if self.parties.values().find(other).is_some_and(|it| it.place.version != version) {
            return;
        }
        self.parties.retain(|_, it| (it.place, it.generation) != (place, generation));
        let (arena, tally) = (self.token(id(place, 98)), self.token(listener));
        let luggage =
            Luggage { version, arena: Some(arena), tally: Some(tally), keeps_polls: true };
        let party = self.books.attach(name, luggage);
        let seen = Seen {
            place,
            generation,
            handed: BTreeSet::new(),
            window: 0,
            to_hear: Vec::new(),
            adopted: BTreeSet::new(),
            granted: false,
            caught_up: false,
            successor: 0,
            estranged: false,
        };
        self.parties.insert(party, seen);
    }

    fn hear(&mut self, party: Party, said: Request, fds: Vec<Token>) {
        self.books.set_budget(BUDGET);
        assert_eq!(self.books.hear(party, said, fds), Ok(()));
    }

    fn deposit(&mut self, party: Party, ids: &[u64]) {
        let legs = |id: u64| [2 * id, 2 * id + 1];
        let labels: Vec<u64> = ids.iter().flat_map(|id| legs(*id)).collect();
        let fds = labels.into_iter().map(|label| self.token(label)).collect();
        let tunnels: Vec<_> =
            ids.iter().map(|id| Held { id: *id, index: u32::try_from(*id).unwrap() }).collect();
        let before = self.books.held;
        self.hear(party, Request::Deposit(vault_request::Deposit { tunnels }), fds);
        assert!(self.books.held == before || self.books.descriptors() <= BUDGET);
        let seen = self.parties.get_mut(&party).unwrap();
        for id in ids {
            let shelf = self.books.shelves.get(&seen.place);
            if !seen.estranged && shelf.is_some_and(|it| it.tunnels.contains_key(id)) {
                self.held.entry(*id).or_default().insert(seen.generation);
                seen.handed.remove(id);
            }
        }
    }

    fn release(&mut self, party: Party, ids: &[u64]) {
        self.hear(party, Request::Release(vault_request::Release { ids: ids.to_vec() }), vec![]);
        if self.parties[&party].estranged {
            return;
        }
        for id in ids {
            let Some(by) = self.held.remove(id) else { continue };
            let place = self.parties[&party].place;
            for (_, other) in self.parties.iter_mut().filter(|(number, _)| **number != party) {
                if other.place == place
                    && (by.contains(&other.generation) || other.handed.contains(id))
                {
                    other.to_hear.push(*id);
                    other.handed.remove(id);
                }
            }
            self.parties.get_mut(&party).unwrap().handed.remove(id);
        }
    }

    fn adopt(&mut self, party: Party, from: u64, ids: &[u64]) {
        let ids = ids.to_vec();
        let said = vault_request::Adopted { from_generation: from, ids: ids.clone() };
        self.hear(party, Request::Adopted(said), vec![]);
        let Seen { place, generation, estranged, .. } = self.parties[&party];
        if from == generation || estranged {
            return;
        }
        for other in self.parties.values_mut() {
            if (other.place, other.generation) == (place, from) {
                other.adopted.extend(&ids);
                other.handed.retain(|id| !ids.contains(id) || !self.held.contains_key(id));
            }
        }
        for id in ids {
            if let Some(by) = self.held.get_mut(&id) {
                by.remove(&from);
                by.insert(generation);
                self.parties.get_mut(&party).unwrap().handed.remove(&id);
            }
        }
    }

    fn forget(&mut self, listener: SocketAddr) {
        self.books.forget(listener);
        self.held.retain(|id, _| id / 1000 != u64::from(listener.port()));
        for it in self.parties.values_mut().filter(|it| it.place.listener == listener) {
            it.handed.clear();
            it.estranged = true;
        }
    }

    /// Tunnels that nobody goes on with: the newest worker that is here knows another layout, and none knows theirs.
    fn abandon(&mut self, abandoned: Abandoned) {
        let Abandoned { listener, version, tunnels } = abandoned;
        let here = self.parties.values().filter(|it| it.place.listener == listener);
        assert!(here.clone().all(|it| it.place.version != version));
        assert!(here.count() > 0);
        let before = self.held.len();
        let place = Place { listener, version };
        self.held.retain(|it, _| it / 100 != id(place, 0) / 100);
        assert_eq!(before - self.held.len(), tunnels);
    }

    /// Whether there was something to say; it is checked.
    fn post(&mut self, party: Party, fails: bool) -> bool {
        let mut packet = None;
        let posted = self.books.post(party, |reply, fds| {
            packet = Some((reply, fds.iter().map(|token| *token.0).collect::<Vec<_>>()));
            if fails { Err(()) } else { Ok(()) }
        });
        if let (Ok(Posted::Sent), Some((reply, fds))) = (posted, packet) {
            self.check(party, reply, &fds);
            return true;
        }
        false
    }

    fn check(&mut self, party: Party, reply: VaultReply, fds: &[u64]) {
        let highest = self.highest(self.parties[&party].place);
        let seen = self.parties.get_mut(&party).unwrap();
        let knows = |held: &BTreeMap<u64, BTreeSet<u64>>, seen: &Seen, id: &u64| {
            seen.handed.contains(id) || held.get(id).is_some_and(|by| by.contains(&seen.generation))
        };
        let reply = reply.kind.unwrap();
        assert_eq!(seen.granted, !matches!(reply, Reply::Granted(_)), "Granted is first, and once");
        match reply {
            Reply::Granted(_) => seen.granted = true,
            Reply::Handed(handed) => {
                assert!(seen.generation == highest && !seen.estranged, "only the heir");
                let labels = handed.tunnels.iter().flat_map(|it| [2 * it.id, 2 * it.id + 1]);
                assert_eq!(labels.collect::<Vec<_>>(), fds, "its own legs");
                for tunnel in handed.tunnels {
                    let place = seen.place;
                    assert_eq!(tunnel.id / 100, id(place, 0) / 100, "its own listener and arena");
                    assert_eq!(u64::from(tunnel.index), tunnel.id);
                    let by = self.held.get(&tunnel.id).expect("what is held");
                    assert!(!by.contains(&seen.generation), "never its depositor");
                    assert!(seen.handed.insert(tunnel.id), "once a channel");
                    seen.window = seen.window.checked_sub(1).expect("within the window");
                }
            }
            Reply::HandedAll(_) => {
                assert_eq!(seen.generation, highest);
                seen.caught_up = true;
                let here = |id: &u64| id / 100 == self::id(seen.place, 0) / 100;
                let at_first = self.held.iter().filter(|(id, by)| {
                    here(id) && by.iter().all(|generation| *generation >= seen.generation)
                });
                assert!(at_first.map(|(id, _)| id).all(|id| knows(&self.held, seen, id)));
            }
            Reply::Departed(departed) => assert!(departed.generation < seen.generation),
            Reply::Frozen(frozen) => {
                assert!(frozen.from_generation < seen.generation && !frozen.ids.is_empty());
                assert!(frozen.ids.iter().all(|id| knows(&self.held, seen, id)), "after Handed");
            }
            Reply::Released(released) => {
                let first: Vec<u64> = seen.to_hear.drain(..released.ids.len()).collect();
                assert_eq!(first, released.ids, "everything that others let go of, in order");
            }
            Reply::Adopted(adopted) => {
                assert!(adopted.ids.iter().all(|id| seen.adopted.contains(id)));
            }
            Reply::Successor(successor) => {
                let above = if highest > seen.generation { highest } else { 0 };
                // What an estranged worker was last told no longer matters to it.
                assert!(seen.estranged || successor.generation == above);
                assert_ne!(seen.successor, successor.generation, "only news");
                seen.successor = successor.generation;
            }
            Reply::Stored(_) | Reply::Kept(_) => {}
        }
    }

    fn happen(&mut self, which: usize, event: Event) {
        let party = self.parties.keys().nth(which % self.parties.len().max(1)).copied();
        match (event, party) {
            (Event::Attach { listener, generation, version }, _) => {
                self.attach(listener, generation, version);
            }
            (_, None) => {}
            (event, Some(party)) => {
                let place = self.parties[&party].place;
                let all = |ids: Vec<u64>| -> Vec<u64> {
                    let ids: BTreeSet<u64> =
                        ids.into_iter().map(|small| id(place, small)).collect();
                    ids.into_iter().collect()
                };
                match event {
                    Event::Attach { .. } => {}
                    Event::Detach => {
                        self.books.detach(party);
                        self.parties.remove(&party);
                    }
                    Event::Deposit(ids) => self.deposit(party, &all(ids)),
                    Event::Release(ids) => self.release(party, &all(ids)),
                    Event::Window(tunnels) => {
                        let said = Request::Window(vault_request::Window { tunnels });
                        self.hear(party, said, vec![]);
                        self.parties.get_mut(&party).unwrap().window += u64::from(tunnels);
                    }
                    Event::Frozen(ids) => {
                        let said = Request::Frozen(vault_request::Frozen { ids: all(ids) });
                        self.hear(party, said, vec![]);
                    }
                    Event::Adopted(from, ids) => self.adopt(party, from, &all(ids)),
                    Event::Post { fails } => drop(self.post(party, fails)),
                    Event::Forget => self.forget(place.listener),
                }
            }
        }
        self.books.take_bin();
        for abandoned in self.books.take_abandoned() {
            self.abandon(abandoned);
        }
        let arenas = self.books.shelves.values().filter(|shelf| shelf.arena.is_some()).count();
        let held: usize = 2 * self.held.len() + arenas + self.books.tallies.len();
        assert_eq!(self.living(), held, "nothing is held after its release");
        assert_eq!(self.books.held, self.held.len());
        let has_one = |(id, by): &(&u64, &BTreeSet<u64>)| {
            let here = |it: &&Seen| u64::from(it.place.listener.port()) == **id / 1000;
            self.parties.values().filter(here).any(|it| by.contains(&it.generation))
        };
        let orphans = self.held.iter().filter(|one| !has_one(one)).count();
        assert_eq!(self.books.orphans(), orphans, "what only the vault holds");
    }

    /// Everybody hears everything.
    fn settle(&mut self) {
        for party in self.parties.keys().copied().collect::<Vec<_>>() {
            self.happen_window(party);
            while self.post(party, false) {}
            let seen = &self.parties[&party];
            assert!(seen.to_hear.is_empty());
            if seen.generation == self.highest(seen.place) && !seen.estranged {
                assert!(seen.caught_up && seen.successor == 0);
                let here =
                    self.held.iter().filter(|(id, _)| *id / 100 == self::id(seen.place, 0) / 100);
                for (id, by) in here {
                    assert!(by.contains(&seen.generation) || seen.handed.contains(id), "{id}");
                }
            }
        }
    }

    fn happen_window(&mut self, party: Party) {
        self.hear(party, Request::Window(vault_request::Window { tunnels: 1000 }), vec![]);
        self.parties.get_mut(&party).unwrap().window += 1000;
    }
}

#[test]
fn tunnels_of_a_layout_that_later_workers_do_not_know_are_let_go_of_with_their_last_worker() {
    let mut model = Model::default();
    model.attach(0, 1, 1);
    model.deposit(1, &[8_000_100, 8_000_101]);
    model.attach(0, 2, 2);
    model.deposit(2, &[8_000_200]);
    assert_eq!(model.books.take_abandoned(), []);
    // The later one's may find another heir, while the earlier one lives on.
    model.books.detach(2);
    assert_eq!(model.books.take_abandoned(), []);
    model.attach(0, 3, 2);
    model.books.detach(1);
    let abandoned = Abandoned { listener: address(0), version: 1, tunnels: 2 };
    assert_eq!(model.books.take_abandoned(), [abandoned]);
    assert_eq!(model.books.held, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_promises_hold_whatever_happens(events in proptest::collection::vec(event(), 0..120)) {
        let mut model = Model::default();
        for (which, event) in events {
            model.happen(which, event);
        }
        model.settle();
    }
}
