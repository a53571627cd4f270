//! The store, with a shelf for a manager: what is there after each pass, and in which order it was asked for.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::page::tests::tunnel;
use super::super::page::unpack;
use super::*;

/// Keeps descriptors, as many as it has room for.
#[derive(Debug)]
struct Shelf {
    kept: BTreeMap<String, OwnedFd>,
    room: usize,
    noted: BTreeSet<String>,
    /// In order.
    asked: Vec<String>,
}

impl Shop for Shelf {
    fn put(&mut self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        assert!(self.noted.contains(name), "{name} was put there before it was noted");
        self.asked.push(format!("put {name}"));
        if self.kept.len() < self.room {
            self.kept.insert(name.to_owned(), fd.try_clone_to_owned()?);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.kept.remove(name);
        self.asked.push(format!("remove {name}"));
        Ok(())
    }

    fn note(&mut self, names: &BTreeSet<String>) {
        self.noted.clone_from(names);
    }
}

fn store(old: &[&str], most: usize) -> Store<Shelf> {
    let shelf = Shelf {
        kept: BTreeMap::new(),
        room: usize::MAX,
        noted: BTreeSet::new(),
        asked: Vec::new(),
    };
    Store::new(shelf, [], old.iter().map(|it| (*it).to_owned()), most)
}

fn wanted(ids: impl IntoIterator<Item = u64>) -> Wanted {
    let tunnels = ids.into_iter().map(|id| tunnel(id).key).collect();
    Wanted { single: Vec::new(), tunnels, is_all: true }
}

fn copies(keys: &[Key]) -> Vec<KeptTunnel<OwnedFd>> {
    keys.iter().map(|key| tunnel(key.id)).collect()
}

/// What the next process would find. The store itself has nothing left then.
fn found(store: Store<Shelf>) -> BTreeSet<u64> {
    let pages = store.shop.kept.into_iter().filter(|(name, _)| name.starts_with("tunnels-"));
    pages.flat_map(|(_, page)| unpack(&page).0).map(|it| it.key.id).collect()
}

#[test]
fn everything_that_is_held_is_kept_in_few_descriptors() {
    let mut store = store(&[], usize::MAX);
    assert_eq!(store.pass(&wanted(0..1000), copies).unwrap(), Pass::Done);
    assert_eq!(store.shop.kept.len(), 1000_usize.div_ceil(MOST));
    // Those that open later go where there is room.
    assert_eq!(store.pass(&wanted(0..1010), copies).unwrap(), Pass::Done);
    assert_eq!(store.shop.kept.len(), 1010_usize.div_ceil(MOST));
    assert_eq!(found(store), (0..1010).collect());
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_given_up_and_the_rest_moves() {
    let mut store = store(&[], usize::MAX);
    let (all, most) = (4 * MOST as u64, MOST as u64);
    store.pass(&wanted(0..all), copies).unwrap();
    // Nearly all of the first page has ended, some of the second, none of the third.
    let left: Vec<u64> = (most - 3..most + 5).chain(most + 15..all).collect();
    assert_eq!(store.pass(&wanted(left.iter().copied()), copies).unwrap(), Pass::Done);
    assert!(!store.shop.kept.contains_key("tunnels-0"));
    assert!(store.shop.kept.contains_key("tunnels-1"));
    tokio::time::advance(STALE).await;
    store.pass(&wanted(left.iter().copied()), copies).unwrap();
    assert!(!store.shop.kept.contains_key("tunnels-1"));
    assert!(store.shop.kept.contains_key("tunnels-2"));
    assert_eq!(found(store), left.into_iter().collect());
}

#[test]
fn a_tunnel_that_ends_while_it_is_copied_is_not_missed() {
    let mut store = store(&[], usize::MAX);
    let outcome = store.pass(&wanted(0..10), |keys| copies(&keys[1..])).unwrap();
    assert_eq!(outcome, Pass::Done);
    assert_eq!(store.pass(&wanted(1..10), copies).unwrap(), Pass::Done);
    assert_eq!(found(store), (1..10).collect());
}

#[test]
fn nothing_at_all_is_left_of_the_last_tunnel() {
    let mut store = store(&[], usize::MAX);
    store.pass(&wanted(0..3), copies).unwrap();
    assert_eq!(store.pass(&wanted([]), copies).unwrap(), Pass::Done);
    assert!(store.shop.kept.is_empty() && store.place.is_empty() && store.pages.is_empty());
    assert_eq!(store.pass(&wanted([7]), copies).unwrap(), Pass::Done);
    assert_eq!(found(store), BTreeSet::from([7]));
}

#[test]
fn what_an_earlier_process_kept_goes_when_everything_is_kept_anew() {
    let mut store = store(&["tunnels-4", "tally-127.0.0.1_80"], 5);
    for name in ["tunnels-4", "tally-127.0.0.1_80"] {
        store.shop.kept.insert(name.to_owned(), std::io::pipe().unwrap().0.into());
    }
    // Not all of them have room: what is there already may be all that there is.
    assert_eq!(store.pass(&wanted(0..6), copies).unwrap(), Pass::Full(1));
    assert!(store.shop.kept.contains_key("tunnels-4"));
    // Nor are they all yet, as long as workers may come.
    let so_far = Wanted { is_all: false, ..wanted(0..5) };
    assert_eq!(store.pass(&so_far, copies).unwrap(), Pass::Done);
    assert!(store.shop.kept.contains_key("tunnels-4"));
    assert_eq!(store.pass(&wanted(0..5), copies).unwrap(), Pass::Done);
    assert_eq!(store.shop.kept.keys().collect::<Vec<_>>(), ["tunnels-5"]);
    assert_eq!(store.shop.noted, BTreeSet::from(["tunnels-5".to_owned()]));
}

#[test]
fn pages_that_came_back_make_room_for_those_that_take_their_place() {
    let shelf = Shelf { kept: BTreeMap::new(), room: 2, noted: BTreeSet::new(), asked: Vec::new() };
    let passed = ["tunnels-8".to_owned(), "tunnels-9".to_owned()];
    let mut store = Store::new(shelf, passed.clone(), passed.clone(), usize::MAX);
    for name in passed {
        store.shop.kept.insert(name, std::io::pipe().unwrap().0.into());
    }
    // Workers may still come, so that this is not all yet.
    let so_far = Wanted { is_all: false, ..wanted(0..200) };
    assert_eq!(store.pass(&so_far, copies).unwrap(), Pass::Done);
    assert_eq!(store.pass(&so_far, copies).unwrap(), Pass::Done);
    assert_eq!(store.shop.kept.keys().collect::<Vec<_>>(), ["tunnels-10", "tunnels-11"]);
    assert_eq!(found(store), (0..200).collect());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_moved_stays_where_it_is() {
    let mut store = store(&[], usize::MAX);
    store.pass(&wanted(0..4), copies).unwrap();
    store.pass(&wanted(0..3), copies).unwrap();
    tokio::time::advance(STALE).await;
    // No descriptor is free for a duplicate.
    store.pass(&wanted(0..3), |_| Vec::new()).unwrap();
    assert!(store.shop.kept.contains_key("tunnels-0"));
    store.pass(&wanted(0..3), copies).unwrap();
    assert!(!store.shop.kept.contains_key("tunnels-0"));
    assert_eq!(found(store), (0..3).collect());
}

#[tokio::test(start_paused = true)]
async fn those_that_are_kept_already_are_not_given_up_for_others() {
    let mut store = store(&[], 4);
    store.pass(&wanted(4..8), copies).unwrap();
    assert_eq!(store.pass(&wanted(0..7), copies).unwrap(), Pass::Full(3));
    tokio::time::advance(STALE).await;
    assert_eq!(store.pass(&wanted(0..7), copies).unwrap(), Pass::Full(3));
    assert!(found(store).is_superset(&(4..7).collect()));
}

#[test]
fn what_is_not_kept_is_noticed_and_tried_again_later() {
    let mut store = store(&[], usize::MAX);
    store.shop.room = 0;
    store.pass(&wanted(0..3), copies).unwrap();
    assert_eq!(store.pass(&wanted(0..3), copies).unwrap(), Pass::Refused);
    store.shop.room = 9;
    assert_eq!(store.pass(&wanted(0..3), copies).unwrap(), Pass::Done);
    assert_eq!(found(store), (0..3).collect());
}

#[test]
fn another_file_under_a_name_replaces_the_one_that_was_kept() {
    let mut store = store(&[], usize::MAX);
    let listener = "127.0.0.1:80".parse().unwrap();
    let name = Name::Arena { listener, version: 1 };
    let arena = || -> OwnedFd { std::io::pipe().unwrap().0.into() };
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    for _ in 0..2 {
        let arena = arena();
        let want = |fd: &OwnedFd| Wanted {
            single: vec![(name, fd.try_clone().unwrap())],
            tunnels: BTreeSet::new(),
            is_all: true,
        };
        store.pass(&want(&arena), copies).unwrap();
        store.pass(&want(&arena), copies).unwrap();
        assert_eq!(inode(&store.shop.kept[&name.to_string()]), inode(&arena));
    }
    store.pass(&wanted([]), copies).unwrap();
    assert!(store.shop.kept.is_empty());
}

#[test]
fn the_file_that_is_held_is_kept_rather_than_an_earlier_one_of_that_name() {
    let name = Name::Tally("127.0.0.1:80".parse().unwrap());
    let mut store = store(&[&name.to_string()], usize::MAX);
    let held: OwnedFd = std::io::pipe().unwrap().0.into();
    let want = || Wanted {
        single: vec![(name, held.try_clone().unwrap())],
        tunnels: BTreeSet::new(),
        is_all: true,
    };
    // A manager keeps both under one name, and throws both away.
    store.pass(&want(), copies).unwrap();
    assert_eq!(
        store.shop.asked,
        [format!("put {name}"), format!("remove {name}"), format!("put {name}")]
    );
    store.pass(&want(), copies).unwrap();
    assert_eq!(store.shop.asked.len(), 3);
}

#[test]
fn an_orderly_end_leaves_nothing() {
    let mut store = store(&["tunnels-1"], usize::MAX);
    store.pass(&wanted(0..3), copies).unwrap();
    store.shop.kept.insert("tunnels-1".to_owned(), std::io::pipe().unwrap().0.into());
    store.old.insert("tunnels-1".to_owned());
    store.clear().unwrap();
    assert!(store.shop.kept.is_empty() && store.shop.noted.is_empty());
}
