//! What one worker has still to hear, and how it becomes packets.
//!
//! Answers go first: who opens a tunnel waits for them, and nothing about a handover may hold them up. Everything about
//! handed tunnels stands in one line, so that no word about a tunnel overtakes the tunnel; the line stops where the
//! worker's window ends. A packet is composed when there is room for it, so what was released meanwhile is never sent.

use std::collections::VecDeque;

use holdfast_proto::control::vault_reply::{self, Kind as Reply};
use holdfast_proto::control::{Held, VaultReply};
use holdfast_proto::vault::{MOST_IDS, MOST_TUNNELS};

use super::{Attached, Books, KeptPoll, Party, Shelf};

/// Answers that may wait while a worker is still listened to. A deposit's answer is one, and joins its like.
const MOST_ANSWERS: usize = 64;
/// Entries that may wait for a worker: some times as many as a listener has tunnels. One that is farther behind does not
/// listen, and learns everything anew when it dials again.
const LONGEST: usize = 1_000_000;

/// An answer, or news that stand for themselves.
#[derive(Debug)]
pub(super) enum Answer {
    Granted { arena: bool, tally: bool, polls: Polls },
    Kept { arena: bool, tally: bool },
    Stored { ids: Vec<u64>, refused: Vec<u64>, reason: &'static str },
    Adopted { ids: Vec<u64> },
}

/// What a worker may do with epoll instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polls {
    /// It knows none.
    None,
    /// It keeps its own here.
    Keep,
    /// And may go on with those of workers that are gone.
    KeepAndTake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Handed(u64),
    HandedAll,
    Frozen { from: u64, id: u64 },
    Released(u64),
    Departed(u64),
}

/// What one worker has still to hear.
#[derive(Debug)]
pub(super) struct Outbox {
    answers: VecDeque<Answer>,
    line: VecDeque<Entry>,
    /// Tunnels that it is still ready for.
    window: u64,
    successor: u64,
    successor_told: u64,
}

/// What came of [`Books::post`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vault) enum Posted {
    /// A packet went.
    Sent,
    /// There is nothing to say now.
    Nothing,
    /// It is attached no more.
    Gone,
}

/// What is to be noted once a packet has gone.
enum Step {
    Answer,
    /// These epoll instances went along.
    Granted {
        polls: Vec<u64>,
    },
    Successor(u64),
    Line {
        entries: usize,
        handed: Vec<u64>,
    },
}

type Packet<'a, D> = (Reply, Vec<&'a D>, Step);

// === impl Outbox ===

impl Outbox {
    pub(super) fn new(first: Answer) -> Self {
        Self {
            answers: VecDeque::from([first]),
            line: VecDeque::new(),
            window: 0,
            successor: 0,
            successor_told: 0,
        }
    }

    pub(super) fn is_clogged(&self) -> bool {
        self.answers.len() > MOST_ANSWERS
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.line.len() + self.answers.len() * MOST_IDS > LONGEST
    }

    pub(super) fn widen(&mut self, tunnels: u32) {
        self.window = self.window.saturating_add(tunnels.into());
    }

    pub(super) fn set_successor(&mut self, generation: u64) {
        self.successor = generation;
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.answers.push_back(answer);
    }

    pub(super) fn store(&mut self, stored: &[u64], refused: &[u64], reason: &'static str) {
        if let Some(Answer::Stored { ids, refused: earlier, .. }) = self.answers.back_mut()
            && (earlier.is_empty() && refused.is_empty())
            && ids.len() + stored.len() <= MOST_IDS
        {
            ids.extend(stored);
            return;
        }
        let (ids, refused) = (stored.to_vec(), refused.to_vec());
        self.answers.push_back(Answer::Stored { ids, refused, reason });
    }

    pub(super) fn adopt(&mut self, more: Vec<u64>) {
        if let Some(Answer::Adopted { ids }) = self.answers.back_mut()
            && ids.len() + more.len() <= MOST_IDS
        {
            ids.extend(more);
            return;
        }
        self.answers.push_back(Answer::Adopted { ids: more });
    }

    pub(super) fn hand(&mut self, ids: &[u64]) {
        self.line.extend(ids.iter().map(|id| Entry::Handed(*id)));
    }

    /// The worker has become the heir.
    pub(super) fn hand_all(&mut self, ids: impl Iterator<Item = u64>) {
        self.line.extend(ids.map(Entry::Handed));
        // Also to who was the heir before: what it would have heard meanwhile, another one was told.
        self.line.push_back(Entry::HandedAll);
    }

