//! Epoll instances that workers keep here: with those, a tunnel that outlives its worker is watched all the time, and its
//! next worker need not watch it anew.
//!
//! Two living processes on one instance would take one another's news away. So it goes only to a worker that attaches for the
//! first time, while nobody is attached that may wait on it; and all who ever might are told along with it, since some may
//! have lost their channel and live. It is let go of once a later worker has its own here: nobody would ask for it then.

use holdfast_proto::vault::MOST_POLLS;

use super::{Books, Name, Party, Place};

/// One epoll instance.
#[derive(Debug)]
pub(super) struct KeptPoll<D> {
    /// Unique within a listener for ever.
    pub(super) id: u64,
    /// The generations that may wait on it: the one that kept it here, and whoever was granted it since.
    pub(super) holders: Vec<u64>,
    pub(super) fd: D,
}

impl<D> KeptPoll<D> {
    /// Whether that generation alone has it, and has said so.
    fn is_own(&self, generation: u64) -> bool {
        self.holders == [generation]
    }
}

impl<D> Books<D> {
    /// What to close; of thousands of registrations that takes a while.
    pub(in crate::vault) fn take_old_polls(&mut self) -> Vec<D> {
        std::mem::take(&mut self.old_polls)
    }

    /// A worker's own, instead of those that it had here.
    pub(super) fn keep_polls(&mut self, party: Party, ids: Vec<u64>, fds: Vec<D>) {
        let Some(attached) = self.parties.get(&party) else { return };
        let (Name { generation, .. }, place) = (attached.name, attached.place);
        if attached.estranged {
            return self.old_polls.extend(fds);
        }
        self.drop_polls(place, |poll| poll.is_own(generation) || ids.contains(&poll.id));
        if self.descriptors() + fds.len() > self.budget {
            return self.old_polls.extend(fds);
        }
        let shelf = self.shelves.entry(place).or_default();
        let kept = ids.into_iter().zip(fds);
        shelf.polls.extend(kept.map(|(id, fd)| KeptPoll { id, holders: vec![generation], fd }));
        self.tidy_polls(place);
    }

    /// Lets go of those that nobody will ask for: who may wait on them is gone, and a later worker has its own here.
    pub(super) fn tidy_polls(&mut self, place: Place) {
        let attached = self.attached_at(place);
        let polls = self.shelves.get(&place).into_iter().flat_map(|shelf| &shelf.polls);
        let own = polls.filter_map(|poll| attached.iter().find(|it| poll.is_own(**it)));
        let Some(latest) = own.copied().max() else { return };
        let is_past = |holder: &u64| *holder < latest && !attached.contains(holder);
        self.drop_polls(place, |poll| poll.holders.iter().all(is_past));
    }

    /// Those that a worker of that generation may go on with, if all their holders are dead: the latest, as many as fit into a
    /// packet.
    pub(super) fn left_polls(&self, place: Place, generation: u64) -> Vec<&KeptPoll<D>> {
        let attached = self.attached_at(place);
        let is_past = |holder: &u64| *holder < generation && !attached.contains(holder);
        let polls = self.shelves.get(&place).into_iter().flat_map(|shelf| &shelf.polls);
        let mut left: Vec<_> = polls.filter(|poll| poll.holders.iter().all(is_past)).collect();
        left.sort_by_key(|poll| std::cmp::Reverse(poll.holders.last().copied()));
        left.truncate(MOST_POLLS);
        left
    }

    /// That generation may wait on them from now on.
    pub(super) fn pass_polls(&mut self, place: Place, ids: &[u64], generation: u64) {
        let polls = self.shelves.get_mut(&place).into_iter().flat_map(|shelf| &mut shelf.polls);
        polls.filter(|poll| ids.contains(&poll.id)).for_each(|poll| poll.holders.push(generation));
    }

    fn attached_at(&self, place: Place) -> Vec<u64> {
        let here = self.parties.values().filter(|it| it.place == place);
        here.map(|it| it.name.generation).collect()
    }

