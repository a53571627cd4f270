//! Turns, weights, loads, hashes, and who comes back to whom.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const CLIENT: Preference<'static> =
    Preference { client: IpAddr::V4(Ipv4Addr::LOCALHOST), cookie: None, own: None };

/// Backends of a test's own: what they have in hand is known to the whole process.
fn backends(test: &str, count: u16) -> Vec<Arc<Backend>> {
    (1..=count).map(|port| Arc::new(Backend::new("pool".into(), test.to_owned(), port))).collect()
}

fn rotation(algorithm: Algorithm, backends: &[Arc<Backend>], weights: &[u32]) -> Rotation {
    Rotation::new(algorithm, backends.iter().cloned().zip(weights.iter().copied()), Vec::new())
}

fn ports(picks: Picks<'_>) -> Vec<u16> {
    picks.map(|backend| backend.port).collect()
}

fn first(rotation: &Rotation, cursor: &Cursor, preference: &Preference<'_>) -> Arc<Backend> {
    rotation.picks(cursor, preference).next().unwrap()
}

fn from(client: impl Into<IpAddr>) -> Preference<'static> {
    Preference { client: client.into(), ..CLIENT }
}

#[test]
fn each_request_starts_one_further_and_sees_each_backend_once() {
    let rotation = rotation(Algorithm::RoundRobin, &backends("turns", 3), &[1, 1, 1]);
    let cursor = Cursor::default();
    let orders = [(); 4].map(|()| ports(rotation.picks(&cursor, &CLIENT)));
    assert_eq!(orders, [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
}

#[test]
fn an_empty_rotation_offers_nothing_whatever_is_wished_for() {
    let left = backends("empty", 1);
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::IpHash] {
        let empty = rotation(algorithm, &[], &[]);
        let wish = Preference { cookie: left.first(), own: left.first(), ..CLIENT };
        assert!(empty.picks(&Cursor::default(), &wish).next().is_none());
    }
    assert!(Picks::none().next().is_none());
}

#[test]
fn turns_follow_the_weights_exactly_and_are_spread() {
    let rotation = rotation(Algorithm::RoundRobin, &backends("weights", 3), &[5, 1, 1]);
    let cursor = Cursor::default();
    let turns = [(); 14].map(|()| first(&rotation, &cursor, &CLIENT).port);
    assert_eq!(turns, [1, 1, 2, 1, 3, 1, 1, 1, 1, 2, 1, 3, 1, 1]);
    let all = ports(rotation.picks(&cursor, &CLIENT));
    assert_eq!(all.len(), 3, "another is still tried where the chosen one fails");
}

#[test]
fn the_least_busy_for_its_weight_is_chosen_and_equals_take_turns() {
    let backends = backends("least", 3);
    let plain = rotation(Algorithm::LeastConnections, &backends, &[1, 1, 1]);
    let cursor = Cursor::default();
    let mut held = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..6 {
        let chosen = first(&plain, &cursor, &CLIENT);
        held.push(chosen.load.hold());
        seen.push(chosen.port);
    }
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 1, 2, 2, 3, 3], "{seen:?}");
    held.clear();
    let busy: Vec<_> = [0, 0, 2].map(|index: usize| backends[index].load.hold()).into();
    for _ in 0..3 {
        assert_eq!(ports(plain.picks(&cursor, &CLIENT)), [2, 3, 1]);
    }
    drop(busy);
    let heavy = rotation(Algorithm::LeastConnections, &backends, &[4, 1, 1]);
    let shares = [(); 12].map(|()| {
        let chosen = first(&heavy, &cursor, &CLIENT);
        held.push(chosen.load.hold());
        chosen.port
    });
    assert_eq!(shares.iter().filter(|port| **port == 1).count(), 8, "{shares:?}");
}

