//! Arenas that several processes share, and arenas in which anything may stand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};
use rustix::fs::{MemfdFlags, SealFlags};

use super::layout::{OVERFLOW, OVERFLOW_EACH, RECORD_SIZE};
use super::*;
use crate::tunnel::Cause;
use crate::tunnel::counters::{Baseline, Bases};

mod claims;
mod death;
mod heaps;

const RECORDS: u64 = std::mem::offset_of!(Layout, records) as u64;

/// As another process would have it.
fn second(arena: &Arena) -> Arena {
    Arena::open(arena.fd().try_clone_to_owned().unwrap()).unwrap()
}

/// A record's bytes, but for its owner word and for what it has counted, which stays.
fn bytes_of(arena: &Arena, index: u32) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_SIZE as usize];
    memfd::read_at(&arena.fd, &mut bytes, RECORDS + u64::from(index * RECORD_SIZE)).unwrap();
    bytes.drain(512..528);
    bytes.drain(72..88);
    bytes.split_off(8)
}

/// Bytes of memory that the whole file takes up.
fn memory(arena: &Arena) -> u64 {
    u64::try_from(rustix::fs::fstat(&arena.fd).unwrap().st_blocks).unwrap() * 512
}

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: u64::from(pid) * 1000 }
}

#[test]
fn what_is_no_arena_is_refused() {
    let foreign = |fd: OwnedFd| {
        let refused = Arena::open(fd).unwrap_err();
        assert!(matches!(refused, ArenaError::Foreign), "{refused:?}");
    };
    foreign(std::fs::File::open("/dev/null").unwrap().into());
    foreign(std::io::pipe().unwrap().0.into());
    foreign(std::os::unix::net::UnixStream::pair().unwrap().0.into());
    foreign(Kind { magic: 1, ..KIND }.create().unwrap());
    foreign(Kind { size: 0, ..KIND }.create_sized());
    for size in [12, 4096, layout::SIZE - 4096, layout::SIZE + 4096] {
        foreign(Kind { size, ..KIND }.create().unwrap());
    }
    // The version is asked first: another one may have another size, and other fields behind it.
    for (version, size) in [(0, 4096), (VERSION + 1, layout::SIZE), (u32::MAX, 1 << 40)] {
        let fd = Kind { version, size, ..KIND }.create().unwrap();
        let refused = Arena::open(fd).unwrap_err();
        assert!(matches!(refused, ArenaError::Version { found } if found == version));
    }
    // Right in all but the shape that its header tells.
    for (offset, value) in [(12, 512), (16, CAPACITY / 2)] {
        let arena = Arena::create().unwrap();
        memfd::write_at(&arena.fd, &u32::to_ne_bytes(value), offset).unwrap();
        foreign(arena.fd);
    }
}

impl Kind {
    fn create_sized(self) -> OwnedFd {
        let fd = rustix::fs::memfd_create(self.name, MemfdFlags::ALLOW_SEALING).unwrap();
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    }
}

#[test]
fn what_could_change_its_size_is_refused() {
    let all = [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL];
    for missing in all {
        let fd = rustix::fs::memfd_create("arena", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, layout::SIZE).unwrap();
        memfd::write_at(&fd, &KIND.magic.to_ne_bytes(), 0).unwrap();
        memfd::write_at(&fd, &VERSION.to_ne_bytes(), 8).unwrap();
        for seal in all.into_iter().filter(|seal| *seal != missing) {
            rustix::fs::fcntl_add_seals(&fd, seal).unwrap();
        }
        let refused = Arena::open(fd).unwrap_err();
        assert!(matches!(refused, ArenaError::Unsealed), "{refused:?}");
    }
    // And ours cannot be changed by anybody.
    let arena = Arena::create().unwrap();
    rustix::fs::ftruncate(&arena.fd, 4096).unwrap_err();
    rustix::fs::ftruncate(&arena.fd, layout::SIZE * 2).unwrap_err();
}

#[test]
fn an_empty_arena_takes_next_to_no_memory() {
    let arena = Arena::create().unwrap();
    assert_eq!(arena.occupied().count(), 0);
    assert!(memory(&arena) <= 4 * 4096, "{}", memory(&arena));
    arena.claim(1).unwrap();
    assert!(memory(&arena) <= 40 * 4096, "{}", memory(&arena));
}

