//! Whose turn it is among the backends of a binding that are in rotation.
//!
//! A rotation is made anew whenever table or health change, and never changes itself: what outlives it is the
//! [`Cursor`], and what backends have in hand. A backend that is not in it is never offered, but for one that is
//! drained, to a client whose cookie names it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::distribution::Algorithm;
use super::{Backend, hashing};

/// Backends that one request may try: the first, another, and one more in a pool that has just lost its rack.
pub const MOST_TRIES: usize = 3;

/// Where a binding's round robin stands. Outlives revisions, so that a reload does not favour the first backend.
#[derive(Debug, Default)]
pub struct Cursor(AtomicUsize);

/// The backends of a binding that may get work.
#[derive(Debug, Default)]
pub struct Rotation {
    algorithm: Algorithm,
    members: Vec<Member>,
    /// Drained, but well: only cookies lead there.
    lingering: Vec<Arc<Backend>>,
    /// With weights that differ: by how much each member is behind its share of turns.
    behind: Option<Mutex<Vec<i64>>>,
}

/// One backend in rotation.
#[derive(Debug)]
struct Member {
    backend: Arc<Backend>,
    weight: u32,
}

/// What a request brings to the choice.
#[derive(Clone, Copy, Debug)]
pub struct Preference<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The backend that its cookie names.
    pub cookie: Option<&'a Arc<Backend>>,
    /// The backend that its connection has a connection of its own to.
    pub own: Option<&'a Arc<Backend>>,
}

/// The backends to try for one request, the one whose turn it is first, each once.
#[derive(Debug)]
pub struct Picks<'a> {
    first: Option<Arc<Backend>>,
    /// The first one's id, not to be offered again.
    offered: u64,
    choice: Option<Choice<'a>>,
    order: Option<Order>,
}

/// What the order of the others is made from, should they be asked for.
#[derive(Clone, Copy, Debug)]
struct Choice<'a> {
    rotation: &'a Rotation,
    cursor: &'a Cursor,
    client: IpAddr,
}

/// In which order members are offered.
#[derive(Debug)]
enum Order {
    /// Round and round, each once.
    Ring { next: usize, left: usize },
    /// These, the last one first.
    Listed(Vec<usize>),
}

// === impl Cursor ===

impl Cursor {
    /// Takes a turn among so many.
    fn turn(&self, members: usize) -> usize {
        if members == 0 {
            return 0;
        }
        // Relaxed: only fairness hangs on it, and wrapping at the end of usize costs one turn.
        self.0.fetch_add(1, Ordering::Relaxed).checked_rem(members).unwrap_or(0)
    }
}

// === impl Rotation ===

impl Rotation {
    /// Backends in rotation, each with its weight, and drained ones that still answer.
    pub(crate) fn new(
        algorithm: Algorithm,
        members: impl IntoIterator<Item = (Arc<Backend>, u32)>,
        lingering: Vec<Arc<Backend>>,
    ) -> Self {
        let member = |(backend, weight)| Member { backend, weight };
        let members: Vec<_> = members.into_iter().map(member).collect();
        let differ = members.windows(2).any(|pair| match pair {
            [one, next] => one.weight != next.weight,
            _ => false,
        });
        let behind = differ.then(|| Mutex::new(vec![0; members.len()]));
        Self { algorithm, members, lingering, behind }
    }