#[test]
fn an_address_keeps_its_backend_and_only_those_of_a_lost_one_move() {
    let backends = backends("hash", 5);
    let all = rotation(Algorithm::IpHash, &backends, &[1; 5]);
    let fewer = rotation(Algorithm::IpHash, &backends[..4], &[1; 4]);
    let cursor = Cursor::default();
    let mut counts = BTreeMap::new();
    for last in 0..=999_u16 {
        let [high, low] = last.to_be_bytes();
        let client = from(Ipv4Addr::new(10, 0, high, low));
        let order = ports(all.picks(&cursor, &client));
        assert_eq!(order, ports(all.picks(&cursor, &client)));
        assert_eq!(order.len(), MOST_TRIES);
        *counts.entry(order[0]).or_insert(0) += 1;
        // Where the lost one was first, the second takes over: also what a failed connection leads to.
        let wanted = if order[0] == 5 { order[1] } else { order[0] };
        assert_eq!(first(&fewer, &cursor, &client).port, wanted);
    }
    assert!(counts.len() == 5 && counts.values().all(|count| (140..260).contains(count)));
    let mapped: Ipv6Addr = "::ffff:10.0.0.7".parse().unwrap();
    let (four, six) = (from(Ipv4Addr::new(10, 0, 0, 7)), from(mapped));
    assert_eq!(first(&all, &cursor, &four).port, first(&all, &cursor, &six).port);
}

#[test]
fn every_part_of_an_ipv6_address_counts() {
    let all = rotation(Algorithm::IpHash, &backends("six", 5), &[1; 5]);
    let cursor = Cursor::default();
    for place in 0..8 {
        let chosen = (0..=99_u16).map(|part| {
            let mut parts = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7];
            parts[place] = part;
            first(&all, &cursor, &from(Ipv6Addr::from(parts))).port
        });
        let chosen: BTreeSet<u16> = chosen.collect();
        assert_eq!(chosen.len(), 5, "part {place}");
    }
}

#[test]
fn a_heavier_backend_has_more_addresses() {
    let rotation = rotation(Algorithm::IpHash, &backends("heavy", 2), &[3, 1]);
    let cursor = Cursor::default();
    let heavy = (0..=999_u16).filter(|last| {
        let [high, low] = last.to_be_bytes();
        first(&rotation, &cursor, &from(Ipv4Addr::new(10, 1, high, low))).port == 1
    });
    assert!((680..820).contains(&heavy.count()));
}

#[test]
fn a_hash_is_the_same_in_every_process() {
    let rotation = rotation(Algorithm::IpHash, &backends("Fixed.Test", 4), &[1; 4]);
    let chosen: Vec<u16> = (0..8)
        .map(|last| first(&rotation, &Cursor::default(), &from(Ipv4Addr::new(127, 0, 0, last))))
        .map(|backend| backend.port)
        .collect();
    let other = Rotation::new(
        Algorithm::IpHash,
        backends("fixed.test", 4).into_iter().rev().map(|it| (it, 1)),
        Vec::new(),
    );
    let again: Vec<u16> = (0..8)
        .map(|last| first(&other, &Cursor::default(), &from(Ipv4Addr::new(127, 0, 0, last))))
        .map(|backend| backend.port)
        .collect();
    assert_eq!(chosen, again, "neither the order nor the spelling counts");
}

#[test]
fn who_comes_back_takes_nobodys_turn_and_has_others_to_fall_back_on() {
    let backends = backends("back", 3);
    let cursor = Cursor::default();
    let rotation = Rotation::new(
        Algorithm::RoundRobin,
        backends[..2].iter().cloned().map(|backend| (backend, 1)),
        vec![backends[2].clone()],
    );
    let wish = |cookie, own| Preference { cookie, own, ..CLIENT };
    for (cookie, own, wanted) in [
        (Some(1), None, vec![2, 1]),
        (None, Some(1), vec![2, 1]),
        (Some(0), Some(1), vec![1, 2]),
        // Drained: a cookie leads there, an open connection does not.
        (Some(2), None, vec![3]),
        (None, Some(2), vec![]),
        (Some(2), Some(1), vec![3]),
    ] {
        let wish = wish(cookie.map(|at: usize| &backends[at]), own.map(|at: usize| &backends[at]));
        let order = ports(rotation.picks(&cursor, &wish));
        assert!(order.starts_with(&wanted), "{wish:?}: {order:?}");
        assert_eq!(order.iter().collect::<std::collections::BTreeSet<_>>().len(), order.len());
    }
    let cursor = Cursor::default();
    for _ in 0..3 {
        assert_eq!(first(&rotation, &cursor, &wish(Some(&backends[1]), None)).port, 2);
    }
    assert_eq!(first(&rotation, &cursor, &CLIENT).port, 1);
}