#[test]
fn an_enrolled_process_is_known_until_it_leaves() {
    let arena = Arena::create().unwrap();
    let other = second(&arena);
    assert!(!arena.enrol(0, process(1)), "0 stands for a free entry");
    assert_eq!((arena.process_of(0), arena.hand(0, 0).is_some()), (None, false));
    for generation in 1..=64 {
        assert_eq!(arena.process_of(generation), None);
        assert!(arena.enrol(generation, process(7)));
        assert_eq!(other.process_of(generation), Some(process(7)));
        assert!(other.enrol(generation, process(7)), "it may say so twice");
        assert!(!other.enrol(generation, process(8)), "it cannot become another");
    }
    assert!(!arena.enrol(65, process(9)), "the table is full");
    let arena = Arc::new(arena);
    let seat = arena.seat(5, 31).unwrap();
    seat.take_in_hand(Some(41));
    assert_eq!(other.hand(5, 31).unwrap().load(Relaxed), 42);
    seat.take_in_hand(None);
    assert_eq!(other.hand(5, 31).unwrap().load(Relaxed), 0);
    seat.take_in_hand(Some(41));
    assert!(arena.hand(5, 32).is_none() && arena.hand(65, 0).is_none());
    other.leave(5);
    other.leave(5);
    other.leave(0);
    assert!(arena.hand(5, 31).is_none() && arena.process_of(5).is_none());
    assert!(arena.enrol(65, process(9)));
    assert_eq!(other.hand(65, 31).unwrap().load(Relaxed), 0, "hands are empty at first");
    assert_eq!(other.processes().count(), 64);
    assert!(other.processes().all(|(_, process)| process.is_some()));
}

#[test]
fn half_an_entry_names_no_process() {
    let arena = Arena::create().unwrap();
    // Somebody has died while it enrolled, in an entry that another had used before.
    assert!(arena.enrol(1, process(1)));
    arena.map.processes[0].generation.store(2, Relaxed);
    assert_eq!((arena.process_of(2), arena.hand(2, 0).is_none()), (None, true));
    assert_eq!(arena.processes().collect::<Vec<_>>(), [(2, None)]);
    assert!(!arena.enrol(2, process(2)));
    arena.leave(2);
    assert!(arena.enrol(2, process(2)));
}

#[test]
fn an_entry_that_changes_hands_never_shows_a_mixture() {
    let arena = Arena::create().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let (arena, stop) = (second(&arena), &stop);
            scope.spawn(move || {
                for round in 0..100_000_u32 {
                    let generation = u64::from(round) * 2 + thread + 1;
                    let pid = u32::try_from(generation).unwrap();
                    assert!(arena.enrol(generation, process(pid)));
                    assert_eq!(arena.process_of(generation), Some(process(pid)));
                    arena.leave(generation);
                }
                stop.store(true, Relaxed);
            });
        }
        while !stop.load(Relaxed) {
            for (generation, found) in arena.processes() {
                let expected = process(u32::try_from(generation).unwrap());
                assert!(found.is_none_or(|found| found == expected), "{generation} {found:?}");
            }
        }
    });
}

#[test]
fn an_end_is_decided_once() {
    let arena = Arena::create().unwrap();
    let cell = arena.cell(0).unwrap();
    assert_eq!(cell.decided(), None);
    assert!(!cell.set_ends(ends::CLIENT_RESET | ends::COUNTED));
    for cause in Cause::ALL {
        assert_eq!(cell.decide(cause), Cause::Client);
    }
    assert_eq!(cell.decided(), Some(Cause::Client));
    assert!(cell.has_ends(ends::CLIENT_RESET) && !cell.has_ends(ends::BACKEND_RESET));
    assert!(cell.set_ends(ends::COUNTED), "it was counted before");
    cell.ends.store(u64::MAX, Relaxed);
    assert_eq!((cell.decided(), cell.decide(Cause::Idle)), (Some(Cause::Lost), Cause::Lost));
    for cause in Cause::ALL {
        cell.ends.store(0, Relaxed);
        assert_eq!((cell.decide(cause), cell.decided()), (cause, Some(cause)));
    }
}

