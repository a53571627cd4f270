//! Epoll instances that outlive their process: a successor goes on with them, misses nothing, and takes none from the living.

use std::os::fd::OwnedFd;

use holdfast_proto::bootstrap::Death;
use holdfast_proto::process::ProcessId;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::*;
use crate::tunnel::arena::Arena;

/// The generation of the process that is gone.
const GONE: u64 = 1;

/// What a vault has of a process that is gone, but for its tunnels.
struct Estate {
    arena: OwnedFd,
    tally: OwnedFd,
    /// Its epoll instances, each with its name.
    polls: Vec<(u64, OwnedFd)>,
}

/// A tunnel of it, and those who talk through it.
struct Heirloom {
    handed: Handed,
    client: (OwnedReadHalf, OwnedWriteHalf),
    backend: (OwnedReadHalf, OwnedWriteHalf),
}

impl Estate {
    /// A worker with so many threads opens so many tunnels, which the vault holds, and ends without a word.
    async fn of(threads: usize, tunnels: usize) -> (Self, Vec<Heirloom>) {
        let shared = Shared::take_up(None, None).unwrap();
        let [arena, tally] = shared.fds().map(|fd| fd.try_clone_to_owned().unwrap());
        let old = shared.start(threads, GONE).unwrap();
        old.attach();
        let mut heirlooms = Vec::new();
        for _ in 0..tunnels {
            heirlooms.push(Heirloom::open(&old).await);
        }
        let (ids, fds) = old.polls();
        let fds = fds.into_iter().map(|fd| fd.try_clone_to_owned().unwrap());
        let polls = ids.into_iter().zip(fds).collect();
        drop(old);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        child.wait().unwrap();
        // What was this process until now is another one.
        let book = Arena::open(arena.try_clone().unwrap()).unwrap();
        book.leave(GONE);
        assert!(book.enrol(GONE, process));
        (Self { arena, tally, polls }, heirlooms)
    }

    fn heir(&self, threads: usize, holders: &[u64]) -> Arc<Tunnels> {
        let [arena, tally] = [&self.arena, &self.tally].map(|fd| Some(fd.try_clone().unwrap()));
        let left = self
            .polls
            .iter()
            .map(|(id, fd)| LeftPoll::new(*id, holders.to_vec(), fd.try_clone().unwrap()));
        let shared = Shared::take_up(arena, tally).unwrap().with_polls(left.collect());
        let heir = shared.start(threads, 2).unwrap();
        heir.attach();
        heir
    }

    fn names(&self) -> Vec<u64> {
        self.polls.iter().map(|(id, _)| *id).collect()
    }

    /// As if the dead process had been told what there is to tell of legs, and had done nothing. Answers how much that was.
    fn lose_news(&self) -> usize {
        let told = self.polls.iter().map(|(_, fd)| {
            let mut events = Vec::with_capacity(64);
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(fd, rustix::buffer::spare_capacity(&mut events), Some(&at_once)).unwrap();
            // What wakes a thread has the highest tokens.
            events.iter().filter(|event| event.data.u64() < u64::MAX - 1).count()
        });
        told.sum()
    }
}

impl Heirloom {
    async fn open(old: &Tunnels) -> Self {
        let (client, client_leg) = tcp_pair().await;
        let (backend_leg, backend) = tcp_pair().await;
        let legs = (plain(client_leg), plain(backend_leg));
        let opening = old.open(legs.0, legs.1, Preludes::default(), facts(Duration::ZERO));
        let storing = async {
            old.rung().await;
            let deposit = old.pending(1).deposits.pop().unwrap();
            let [client, backend] = deposit.sockets().map(|fd| fd.try_clone_to_owned().unwrap());
            let handed = Handed::new(deposit.id(), deposit.index(), client, backend);
            deposit.answer(true);
            handed
        };
        let (opened, handed) = patient(async { tokio::join!(opening, storing) }).await;
        opened.unwrap();
        let mut heirloom =
            Self { handed, client: client.into_split(), backend: backend.into_split() };
        // From here on it waits for news.
        heirloom.carries(b"hello").await;
        heirloom
    }

    async fn carries(&mut self, bytes: &[u8]) {
        let ways =
            [(&mut self.client.1, &mut self.backend.0), (&mut self.backend.1, &mut self.client.0)];
        for (to, from) in ways {
            to.write_all(bytes).await.unwrap();
            arrives(from, bytes).await;
        }
    }
}

async fn arrives(from: &mut OwnedReadHalf, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    patient(from.read_exact(&mut got)).await.unwrap();
    assert!(got == bytes);
}

fn duplicate(handed: &Handed) -> Handed {
    let [client, backend] = [&handed.client, &handed.backend].map(|fd| fd.try_clone().unwrap());
    Handed::new(handed.id, handed.index, client, backend)
}

fn take(heir: &Tunnels, handed: Vec<Handed>) -> usize {
    assert_eq!(heir.hand_in(handed).owners, [GONE]);
    heir.take_from_dead(Death { generation: GONE, by_itself: false, at_us: 0 }).len()
}

