//! The vault's books: who holds which tunnel, and what is to be said to whom. Pure: a descriptor is whatever `D` is.
//!
//! ```text
//! place = listener + arena layout      party = one attached worker, by generation
//! a tunnel is known to:  by      = generations that deposited it or took it over (they have it for certain)
//!                        handed  = generations that it was handed to on their present channel
//! the heir of a place    = its party of the highest generation; only the heir is handed anything, and only what
//!                          it does not know
//! ```
//! Never: a tunnel to another place's worker, or to one that has it; more than a worker's window; a word about a tunnel
//! before the tunnel itself; anything held after its release. A party's end changes nothing of what is held.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

mod copies;
mod hearing;
mod outbox;
mod polls;

pub(super) use outbox::Posted;
use outbox::{Answer, Outbox, Polls};
use polls::KeptPoll;

/// Names an attachment. Never given twice.
pub(super) type Party = u64;

/// What the books must know about a descriptor.
pub(super) trait Descriptor {
    /// Whether both name the same open file.
    fn same(&self, other: &Self) -> bool;
}

/// A worker, as far as the vault cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) listener: SocketAddr,
    pub(super) generation: u64,
}

/// What a worker brings when it attaches.
#[derive(Debug)]
pub(super) struct Luggage<D> {
    /// The arena layout that it knows; 0: none.
    pub(super) version: u32,
    pub(super) arena: Option<D>,
    pub(super) tally: Option<D>,
    /// It keeps epoll instances here.
    pub(super) keeps_polls: bool,
}

/// Why a channel must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("this message is not allowed now")]
    Phase,
    #[error("it announced {announced} descriptors, and {came} came")]
    Manifest { announced: usize, came: usize },
    #[error("the worker has dialled again, or was too far behind")]
    Gone,
}

/// What is held, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Tunnels by listener.
    pub tunnels: BTreeMap<SocketAddr, usize>,
    /// Descriptors that may still be deposited.
    pub descriptors_left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    listener: SocketAddr,
    version: u32,
}

#[derive(Debug)]
struct Shelf<D> {
    arena: Option<D>,
    /// Kept since before this process, and no worker has been here yet.
    restored: bool,
    tunnels: BTreeMap<u64, Tunnel<D>>,
    polls: Vec<KeptPoll<D>>,
}

#[derive(Debug)]
struct Tunnel<D> {
    index: u32,
    /// Client and backend.
    legs: [D; 2],
    by: Vec<u64>,
    handed: Vec<u64>,
    /// The generation that had it last.
    lent_to: u64,
}

#[derive(Debug)]
struct Attached {
    name: Name,
    place: Place,
    /// It has records in another arena than the one in force, where they would be mistaken for others'.
    estranged: bool,
    is_heir: bool,
    outbox: Outbox,
}

/// The books.
#[derive(Debug)]
pub(super) struct Books<D> {
    shelves: BTreeMap<Place, Shelf<D>>,
    tallies: BTreeMap<SocketAddr, D>,
    parties: BTreeMap<Party, Attached>,
    /// Tunnels on all shelves.
    held: usize,
    /// Most descriptors that may be held.
    budget: usize,
    last: Party,
    /// Parties that have something to hear, or are parties no more.
    rung: Vec<Party>,
    /// What was let go of, to be closed when nobody waits for the books.
    bin: Vec<D>,
    /// The same, of epoll instances.
    old_polls: Vec<D>,
    /// What was let go of since nobody can go on with it.
    abandoned: Vec<Abandoned>,
}

/// Tunnels in an arena of a layout that no worker of the listener knows any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abandoned {
    pub(super) listener: SocketAddr,
    /// The layout.
    pub(super) version: u32,
    /// How many.
    pub(super) tunnels: usize,
}

// === impl Shelf ===

impl<D> Default for Shelf<D> {
    fn default() -> Self {
        Self { arena: None, restored: false, tunnels: BTreeMap::new(), polls: Vec::new() }
    }
}

// === impl Tunnel ===

impl<D> Tunnel<D> {
    fn deposited(index: u32, legs: [D; 2], by: u64) -> Self {
        Self { index, legs, by: vec![by], handed: Vec::new(), lent_to: by }
    }

    fn knows(&self, generation: u64) -> bool {
        self.by.contains(&generation) || self.handed.contains(&generation)
    }

    /// That generation has it for certain.
    fn note_holder(&mut self, generation: u64) {
        self.forget(generation);
        self.by.push(generation);
        self.lent_to = generation;
    }

    /// That generation has closed its duplicates, or is told to.
    fn forget(&mut self, generation: u64) {
        self.by.retain(|it| *it != generation);
        self.handed.retain(|it| *it != generation);
    }
}

// === impl Books ===

impl<D> Default for Books<D> {
    fn default() -> Self {
        Self {
            shelves: BTreeMap::new(),
            tallies: BTreeMap::new(),
            parties: BTreeMap::new(),
            held: 0,
            budget: 0,
            last: 0,
            rung: Vec::new(),
            bin: Vec::new(),
            old_polls: Vec::new(),
            abandoned: Vec::new(),
        }
    }
}