    /// Whom to try for one request.
    pub(crate) fn picks<'a>(
        &'a self,
        cursor: &'a Cursor,
        preference: &Preference<'_>,
    ) -> Picks<'a> {
        let cookie = preference.cookie.filter(|backend| self.takes_cookies_to(backend));
        let own = preference.own.filter(|backend| self.has(backend));
        let first = cookie.or(own).map(Arc::clone);
        Picks {
            offered: first.as_ref().map_or(0, |backend| backend.id),
            first,
            choice: Some(Choice { rotation: self, cursor, client: preference.client }),
            order: None,
        }
    }

    /// Whether a backend is in rotation.
    pub(crate) fn has(&self, backend: &Backend) -> bool {
        self.members.iter().any(|member| member.backend.id == backend.id)
    }

    /// Whether a backend gets the clients whose cookies name it.
    pub(crate) fn takes_cookies_to(&self, backend: &Backend) -> bool {
        self.has(backend) || self.lingering.iter().any(|lingering| lingering.id == backend.id)
    }

    fn order(&self, cursor: &Cursor, client: IpAddr) -> Order {
        let members = self.members.len();
        match (self.algorithm, &self.behind) {
            (Algorithm::RoundRobin, None) => {
                Order::Ring { next: cursor.turn(members), left: members }
            }
            (Algorithm::RoundRobin, Some(behind)) => {
                let mut behind = behind.lock().unwrap_or_else(PoisonError::into_inner);
                Order::Ring { next: self.weighted_turn(&mut behind), left: members }
            }
            (Algorithm::LeastConnections, _) => {
                // Equals take turns.
                let from = cursor.turn(members);
                let around = (from..members).chain(0..from);
                Order::best(around.filter_map(|index| {
                    let member = self.members.get(index)?;
                    let with_this_one = f64::from(member.backend.load.now()) + 1.0;
                    Some((index, f64::from(member.weight) / with_this_one))
                }))
            }
            (Algorithm::IpHash, _) => {
                let client = hashing::client(client);
                let scores = self.members.iter().map(|member| {
                    hashing::score(client, member.backend.seed, f64::from(member.weight))
                });
                Order::best(scores.enumerate())
            }
        }
    }

    /// Smooth weighted round robin: everybody falls behind by its weight, the furthest behind has its turn and catches
    /// up with everybody's. So a heavy member's turns are spread among the others'.
    fn weighted_turn(&self, behind: &mut [i64]) -> usize {
        let total: i64 = self.members.iter().map(|member| i64::from(member.weight)).sum();
        let mut furthest = (0, i64::MIN);
        for (index, (member, behind)) in self.members.iter().zip(behind.iter_mut()).enumerate() {
            *behind += i64::from(member.weight);
            if *behind > furthest.1 {
                furthest = (index, *behind);
            }
        }
        if let Some(behind) = behind.get_mut(furthest.0) {
            *behind -= total;
        }
        furthest.0
    }
}

// === impl Order ===

impl Order {
    /// Those with the highest scores, of equal ones the earlier.
    fn best(scores: impl Iterator<Item = (usize, f64)>) -> Self {
        let mut found: Vec<(usize, f64)> = Vec::with_capacity(MOST_TRIES + 1);
        for (index, score) in scores {
            let place = found.partition_point(|(_, other)| *other >= score);
            if place < MOST_TRIES {
                found.insert(place, (index, score));
                found.truncate(MOST_TRIES);
            }
        }
        Self::Listed(found.into_iter().rev().map(|(index, _)| index).collect())
    }

    fn next(&mut self, members: usize) -> Option<usize> {
        match self {
            Self::Listed(listed) => listed.pop(),
            Self::Ring { next, left } => {
                *left = left.checked_sub(1)?;
                let index = *next;
                *next = (index + 1).checked_rem(members)?;
                Some(index)
            }
        }
    }
}

// === impl Picks ===

impl Picks<'_> {
    /// No backend at all.
    pub(crate) fn none() -> Self {
        Self { first: None, offered: 0, choice: None, order: None }
    }
}

impl Iterator for Picks<'_> {
    type Item = Arc<Backend>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let Choice { rotation, cursor, client } = self.choice?;
        // Only now: a client that comes back to its backend takes nobody's turn.
        let order = self.order.get_or_insert_with(|| rotation.order(cursor, client));
        loop {
            let backend = &rotation.members.get(order.next(rotation.members.len())?)?.backend;
            if backend.id != self.offered {
                return Some(Arc::clone(backend));
            }
        }
    }
}

#[cfg(test)]
mod tests;
