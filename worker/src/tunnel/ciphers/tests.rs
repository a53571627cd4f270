//! Which cipher is whose, and for how long.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::cell::Cell;
use std::convert::Infallible;

use super::*;
use crate::tls::keys::{Protocol, Secret, Suite, Version};
use crate::tls::record::Kind;

const PROTOCOL: Protocol = Protocol { version: Version::Tls13, suite: Suite::Aes128Gcm };
const RX: (Side, Half) = (Side::Client, Half::Rx);
const TX: (Side, Half) = (Side::Client, Half::Tx);

fn of(tunnel: TunnelId, record: u32, half: (Side, Half), generation: u32) -> Of {
    Of { tunnel, record, half, generation }
}

fn cipher(byte: u8) -> Cipher {
    Cipher::new(PROTOCOL, &Secret::new(&[byte; 32]).unwrap()).unwrap()
}

/// What a cipher makes of an empty record: no two secrets make the same.
fn print(cipher: &Cipher) -> Vec<u8> {
    let mut out = Vec::new();
    cipher.seal(0, Kind::Data, b"", &mut out).unwrap();
    out
}

/// Has it ready, made from that byte if it was not. Answers whether it was made.
fn ready(ciphers: &mut Ciphers, of: Of, byte: u8) -> bool {
    let made = Cell::new(false);
    let make = |_| {
        made.set(true);
        Ok::<_, Infallible>(cipher(byte))
    };
    let Ok(()) = ciphers.ready(of, make);
    made.get()
}

fn is(ciphers: &Ciphers, of: Of, byte: u8) -> bool {
    ciphers.get(of).is_some_and(|found| print(found) == print(&cipher(byte)))
}

/// Records of one set.
fn neighbours() -> impl Iterator<Item = u32> {
    (0..).filter(|record| set_of(*record) == set_of(0))
}

#[test]
fn one_is_made_once() {
    let mut ciphers = Ciphers::new().unwrap();
    let one = of(1, 5, RX, 0);
    assert!(ciphers.get(one).is_none());
    assert!(ready(&mut ciphers, one, 1));
    assert!(!ready(&mut ciphers, one, 2));
    assert!(is(&ciphers, one, 1));
    let failed = ciphers.ready(of(1, 5, TX, 0), |_| Err("no secret"));
    assert_eq!((failed, ciphers.count), (Err("no secret"), 1));
}

#[test]
fn each_half_and_each_generation_has_its_own() {
    let mut ciphers = Ciphers::new().unwrap();
    let backend = [(Side::Backend, Half::Rx), (Side::Backend, Half::Tx)];
    let all = [RX, TX, backend[0], backend[1]].map(|half| of(1, 5, half, 0));
    for (byte, one) in (1..).zip(all) {
        assert!(ready(&mut ciphers, one, byte));
    }
    assert!((1..).zip(all).all(|(byte, one)| is(&ciphers, one, byte)));
    let next = of(1, 5, TX, 1);
    assert!(ciphers.get(next).is_none());
    assert!(ready(&mut ciphers, next, 9));
    ciphers.supersede(all[1]);
    assert!(ciphers.get(all[1]).is_none());
    assert!(is(&ciphers, next, 9) && is(&ciphers, all[0], 1));
    assert_eq!(ciphers.count, 4);
}

#[test]
fn a_record_that_another_tunnel_has_now_brings_nothing_of_the_one_before() {
    let mut ciphers = Ciphers::new().unwrap();
    assert!(ready(&mut ciphers, of(1, 5, RX, 0), 1));
    // Even if nobody had said that it was over.
    assert!(ciphers.get(of(2, 5, RX, 0)).is_none());
    assert!(ready(&mut ciphers, of(2, 5, RX, 0), 2));
    assert!(is(&ciphers, of(2, 5, RX, 0), 2));
    // Nor does a tunnel that came back under another record.
    assert!(ciphers.get(of(2, 6, RX, 0)).is_none());
}

#[test]
fn the_longest_unused_makes_room_and_never_one_of_the_step_at_hand() {
    let mut ciphers = Ciphers::new().unwrap();
    let records: Vec<u32> = neighbours().take(10 * WAYS).collect();
    for (id, record) in (0..).zip(&records) {
        let (rx, tx) = (of(id, *record, RX, 0), of(id, *record, TX, 0));
        assert!(ready(&mut ciphers, rx, 1));
        assert!(ready(&mut ciphers, tx, 2));
        assert!(is(&ciphers, rx, 1) && is(&ciphers, tx, 2));
        assert!(ciphers.count <= WAYS);
        // It is in use all the time.
        assert!(!ready(&mut ciphers, of(0, 0, RX, 0), 1));
    }
    assert_eq!(ciphers.count, WAYS);
    assert!(is(&ciphers, of(0, 0, RX, 0), 1));
    assert!(ciphers.get(of(0, 0, TX, 0)).is_none());
}

#[test]
fn there_are_never_more_than_there_are_places() {
    let mut ciphers = Ciphers::new().unwrap();
    for record in 0..4096 {
        ready(&mut ciphers, of(u64::from(record), record, RX, 0), 1);
    }
    assert_eq!(ciphers.count, SETS * WAYS);
}

#[test]
fn tunnels_of_one_thread_of_many_use_all_sets() {
    for threads in [1, 2, 8, 64] {
        let mut sets: Vec<usize> = (0..512).map(|nth| set_of(nth * threads)).collect();
        sets.sort_unstable();
        let most = sets.chunk_by(|a, b| a == b).map(<[usize]>::len).max().unwrap();
        sets.dedup();
        assert!(sets.len() > SETS * 3 / 4 && most <= 8, "{threads}: {} {most}", sets.len());
    }
}

#[test]
fn what_is_not_used_goes_and_what_is_used_stays() {
    let mut ciphers = Ciphers::new().unwrap();
    let (idle, busy) = (of(1, 5, RX, 0), of(2, 6, RX, 0));
    ciphers.drop_unused(1000);
    assert_eq!(ciphers.due_ms(), u64::MAX);
    ready(&mut ciphers, idle, 1);
    ready(&mut ciphers, busy, 2);
    ciphers.drop_unused(1000);
    assert_eq!(ciphers.due_ms(), 1000 + UNUSED_MS);
    ready(&mut ciphers, busy, 2);
    ciphers.drop_unused(1000 + UNUSED_MS - 1);
    assert!(is(&ciphers, idle, 1));
    ciphers.drop_unused(1000 + UNUSED_MS);
    assert!(ciphers.get(idle).is_none());
    assert!(is(&ciphers, busy, 2));
    ciphers.drop_unused(1000 + 2 * UNUSED_MS);
    assert_eq!((ciphers.count, ciphers.due_ms()), (0, u64::MAX));
}

#[test]
fn uses_may_wrap() {
    let mut ciphers = Ciphers::new().unwrap();
    ciphers.uses = u32::MAX - 1;
    let [old, new] = [of(1, 5, RX, 0), of(1, 5, TX, 0)];
    ready(&mut ciphers, old, 1);
    ciphers.drop_unused(0);
    ready(&mut ciphers, new, 2);
    assert_eq!(ciphers.uses, 0);
    ciphers.drop_unused(UNUSED_MS);
    assert!(ciphers.get(old).is_none() && is(&ciphers, new, 2));
}