impl<D> Books<D> {
    /// Sets how many descriptors may be held.
    pub(super) fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
    }

    /// Whom to wake.
    pub(super) fn take_rung(&mut self) -> Vec<Party> {
        std::mem::take(&mut self.rung)
    }

    /// What to close.
    pub(super) fn take_bin(&mut self) -> Vec<D> {
        std::mem::take(&mut self.bin)
    }

    /// What to tell of.
    pub(super) fn take_abandoned(&mut self) -> Vec<Abandoned> {
        std::mem::take(&mut self.abandoned)
    }

    /// What is held.
    pub(super) fn holdings(&self) -> Holdings {
        let mut tunnels = BTreeMap::new();
        for (place, shelf) in &self.shelves {
            *tunnels.entry(place.listener).or_default() += shelf.tunnels.len();
        }
        Holdings { tunnels, descriptors_left: self.budget.saturating_sub(self.descriptors()) }
    }

    /// How many tunnels of a listener are held.
    pub(super) fn tunnels_of(&self, listener: SocketAddr) -> usize {
        let shelves = self.shelves.iter().filter(|(place, _)| place.listener == listener);
        shelves.map(|(_, shelf)| shelf.tunnels.len()).sum()
    }

    /// Which tunnels of a listener are held.
    pub(super) fn ids_of(&self, listener: SocketAddr) -> BTreeSet<u64> {
        let shelves = self.shelves.iter().filter(|(place, _)| place.listener == listener);
        shelves.flat_map(|(_, shelf)| shelf.tunnels.keys().copied()).collect()
    }

    /// Tunnels that no worker has who is attached: nobody but the vault holds them.
    pub(super) fn orphans(&self) -> usize {
        let orphans = self.shelves.iter().map(|(place, shelf)| {
            let here = |it: &&Attached| it.name.listener == place.listener;
            let living: Vec<u64> =
                self.parties.values().filter(here).map(|it| it.name.generation).collect();
            let has_one = |tunnel: &&Tunnel<D>| tunnel.by.iter().any(|it| living.contains(it));
            shelf.tunnels.values().filter(|tunnel| !has_one(tunnel)).count()
        });
        orphans.sum()
    }

    /// Tunnels that this worker had last.
    pub(super) fn lent_to(&self, name: Name) -> usize {
        let shelves = self.shelves.iter().filter(|(place, _)| place.listener == name.listener);
        let tunnels = shelves.flat_map(|(_, shelf)| shelf.tunnels.values());
        tunnels.filter(|tunnel| tunnel.lent_to == name.generation).count()
    }

    /// Whether a worker should read its answers before it says more.
    pub(super) fn is_clogged(&self, party: Party) -> bool {
        self.parties.get(&party).is_some_and(|it| it.outbox.is_clogged())
    }

    /// The listener is no more: nobody will come for what it has here.
    pub(super) fn forget(&mut self, listener: SocketAddr) {
        let places: Vec<Place> =
            self.shelves.keys().filter(|place| place.listener == listener).copied().collect();
        for place in places {
            let Some(shelf) = self.shelves.remove(&place) else { continue };
            self.held -= shelf.tunnels.len();
            self.discard(shelf);
        }
        self.bin.extend(self.tallies.remove(&listener));
        for party in self.parties.values_mut().filter(|it| it.name.listener == listener) {
            party.estranged = true;
            party.is_heir = false;
            party.outbox.hand_no_more();
        }
    }

    /// A worker's channel has ended.
    pub(super) fn detach(&mut self, party: Party) {
        if let Some(name) = self.leave(party) {
            self.tidy(name.listener);
        }
    }

    fn leave(&mut self, party: Party) -> Option<Name> {
        let Attached { name, place, .. } = self.parties.remove(&party)?;
        self.rung.push(party);
        if let Some(shelf) = self.shelves.get_mut(&place) {
            // What was on its way may never have arrived.
            let tunnels = shelf.tunnels.values_mut();
            tunnels.for_each(|tunnel| tunnel.handed.retain(|it| *it != name.generation));
        }
        let above = |it: &&mut Attached| {
            it.place == place && it.is_heir && it.name.generation > name.generation
        };
        for heir in self.parties.values_mut().filter(above) {
            heir.outbox.depart(name.generation);
        }
        self.settle(place);
        self.tidy_polls(place);
        Some(name)
    }

    fn descriptors(&self) -> usize {
        let shared = self.shelves.values();
        let shared = shared.map(|shelf| usize::from(shelf.arena.is_some()) + shelf.polls.len());
        2 * self.held + shared.sum::<usize>() + self.tallies.len() + self.parties.len()
    }

    /// Tells everybody at a place who is above, and begins to hand what is held to who has become the heir.
    fn settle(&mut self, place: Place) {
        let here = |it: &Attached| place.version > 0 && it.place == place && !it.estranged;
        let generations = self.parties.values().filter(|it| here(it)).map(|it| it.name.generation);
        let Some(highest) = generations.max() else { return };
        for (number, party) in self.parties.iter_mut().filter(|(_, it)| here(it)) {
            let generation = party.name.generation;
            let is_heir = generation == highest;
            party.outbox.set_successor(if is_heir { 0 } else { highest });
            if party.is_heir && !is_heir {
                party.outbox.hand_no_more();
            } else if is_heir && !party.is_heir {
                let tunnels = self.shelves.get(&place).into_iter().flat_map(|it| &it.tunnels);
                let unknown = tunnels.filter(|(_, tunnel)| !tunnel.knows(generation));
                party.outbox.hand_all(unknown.map(|(id, _)| *id));
            }
            party.is_heir = is_heir;
            self.rung.push(*number);
        }
    }

    /// Lets go of arenas of another layout than the attached workers know: once nothing is in them, or once a later worker
    /// than those that had it is of another layout. Nobody who could go on with it comes then, and a worker that has only
    /// lost its channel deposits it anew.
    fn tidy(&mut self, listener: SocketAddr) {
        let used = |version| {
            let mut parties = self.parties.values().filter(|it| it.name.listener == listener);
            parties.any(|it| it.place.version == version)
        };
        let versions = self.shelves.keys().filter(|place| place.listener == listener);
        let (used, unused): (Vec<Place>, Vec<Place>) =
            versions.copied().partition(|place| used(place.version));
        let attached = self.parties.values().filter(|it| it.name.listener == listener);
        let newest = attached.filter(|it| it.place.version > 0).map(|it| it.name.generation).max();
        for place in unused.into_iter().filter(|_| !used.is_empty()) {
            let tunnels = self.shelves.get(&place).into_iter().flat_map(|it| it.tunnels.values());
            if tunnels.map(|tunnel| tunnel.lent_to).max() > newest {
                continue;
            }
            let Some(shelf) = self.shelves.remove(&place) else { continue };
            let tunnels = shelf.tunnels.len();
            if tunnels > 0 {
                self.held -= tunnels;
                self.abandoned.push(Abandoned { listener, version: place.version, tunnels });
            }
            self.discard(shelf);
        }
    }

    fn discard(&mut self, shelf: Shelf<D>) {
        self.bin.extend(shelf.arena);
        self.bin.extend(shelf.tunnels.into_values().flat_map(|tunnel| tunnel.legs));
        self.old_polls.extend(shelf.polls.into_iter().map(|poll| poll.fd));
    }

    /// Ends the channels of those who do not listen.
    fn prune(&mut self) {
        let deaf = self.parties.iter().filter(|(_, it)| it.outbox.is_too_long());
        let deaf: Vec<Party> = deaf.map(|(party, _)| *party).collect();
        for party in deaf {
            self.detach(party);
        }
    }
}