#[tokio::test]
async fn what_a_dead_process_watched_is_watched_on_and_nothing_is_missed() {
    let (estate, heirlooms) = Estate::of(1, 3).await;
    let (mut handed, mut talkers) = (Vec::new(), Vec::new());
    for Heirloom { handed: one, client, backend } in heirlooms {
        handed.push(one);
        talkers.push((client, backend));
    }
    // Of the first one, the dead process has been told; of the second one, nobody.
    talkers[0].0.1.write_all(b"told").await.unwrap();
    while estate.lose_news() == 0 {
        tokio::task::yield_now().await;
    }
    talkers[1].1.1.write_all(b"untold").await.unwrap();
    let heir = estate.heir(1, &[GONE]);
    assert_eq!(heir.polls().0, estate.names());
    assert_eq!(take(&heir, handed), 3);
    arrives(&mut talkers[0].1.0, b"told").await;
    arrives(&mut talkers[1].0.0, b"untold").await;
    // More than any queue takes, so that room is waited for; and an end.
    let bulk = noise(8, 9_000_000);
    for (client, backend) in &mut talkers {
        for (to, from) in [(&mut client.1, &mut backend.0), (&mut backend.1, &mut client.0)] {
            let (sent, ()) = tokio::join!(to.write_all(&bulk), arrives(from, &bulk));
            sent.unwrap();
            to.shutdown().await.unwrap();
            assert_eq!(patient(from.read(&mut [0])).await.unwrap(), 0);
        }
    }
    patient(heir.emptied()).await;
    assert_eq!((heir.totals().closed_by(Cause::Client), heir.totals().lost), (3, 0));
}

#[tokio::test]
async fn another_tunnel_of_a_record_hears_nothing_of_the_one_before() {
    let (estate, heirlooms) = Estate::of(1, 1).await;
    let heir = estate.heir(1, &[GONE]);
    for Heirloom { handed, client, backend } in heirlooms {
        // The vault has not let go of it yet.
        let kept = [&handed.client, &handed.backend].map(|fd| fd.try_clone().unwrap());
        let index = handed.index;
        assert_eq!(take(&heir, vec![handed]), 1);
        heir.close(&[heir.list()[0].id], Cause::Admin);
        patient(heir.emptied()).await;
        let mut next = Heirloom::open(&heir).await;
        assert_eq!(next.handed.index, index);
        // Both ends of the former one reset: that is news where it is still watched.
        super::ends::abort(client.0.reunite(client.1).unwrap());
        super::ends::abort(backend.0.reunite(backend.1).unwrap());
        let resets = EventFlags::HUP | EventFlags::ERR;
        while crate::tunnel::poll::ready(&kept.each_ref().map(std::os::fd::AsFd::as_fd))
            .unwrap()
            .iter()
            .any(|flags| !flags.intersects(resets))
        {
            tokio::task::yield_now().await;
        }
        next.carries(b"unharmed").await;
        assert_eq!(heir.active(), 1);
    }
}

#[tokio::test]
async fn what_a_living_or_unknown_process_watches_by_is_left_to_it() {
    let (estate, heirlooms) = Estate::of(1, 1).await;
    // Generation 3 is this process, and nobody has heard of 4.
    let arena = Arena::open(estate.arena.try_clone().unwrap()).unwrap();
    assert!(arena.enrol(3, ProcessId::me().unwrap()));
    for holders in [[3, 3], [4, 4], [3, GONE], [GONE, 3], [GONE, 4]] {
        let heir = estate.heir(1, &holders);
        assert_ne!(heir.polls().0, estate.names());
        drop(heir);
    }
    // They are watched anew then.
    let heir = estate.heir(1, &[4]);
    for mut heirloom in heirlooms {
        let Heirloom { handed, .. } = &mut heirloom;
        let (id, index) = (handed.id, handed.index);
        let [client, backend] = [&handed.client, &handed.backend].map(|fd| fd.try_clone().unwrap());
        assert_eq!(take(&heir, vec![Handed::new(id, index, client, backend)]), 1);
        heirloom.carries(b"on").await;
    }
}

#[tokio::test]
async fn with_fewer_threads_what_no_thread_goes_on_with_is_watched_anew() {
    for threads in [1, 3] {
        let (estate, mut heirlooms) = Estate::of(2, 5).await;
        let heir = estate.heir(threads, &[GONE]);
        let (names, left) = (heir.polls().0, estate.names());
        let gone_on_with = names.iter().filter(|name| left.contains(name)).count();
        assert_eq!((names.len(), gone_on_with), (threads, threads.min(2)));
        // The one that watches more of them.
        assert!(names.contains(&left[0]));
        let handed = heirlooms.iter().map(|it| duplicate(&it.handed)).collect();
        assert_eq!(take(&heir, handed), 5);
        for heirloom in &mut heirlooms {
            heirloom.carries(b"on").await;
        }
    }
}

#[tokio::test]
async fn who_has_handed_all_over_hears_no_more_of_what_a_dead_process_watched() {
    let (estate, heirlooms) = Estate::of(1, 2).await;
    let heir = estate.heir(1, &[GONE]);
    let duplicates = heirlooms.iter().map(|it| duplicate(&it.handed)).collect();
    let (mut handed, mut talkers) = (Vec::new(), Vec::new());
    for Heirloom { handed: one, client, backend } in heirlooms {
        // By a number that the dead process did not have: so the heir cannot take it out.
        handed.push(one);
        talkers.push((client, backend));
    }
    assert_eq!(take(&heir, handed), 2);
    let [arena, tally] = [&estate.arena, &estate.tally].map(|fd| Some(fd.try_clone().unwrap()));
    let third = Shared::take_up(arena, tally).unwrap().start(1, 3).unwrap();
    third.attach();
    third.hand_in(duplicates);
    let frozen = heir.freeze(10).await;
    assert_eq!(third.take_frozen(&frozen).len(), 2);
    heir.forget(&frozen);
    patient(heir.emptied()).await;
    for (client, backend) in &mut talkers {
        client.1.write_all(b"last").await.unwrap();
        client.1.shutdown().await.unwrap();
        arrives(&mut backend.0, b"last").await;
        assert_eq!(patient(backend.0.read(&mut [0])).await.unwrap(), 0);
    }
    // An end is news for as long as its socket lives. Whoever waits there has taken it away.
    assert_eq!(estate.lose_news(), 2);
    // And new ones are served as ever.
    Heirloom::open(&heir).await.carries(b"another").await;
}
