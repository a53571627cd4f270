//! Processes that are killed in the middle of anything that they do to an arena.

use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::tls::keys::{Protocol, Secret, Suite, Version};
use crate::tunnel::arena::sessions::Half;
use crate::tunnel::leg::Side;

const ARENA: &str = "HOLDFAST_TEST_ARENA";
const GENERATION: &str = "HOLDFAST_TEST_GENERATION";
const PROTOCOL: Protocol = Protocol { version: Version::Tls13, suite: Suite::Aes128Gcm };
const TEXT: &str = "some text of a tunnel";

/// What preludes in these tests begin with.
fn prelude() -> Vec<u8> {
    let mut bytes = vec![0; 30_000];
    StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

/// A tunnel that was open and not ending has everything it needs.
fn expect_whole(arena: &Arena, index: u32, generation: u64) {
    let cell = arena.cell(index).unwrap();
    assert_eq!(cell.id.load(Relaxed), generation);
    let secret = arena.sessions(index).unwrap().secret((Side::Client, Half::Tx), 0, PROTOCOL);
    assert_eq!(secret, Secret::new(&[7; 32]));
    let Texts { site, pool, settings, backend, trace_id } = arena.read_texts(index);
    assert!([site, pool, settings, backend, trace_id].iter().all(|text| text.as_ref() == TEXT));
    let to_client = arena.read_prelude(index, Towards::Client);
    assert_eq!(to_client.len() as u64, cell.prelude_len(Towards::Client));
    assert!(!to_client.is_empty() && prelude().starts_with(&to_client));
    assert_eq!(arena.read_prelude(index, Towards::Backend), b"early");
}

fn child(arena: &Arena, generation: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "tunnel::arena::tests::death::a_child_opens_and_ends_tunnels",
        ])
        .env(ARENA, format!("/proc/{}/fd/{}", std::process::id(), arena.fd.as_raw_fd()))
        .env(GENERATION, generation.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the child of the next test"]
fn a_child_opens_and_ends_tunnels() {
    let Ok(path) = std::env::var(ARENA) else { return };
    let generation: u64 = std::env::var(GENERATION).unwrap().parse().unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let arena = Arena::open(file.into()).unwrap();
    assert!(arena.enrol(generation, ProcessId::me().unwrap()));
    let hand = arena.hand(generation, 0).unwrap();
    let mut random = StdRng::seed_from_u64(generation);
    let text: Arc<str> = TEXT.into();
    let (mut mine, bytes) = (Vec::new(), prelude());
    loop {
        hand.fetch_add(1, Relaxed);
        if mine.len() < 20 {
            let index = arena.claim(generation).unwrap();
            let texts = Texts {
                site: text.clone(),
                pool: text.clone(),
                settings: text.clone(),
                backend: text.clone(),
                trace_id: text.clone(),
            };
            let length = if random.random() { 100 } else { random.random_range(1..bytes.len()) };
            arena.write_heap(index, &texts, &[&bytes[..length]], b"early").unwrap();
            let cell = arena.cell(index).unwrap();
            let sessions = arena.sessions(index).unwrap();
            cell.set_protocols([Some(PROTOCOL), None]);
            sessions.set_secret((Side::Client, Half::Tx), 0, &Secret::new(&[7; 32]).unwrap());
            cell.id.store(generation, Relaxed);
            assert!(cell.swap_owner(Owner::opening(generation), Owner::owned(generation)));
            mine.push(index);
        }
        if random.random_bool(0.6) {
            let index = mine.swap_remove(random.random_range(0..mine.len()));
            let cell = arena.cell(index).unwrap();
            assert!(cell.swap_owner(Owner::owned(generation), Owner::ending(generation)));
            cell.set_ends(ends::COUNTED);
            assert!(arena.free(index));
        }
    }
}

#[test]
fn whatever_a_killed_process_leaves_its_heir_can_free() {
    let arena = Arena::create().unwrap();
    // Every page of records in use is there from now on, so that memory can be compared.
    let claimed: Vec<_> = (0..128).map(|_| arena.claim(99).unwrap()).collect();
    assert!(claimed.into_iter().all(|index| arena.free(index)));
    let before = memory(&arena);
    let mut random = StdRng::seed_from_u64(5);
    let (mut opening, mut owned, mut half_freed) = (0, 0, 0);
    for round in 0..10_u64 {
        let generations = [2 * round + 1, 2 * round + 2];
        let mut children = generations.map(|generation| child(&arena, generation));
        let deadline = Instant::now() + Duration::from_secs(30);
        for (generation, child) in generations.into_iter().zip(&mut children) {
            let aim = random.random_range(1..3000);
            while arena.hand(generation, 0).is_none_or(|hand| hand.load(Relaxed) < aim) {
                assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
                std::thread::yield_now();
            }
        }
        for child in &mut children {
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9), "it failed on its own");
        }
        for (generation, child) in generations.into_iter().zip(&children) {
            assert_eq!(arena.process_of(generation).unwrap().pid, child.id());
            arena.leave(generation);
        }
        let left: Vec<_> =
            arena.occupied().map(|(index, cell)| (index, cell.owner().unwrap())).collect();
        for (index, owner) in left {
            assert!(generations.contains(&owner.generation));
            let cell = arena.cell(index).unwrap();
            let id = cell.id.load(Relaxed);
            match owner.state {
                State::Owned => {
                    owned += 1;
                    expect_whole(&arena, index, owner.generation);
                }
                State::Opening => opening += 1,
                State::Ending if id == 0 => half_freed += 1,
                // It died between its end and the count of it, or before the wipe.
                State::Ending => {
                    assert_eq!(id, owner.generation);
                    assert_eq!(arena.read_texts(index).trace_id.as_ref(), TEXT);
                }
                State::Frozen => panic!("nobody freezes here"),
            }
            assert!(arena.free(index));
        }
        for index in 0..arena.high_water() {
            assert!(bytes_of(&arena, index).iter().all(|byte| *byte == 0), "{index} is not clean");
            let sessions = arena.sessions(index).unwrap();
            let secret = sessions.secret((Side::Client, Half::Tx), 0, PROTOCOL);
            assert_eq!(secret, Secret::new(&[0; 32]));
        }
        // Pages of the table, of records and of sessions stay, and were not all there before.
        let table = (layout::PROCESSES * size_of::<Process>()) as u64;
        let stays = 64 * 1024 + table + u64::from(arena.high_water()) * 1024;
        assert!(memory(&arena) <= before + stays, "overflow has leaked");
        assert_eq!(arena.occupied().count(), 0);
    }
    println!("{owned} owned, {opening} opening, {half_freed} half freed");
    assert!(owned > 50);
}