impl<D: Descriptor> Books<D> {
    /// A worker is here; an earlier channel of it is over.
    pub(super) fn attach(&mut self, name: Name, luggage: Luggage<D>) -> Party {
        let earlier = self.parties.iter().find(|(_, it)| it.name == name).map(|(party, _)| *party);
        if let Some(earlier) = earlier {
            // What it has there stays: it is here again.
            self.leave(earlier);
        }
        let place = Place { listener: name.listener, version: luggage.version };
        self.believe(place, luggage.arena.as_ref());
        let tally = self.keep_tally(name.listener, luggage.tally);
        let brought = luggage.arena.is_some();
        let mut arena = false;
        let mut estranged = false;
        if place.version == 0 {
            self.bin.extend(luggage.arena);
        } else {
            arena = self.keep_arena(place, luggage.arena);
            estranged = brought && arena;
        }
        self.last += 1;
        let polls = match (luggage.keeps_polls && place.version > 0, brought) {
            (false, _) => Polls::None,
            // It waits on its own already.
            (true, true) => Polls::Keep,
            (true, false) => Polls::KeepAndTake,
        };
        let outbox = Outbox::new(Answer::Granted { arena, tally, polls });
        let attached = Attached { name, place, estranged, is_heir: false, outbox };
        self.parties.insert(self.last, attached);
        self.rung.push(self.last);
        self.settle(place);
        self.tidy(name.listener);
        self.last
    }

    /// The first one wins. Whether the worker is to be given the one in force: it has none, or another.
    fn keep_arena(&mut self, place: Place, brought: Option<D>) -> bool {
        let shelf = self.shelves.entry(place).or_default();
        keep(&mut shelf.arena, brought, &mut self.bin)
    }

    fn keep_tally(&mut self, listener: SocketAddr, brought: Option<D>) -> bool {
        let mut held = self.tallies.remove(&listener);
        let give = keep(&mut held, brought, &mut self.bin);
        self.tallies.extend(held.map(|tally| (listener, tally)));
        give
    }
}

fn keep<D: Descriptor>(held: &mut Option<D>, brought: Option<D>, bin: &mut Vec<D>) -> bool {
    match (&held, brought) {
        (None, brought) => {
            *held = brought;
            false
        }
        (Some(_), None) => true,
        (Some(one), Some(brought)) => {
            let other = !one.same(&brought);
            bin.push(brought);
            other
        }
    }
}

#[cfg(test)]
mod tests;