    fn drop_polls(&mut self, place: Place, which: impl Fn(&KeptPoll<D>) -> bool) {
        let Some(shelf) = self.shelves.get_mut(&place) else { return };
        self.old_polls.extend(shelf.polls.extract_if(.., |poll| which(poll)).map(|poll| poll.fd));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use holdfast_proto::control::VaultReply;
    use holdfast_proto::control::vault_reply::Kind as Reply;
    use holdfast_proto::control::vault_request::{KeepPolls, Kind as Request};

    use proptest::prelude::*;

    use super::super::{Fault, Luggage};
    use super::*;

    fn attach(books: &mut Books<u64>, generation: u64, keeps_polls: bool) -> Party {
        attach_with(books, generation, keeps_polls, None)
    }

    fn attach_with(
        books: &mut Books<u64>,
        generation: u64,
        keeps_polls: bool,
        arena: Option<u64>,
    ) -> Party {
        let luggage = Luggage { version: 3, arena, tally: None, keeps_polls };
        books.attach(Name { listener: ([127, 0, 0, 1], 80).into(), generation }, luggage)
    }

    fn keep(books: &mut Books<u64>, party: Party, polls: &[(u64, u64)]) {
        let (ids, fds) = polls.iter().copied().unzip();
        books.hear(party, Request::KeepPolls(KeepPolls { ids }), fds).unwrap();
    }

    /// An instance's name, its holders, its descriptor.
    type Granted = (u64, Vec<u64>, u64);

    /// What a worker is granted, and whether it may keep some here.
    fn granted(books: &mut Books<u64>, party: Party) -> (Vec<Granted>, bool) {
        let mut granted = None;
        let send = |reply: VaultReply, fds: &[&u64]| {
            let Some(Reply::Granted(it)) = reply.kind else { panic!("{reply:?}") };
            let polls = it.polls.into_iter().zip(fds);
            let polls = polls.map(|(it, fd)| (it.id, it.generations, **fd));
            granted = Some((polls.collect(), it.keeps_polls));
            Ok::<(), ()>(())
        };
        books.post(party, send).unwrap();
        granted.unwrap()
    }

    fn books() -> Books<u64> {
        let mut books = Books::default();
        books.set_budget(50);
        books
    }

    #[test]
    fn the_next_worker_gets_what_one_has_left_that_is_gone() {
        let mut books = books();
        let first = attach(&mut books, 1, true);
        assert_eq!(granted(&mut books, first), (vec![], true));
        keep(&mut books, first, &[(11, 101), (12, 102)]);
        // As long as it is here, they are its own.
        let second = attach(&mut books, 2, true);
        assert_eq!(granted(&mut books, second).0, []);
        books.detach(second);
        books.detach(first);
        let third = attach(&mut books, 3, true);
        assert_eq!(granted(&mut books, third).0, [(11, vec![1], 101), (12, vec![1], 102)]);
        // Now the third one may wait on them: nobody else gets them, and whoever comes after it learns of both.
        let fourth = attach(&mut books, 4, true);
        assert_eq!(granted(&mut books, fourth).0, []);
        books.detach(third);
        let fifth = attach(&mut books, 5, true);
        assert_eq!(granted(&mut books, fifth).0, [(11, vec![1, 3], 101), (12, vec![1, 3], 102)]);
        assert!(books.take_old_polls().is_empty());
    }

    #[test]
    fn a_grant_that_did_not_go_passes_nothing_on() {
        let mut books = books();
        let first = attach(&mut books, 1, true);
        keep(&mut books, first, &[(11, 101)]);
        books.detach(first);
        let second = attach(&mut books, 2, true);
        assert_eq!(books.post(second, |_, _| Err(())), Err(()));
        books.detach(second);
        let third = attach(&mut books, 3, true);
        assert_eq!(granted(&mut books, third).0, [(11, vec![1], 101)]);
    }

    #[test]
    fn they_are_let_go_of_once_a_later_worker_has_its_own_and_theirs_is_gone() {
        let mut books = books();
        let first = attach(&mut books, 1, true);
        keep(&mut books, first, &[(11, 101)]);
        // Said again, by another descriptor: the earlier one is of no use.
        keep(&mut books, first, &[(11, 111)]);
        assert_eq!(books.take_old_polls(), [101]);
        let second = attach(&mut books, 2, true);
        keep(&mut books, second, &[(21, 201)]);
        assert!(books.take_old_polls().is_empty());
        books.detach(first);
        assert_eq!(books.take_old_polls(), [111]);
        // The other way round.
        books.detach(second);
        let third = attach(&mut books, 3, true);
        assert_eq!(granted(&mut books, third).0, [(21, vec![2], 201)]);
        books.detach(third);
        let fourth = attach(&mut books, 4, true);
        keep(&mut books, fourth, &[(41, 401)]);
        assert_eq!(books.take_old_polls(), [201]);
        books.forget(([127, 0, 0, 1], 80).into());
        assert_eq!(books.take_old_polls(), [401]);
    }

    #[test]
    fn one_that_does_not_ask_for_them_gets_none_and_they_wait() {
        let mut books = books();
        let first = attach(&mut books, 1, true);
        keep(&mut books, first, &[(11, 101)]);
        books.detach(first);
        let second = attach(&mut books, 2, false);
        assert_eq!(granted(&mut books, second), (vec![], false));
        books.detach(second);
        let third = attach(&mut books, 3, true);
        assert_eq!(granted(&mut books, third).0, [(11, vec![1], 101)]);
    }

    #[test]
    fn they_count_and_none_is_kept_for_which_there_is_no_room() {
        let mut books = books();
        let first = attach(&mut books, 1, true);
        let left = books.holdings().descriptors_left;
        keep(&mut books, first, &[(11, 101), (12, 102)]);
        assert_eq!(books.holdings().descriptors_left, left - 2);
        // What is replaced makes room.
        books.set_budget(3);
        keep(&mut books, first, &[(13, 103), (14, 104)]);
        assert_eq!(books.take_old_polls(), [101, 102]);
        books.set_budget(2);
        keep(&mut books, first, &[(15, 105), (16, 106)]);
        assert_eq!(books.take_old_polls(), [103, 104, 105, 106]);
        // They did not fit into this process.
        keep(&mut books, first, &[]);
        let said = Request::KeepPolls(KeepPolls { ids: vec![17] });
        assert_eq!(books.hear(first, said.clone(), Vec::new()), Ok(()));
        let wrong = Fault::Manifest { announced: 1, came: 2 };
        assert_eq!(books.hear(first, said, vec![107, 108]), Err(wrong));
    }

    #[test]
    fn one_that_has_kept_them_since_is_their_only_holder() {
        let mut books = books();
        let first = attach(&mut books, 1, true);
        keep(&mut books, first, &[(11, 101)]);
        books.detach(first);
        let second = attach(&mut books, 2, true);
        assert_eq!(granted(&mut books, second).0.len(), 1);
        // It goes on with it, and has another thread.
        keep(&mut books, second, &[(11, 102), (22, 202)]);
        assert_eq!(books.take_old_polls(), [101]);
        books.detach(second);
        let third = attach(&mut books, 3, true);
        assert_eq!(granted(&mut books, third).0, [(11, vec![2], 102), (22, vec![2], 202)]);
    }

    #[test]
    fn a_grant_brings_no_more_than_fit_into_a_packet_and_the_latest_first() {
        let mut books = books();
        books.set_budget(10_000);
        let workers: Vec<_> =
            (1..=9).map(|generation| attach(&mut books, generation, true)).collect();
        for (generation, party) in (1..).zip(&workers) {
            let polls: Vec<_> = (0..32).map(|thread| (100 * generation + thread, 1)).collect();
            keep(&mut books, *party, &polls);
        }
        // The highest first, so that each has its own here while the others are attached.
        workers.into_iter().rev().for_each(|party| books.detach(party));
        let heir = attach(&mut books, 10, true);
        let granted = granted(&mut books, heir).0;
        assert_eq!(granted.len(), MOST_POLLS);
        assert!(granted[..224].iter().all(|(_, holders, _)| holders[0] > 2));
    }

    /// What happens to one of the workers.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        /// Another one is born; where it does not enrol, it is killed before anybody could know its process.
        Start {
            enrols: bool,
        },
        LoseLine,
        Redial,
        Keep,
        Die,
        Budget(usize),
    }