    /// The worker is the heir no more. It hears of no departure either: it would take for lost what it is not handed.
    pub(super) fn hand_no_more(&mut self) {
        let is_heirs = |entry: &Entry| {
            matches!(entry, Entry::Handed(_) | Entry::HandedAll | Entry::Departed(_))
        };
        self.line.retain(|entry| !is_heirs(entry));
    }

    pub(super) fn freeze(&mut self, from: u64, id: u64) {
        self.line.push_back(Entry::Frozen { from, id });
    }

    /// A lower generation's channel has ended; all that it deposited stands before this.
    pub(super) fn depart(&mut self, generation: u64) {
        self.line.push_back(Entry::Departed(generation));
    }

    fn departures(&self) -> impl Iterator<Item = u64> + '_ {
        self.line.iter().filter_map(|entry| match entry {
            Entry::Departed(generation) => Some(*generation),
            _ => None,
        })
    }

    pub(super) fn release(&mut self, id: u64) {
        self.line.push_back(Entry::Released(id));
    }
}

// === impl Entry ===

impl Entry {
    /// Whether nobody needs to hear it any more.
    fn is_void<D>(self, shelf: &Shelf<D>, generation: u64) -> bool {
        match self {
            Self::Handed(id) => shelf.tunnels.get(&id).is_none_or(|it| it.knows(generation)),
            Self::Frozen { id, .. } => {
                shelf.tunnels.get(&id).is_none_or(|it| !it.knows(generation))
            }
            Self::Released(_) | Self::HandedAll | Self::Departed(_) => false,
        }
    }
}

// === impl Books ===

impl<D> Books<D> {
    /// Lets `send` have a worker's next packet; what it said is noted only if it went.
    pub(in crate::vault) fn post<E>(
        &mut self,
        party: Party,
        send: impl FnOnce(VaultReply, &[&D]) -> Result<(), E>,
    ) -> Result<Posted, E> {
        let Some(attached) = self.parties.get_mut(&party) else { return Ok(Posted::Gone) };
        let none = Shelf::default();
        let shelf = self.shelves.get(&attached.place).unwrap_or(&none);
        let generation = attached.name.generation;
        while attached.outbox.line.front().is_some_and(|it| it.is_void(shelf, generation)) {
            attached.outbox.line.pop_front();
        }
        let Some(attached) = self.parties.get(&party) else { return Ok(Posted::Gone) };
        let place = attached.place;
        let lower = || {
            let here = self.parties.values().filter(|it| it.place == place);
            let present = here.map(|it| it.name.generation).filter(|it| *it < generation);
            // Whose departure stands behind in the line is there still, as far as this worker has heard.
            present.chain(attached.outbox.departures()).collect()
        };
        let tally = self.tallies.get(&attached.name.listener);
        let polls = || self.left_polls(place, generation);
        let packet =
            first(attached, shelf, tally, polls).or_else(|| next_in_line(attached, shelf, lower));
        let Some((message, fds, step)) = packet else { return Ok(Posted::Nothing) };
        send(message.into(), &fds)?;
        self.note(party, step);
        Ok(Posted::Sent)
    }

    fn note(&mut self, party: Party, step: Step) {
        let Some(Attached { outbox, place, name, .. }) = self.parties.get_mut(&party) else {
            return;
        };
        match step {
            Step::Answer => drop(outbox.answers.pop_front()),
            Step::Granted { polls } => {
                outbox.answers.pop_front();
                let (place, generation) = (*place, name.generation);
                self.pass_polls(place, &polls, generation);
            }
            Step::Successor(generation) => outbox.successor_told = generation,
            Step::Line { entries, handed } => {
                outbox.line.drain(..entries);
                outbox.window = outbox.window.saturating_sub(handed.len() as u64);
                let Some(shelf) = self.shelves.get_mut(place) else { return };
                for id in handed {
                    if let Some(tunnel) = shelf.tunnels.get_mut(&id) {
                        tunnel.handed.push(name.generation);
                    }
                }
            }
        }
    }
}

