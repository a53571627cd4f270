//! Epoll instances that workers keep here: with those, a tunnel that outlives its worker is watched all the time, and its
//! next worker need not watch it anew.
//!
//! An instance belongs to the worker that had it last. It goes to one that attaches when that one is not attached any more,
//! and is let go of once a later worker has its own here: nobody would ask for it then.

use super::{Books, Name, Party, Place};

/// One epoll instance.
#[derive(Debug)]
pub(super) struct Poll<D> {
    /// Unique within a listener for ever.
    pub(super) id: u64,
    /// The generation that had it last.
    pub(super) holder: u64,
    pub(super) fd: D,
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
        let has_room = self.descriptors() + fds.len() <= self.budget;
        if attached.estranged || !has_room {
            return self.old_polls.extend(fds);
        }
        self.drop_polls(place, |poll| poll.holder == generation);
        let shelf = self.shelves.entry(place).or_default();
        let kept = ids.into_iter().zip(fds);
        shelf.polls.extend(kept.map(|(id, fd)| Poll { id, holder: generation, fd }));
        self.tidy_polls(place);
    }

    /// Those that nobody will ask for: their worker is gone, and a later one has its own here.
    pub(super) fn tidy_polls(&mut self, place: Place) {
        let attached = self.attached_at(place);
        let has_own = |generation: &u64| {
            let polls = self.shelves.get(&place).into_iter().flat_map(|shelf| &shelf.polls);
            polls.into_iter().any(|poll| poll.holder == *generation)
        };
        let Some(latest) = attached.iter().copied().filter(has_own).max() else { return };
        self.drop_polls(place, |poll| poll.holder < latest && !attached.contains(&poll.holder));
    }

    /// Those that a worker of that generation may go on with.
    pub(super) fn left_polls(&self, place: Place, generation: u64) -> Vec<&Poll<D>> {
        let attached = self.attached_at(place);
        let polls = self.shelves.get(&place).into_iter().flat_map(|shelf| &shelf.polls);
        polls.filter(|it| it.holder < generation && !attached.contains(&it.holder)).collect()
    }

    /// They are that generation's now.
    pub(super) fn pass_polls(&mut self, place: Place, ids: &[u64], generation: u64) {
        let polls = self.shelves.get_mut(&place).into_iter().flat_map(|shelf| &mut shelf.polls);
        polls.filter(|poll| ids.contains(&poll.id)).for_each(|poll| poll.holder = generation);
    }

    fn attached_at(&self, place: Place) -> Vec<u64> {
        let here = self.parties.values().filter(|it| it.place == place);
        here.map(|it| it.name.generation).collect()
    }

    fn drop_polls(&mut self, place: Place, which: impl Fn(&Poll<D>) -> bool) {
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

    use super::super::{Fault, Luggage};
    use super::*;

    fn attach(books: &mut Books<u64>, generation: u64, takes_polls: bool) -> Party {
        let luggage = Luggage { version: 3, arena: Some(9), tally: None, takes_polls };
        books.attach(Name { listener: ([127, 0, 0, 1], 80).into(), generation }, luggage)
    }

    fn keep(books: &mut Books<u64>, party: Party, polls: &[(u64, u64)]) {
        let (ids, fds) = polls.iter().copied().unzip();
        books.hear(party, Request::KeepPolls(KeepPolls { ids }), fds).unwrap();
    }

    /// What a worker is granted: each instance's name, holder and descriptor, and whether it may keep some here.
    fn granted(books: &mut Books<u64>, party: Party) -> (Vec<(u64, u64, u64)>, bool) {
        let mut granted = None;
        let send = |reply: VaultReply, fds: &[&u64]| {
            let Some(Reply::Granted(it)) = reply.kind else { panic!("{reply:?}") };
            let polls = it.polls.iter().zip(fds).map(|(it, fd)| (it.id, it.generation, **fd));
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
        assert_eq!(granted(&mut books, third).0, [(11, 1, 101), (12, 1, 102)]);
        // Now they are the third one's: nobody else gets them, and whoever comes after it learns who had them.
        let fourth = attach(&mut books, 4, true);
        assert_eq!(granted(&mut books, fourth).0, []);
        books.detach(third);
        let fifth = attach(&mut books, 5, true);
        assert_eq!(granted(&mut books, fifth).0, [(11, 3, 101), (12, 3, 102)]);
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
        assert_eq!(granted(&mut books, third).0, [(11, 1, 101)]);
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
        assert_eq!(granted(&mut books, third).0, [(21, 2, 201)]);
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
        assert_eq!(granted(&mut books, third).0, [(11, 1, 101)]);
    }

    #[test]
    fn they_count_and_none_is_kept_for_which_there_is_no_room() {
        let mut books = books();
        let first = attach(&mut books, 1, true);
        let left = books.holdings().descriptors_left;
        keep(&mut books, first, &[(11, 101), (12, 102)]);
        assert_eq!(books.holdings().descriptors_left, left - 2);
        books.set_budget(3);
        keep(&mut books, first, &[(13, 103)]);
        assert_eq!(books.take_old_polls(), [103]);
        // They did not fit into this process.
        keep(&mut books, first, &[]);
        let said = Request::KeepPolls(KeepPolls { ids: vec![14] });
        assert_eq!(books.hear(first, said.clone(), Vec::new()), Ok(()));
        let wrong = Fault::Manifest { announced: 1, came: 2 };
        assert_eq!(books.hear(first, said, vec![104, 105]), Err(wrong));
    }
}