    struct Worker {
        generation: u64,
        lives: bool,
        enrolled: bool,
        party: Option<Party>,
        waits_on: Vec<u64>,
    }

    fn event() -> impl Strategy<Value = (usize, Event)> {
        let event = prop_oneof![
            3 => any::<bool>().prop_map(|enrols| Event::Start { enrols }),
            2 => Just(Event::LoseLine),
            3 => Just(Event::Redial),
            3 => Just(Event::Keep),
            3 => Just(Event::Die),
            1 => prop_oneof![Just(1_usize), Just(50)].prop_map(Event::Budget),
        ];
        (0..8_usize, event)
    }

    fn start(books: &mut Books<u64>, workers: &mut Vec<Worker>, enrols: bool) {
        let generation = workers.len() as u64 + 1;
        let party = attach(books, generation, true);
        let granted = granted(books, party).0;
        let is_gone = |holder: &u64| {
            workers.iter().any(|it| it.generation == *holder && it.enrolled && !it.lives)
        };
        let taken = granted.into_iter().filter(|(_, holders, _)| holders.iter().all(is_gone));
        let mut waits_on: Vec<u64> = taken.map(|(id, ..)| id).take(2).collect();
        waits_on.extend((waits_on.len()..2).map(|thread| 10 * generation + thread as u64));
        if enrols {
            workers.push(Worker {
                generation,
                lives: true,
                enrolled: true,
                party: Some(party),
                waits_on,
            });
        } else {
            books.detach(party);
            let waits_on = Vec::new();
            workers.push(Worker {
                generation,
                lives: false,
                enrolled: false,
                party: None,
                waits_on,
            });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_two_living_workers_ever_wait_on_one(events in proptest::collection::vec(event(), 0..60)) {
            let (mut books, mut workers) = (books(), Vec::new());
            for (which, event) in events {
                if let Event::Start { enrols } = event {
                    start(&mut books, &mut workers, enrols);
                }
                let mut living: Vec<_> = workers.iter_mut().filter(|it| it.lives).collect();
                let which = which % living.len().max(1);
                if let Some(worker) = living.get_mut(which) {
                    match event {
                        Event::Start { .. } => {}
                        Event::LoseLine => worker.party.take().into_iter().for_each(|it| books.detach(it)),
                        Event::Redial => {
                            let party = attach_with(&mut books, worker.generation, true, Some(9));
                            prop_assert_eq!(granted(&mut books, party).0, vec![]);
                            worker.party = Some(party);
                        }
                        Event::Keep => {
                            let polls: Vec<_> = worker.waits_on.iter().map(|id| (*id, *id)).collect();
                            worker.party.into_iter().for_each(|it| keep(&mut books, it, &polls));
                        }
                        Event::Die => {
                            worker.lives = false;
                            worker.party.take().into_iter().for_each(|it| books.detach(it));
                        }
                        Event::Budget(budget) => books.set_budget(budget),
                    }
                }
                let waiting = workers.iter().filter(|it| it.lives).flat_map(|it| &it.waits_on);
                let mut waiting: Vec<_> = waiting.collect();
                let count = waiting.len();
                waiting.sort_unstable();
                waiting.dedup();
                prop_assert_eq!(waiting.len(), count);
            }
        }
    }
}