/// An answer, or who the successor is.
fn first<'a, D>(
    attached: &Attached,
    shelf: &'a Shelf<D>,
    tally: Option<&'a D>,
    left_polls: impl FnOnce() -> Vec<&'a KeptPoll<D>>,
) -> Option<Packet<'a, D>> {
    let outbox = &attached.outbox;
    let front = outbox.answers.front();
    let has_grant = !matches!(front, Some(Answer::Granted { .. }));
    if has_grant && outbox.successor != outbox.successor_told {
        let generation = outbox.successor;
        let reply = Reply::Successor(vault_reply::Successor { generation });
        return Some((reply, Vec::new(), Step::Successor(generation)));
    }
    let pick = |arena: bool, with_tally: bool| -> Vec<&'a D> {
        let arena = shelf.arena.as_ref().filter(|_| arena);
        arena.into_iter().chain(tally.filter(|_| with_tally)).collect()
    };
    let (reply, fds) = match front? {
        Answer::Granted { arena, tally: with_tally, polls } => {
            let (arena, with_tally) =
                (*arena && shelf.arena.is_some(), *with_tally && tally.is_some());
            let to_hand = outbox.line.iter().filter(|entry| matches!(entry, Entry::Handed(_)));
            let left = if *polls == Polls::KeepAndTake { left_polls() } else { Vec::new() };
            let named = |it: &&KeptPoll<D>| vault_reply::Poll {
                id: it.id,
                generations: it.holders.clone(),
            };
            let granted = vault_reply::Granted {
                arena,
                tally: with_tally,
                tunnels: to_hand.count() as u64,
                keeps_polls: *polls != Polls::None,
                polls: left.iter().map(named).collect(),
                ..vault_reply::Granted::default()
            };
            let mut fds = pick(arena, with_tally);
            fds.extend(left.iter().map(|poll| &poll.fd));
            let passed = left.iter().map(|poll| poll.id).collect();
            return Some((Reply::Granted(granted), fds, Step::Granted { polls: passed }));
        }
        Answer::Kept { arena, tally: with_tally } => {
            let (arena, with_tally) =
                (*arena && shelf.arena.is_some(), *with_tally && tally.is_some());
            (Reply::Kept(vault_reply::Kept { arena, tally: with_tally }), pick(arena, with_tally))
        }
        Answer::Stored { ids, refused, reason } => {
            let (ids, refused) = (ids.clone(), refused.clone());
            let reason = (*reason).to_owned();
            (Reply::Stored(vault_reply::Stored { ids, refused, reason }), Vec::new())
        }
        Answer::Adopted { ids } => {
            (Reply::Adopted(vault_reply::Adopted { ids: ids.clone() }), Vec::new())
        }
    };
    Some((reply, fds, Step::Answer))
}

/// The line's first entries of one kind.
fn next_in_line<'a, D>(
    attached: &Attached,
    shelf: &'a Shelf<D>,
    lower: impl FnOnce() -> Vec<u64>,
) -> Option<Packet<'a, D>> {
    let generation = attached.name.generation;
    let line = &attached.outbox.line;
    let first = *line.front()?;
    let like = |entry: Entry| match (first, entry) {
        (Entry::Frozen { from, .. }, Entry::Frozen { from: other, .. }) => from == other,
        (first, entry) => std::mem::discriminant(&first) == std::mem::discriminant(&entry),
    };
    let most = match first {
        Entry::Handed(_) => {
            MOST_TUNNELS.min(usize::try_from(attached.outbox.window).unwrap_or(MOST_TUNNELS))
        }
        Entry::HandedAll | Entry::Departed(_) => 1,
        Entry::Frozen { .. } | Entry::Released(_) => MOST_IDS,
    };
    let (mut entries, mut ids) = (0, Vec::new());
    for entry in line.iter().copied().take_while(|entry| like(*entry)) {
        let (Entry::Handed(id) | Entry::Frozen { id, .. } | Entry::Released(id)) = entry else {
            entries = 1;
            break;
        };
        let void = entry.is_void(shelf, generation)
            // Released and deposited again, so that it stands in the line twice.
            || (matches!(entry, Entry::Handed(_)) && ids.contains(&id));
        if !void {
            if ids.len() == most {
                break;
            }
            ids.push(id);
        }
        entries += 1;
    }
    if entries == 0 {
        return None;
    }
    let mut fds = Vec::new();
    let mut handed = Vec::new();
    let reply = match first {
        Entry::HandedAll => Reply::HandedAll(vault_reply::HandedAll { attached: lower() }),
        Entry::Departed(generation) => Reply::Departed(vault_reply::Departed { generation }),
        Entry::Frozen { from, .. } => {
            Reply::Frozen(vault_reply::Frozen { from_generation: from, ids })
        }
        Entry::Released(_) => Reply::Released(vault_reply::Released { ids }),
        Entry::Handed(_) => {
            let tunnels = ids.iter().filter_map(|id| Some((*id, shelf.tunnels.get(id)?)));
            let held = |(id, tunnel): (u64, &'a super::Tunnel<D>)| {
                fds.extend(&tunnel.legs);
                handed.push(id);
                Held { id, index: tunnel.index }
            };
            Reply::Handed(vault_reply::Handed { tunnels: tunnels.map(held).collect() })
        }
    };
    Some((reply, fds, Step::Line { entries, handed }))
}