#[test]
fn bytes_are_a_tunnel_s_own_and_their_sum_outlives_it() {
    let arena = Arena::create().unwrap();
    let index = arena.claim(1).unwrap();
    let cell = arena.cell(index).unwrap();
    cell.begin_bytes();
    cell.add_bytes([3, 0]);
    cell.raise_bytes([5, 7]);
    cell.raise_bytes([4, 9]);
    assert_eq!((cell.bytes(), arena.bytes()), ([5, 9], [5, 9]));
    assert!(arena.free(index));
    assert_eq!(second(&arena).bytes(), [5, 9]);

    assert_eq!(arena.claim(1), Some(index), "the lowest that is free");
    cell.begin_bytes();
    cell.add_bytes([1, 1]);
    assert_eq!((cell.bytes(), second(&arena).bytes()), ([1, 1], [6, 10]));
}

#[test]
fn addresses_and_baselines_keep_what_they_are_given() {
    let arena = Arena::create().unwrap();
    let (cell, other) = (arena.cell(9).unwrap(), second(&arena));
    assert_eq!(cell.client(), None);
    for text in ["1.2.3.4:5", "[2001:db8::1]:65535", "[fe80::1%7]:80", "0.0.0.0:0"] {
        cell.set_client(text.parse().unwrap());
        assert_eq!(other.cell(9).unwrap().client().unwrap().to_string(), text);
    }
    cell.set_baselines(
        Baseline { received: 1, accepted: 2 },
        Baseline { received: 3, accepted: 4 },
    );
    assert_eq!(cell.bases(Towards::Backend), Bases { received: 1, accepted: 4 });
    assert_eq!(cell.bases(Towards::Client), Bases { received: 3, accepted: 2 });
}

proptest! {
    #[test]
    fn an_owner_word_says_what_was_put_into_it(generation in 0..1_u64 << 56, word: u64) {
        for owner in [Owner::opening, Owner::owned, Owner::frozen, Owner::ending] {
            let owner = owner(generation);
            prop_assert_eq!(Owner::parse(owner.word()), Some(owner));
            prop_assert_ne!(owner.word(), 0);
        }
        match Owner::parse(word) {
            Some(owner) => prop_assert_eq!(owner.word(), word),
            None => prop_assert!(!(1..=4).contains(&(word >> 56))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever stands there, nothing panics, hangs or reads elsewhere; and what is freed can be used.
    #[test]
    fn anything_may_stand_in_an_arena(seed: u64, density in 0.0..1.0_f64) {
        let arena = Arena::create().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; usize::try_from(RECORDS).unwrap() + 40 * RECORD_SIZE as usize];
        random.fill_bytes(&mut bytes);
        for byte in &mut bytes {
            if random.random_bool(density) {
                *byte = [0, 0xff][random.random_range(0..2)];
            }
        }
        // Magic to capacity stay; sometimes the mark does too.
        let from = if random.random() { 20 } else { 24 };
        memfd::write_at(&arena.fd, &bytes[from..], from as u64).unwrap();
        let arena = second(&arena);

        // What is no entry of ours may name one generation twice: then each leaves by itself.
        while let Some((generation, process)) = arena.processes().next() {
            prop_assert_eq!(arena.process_of(generation), process);
            if let Some(hand) = arena.hand(generation, 3) {
                prop_assert!(process.is_some() && hand.load(Relaxed) != 0 || hand.load(Relaxed) == 0);
            }
            arena.leave(generation);
        }
        prop_assert!(arena.enrol(3, process(3)));
        for index in (0..40).chain([CAPACITY - 1, CAPACITY, u32::MAX]) {
            let texts = arena.read_texts(index);
            for towards in [Towards::Client, Towards::Backend] {
                let prelude = arena.read_prelude(index, towards);
                prop_assert!(prelude.len() <= layout::OVERFLOW_HEAP);
            }
            if let Some(cell) = arena.cell(index) {
                let _ = (cell.client(), cell.owner(), cell.decided(), cell.bases(Towards::Client));
            }
            arena.drop_preludes(index);
            if arena.free(index) {
                prop_assert!(bytes_of(&arena, index).iter().all(|byte| *byte == 0));
            }
            prop_assert!(!arena.free(index));
            drop(texts);
        }
        prop_assert!(arena.occupied().all(|(index, _)| index >= 40));
        prop_assert_eq!(arena.claim(3), Some(0));
    }
}
