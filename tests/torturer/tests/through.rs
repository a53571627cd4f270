//! Tunnels through a relay that does one thing wrong: both ends, and what is made of what they tell, must find it.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::{self, Door};
use crate::board::Board;
use crate::checker::Damage;
use crate::client::{self, Control, Orders};
use crate::document::Listener;
use crate::plan::Legs;
use crate::relay::{self, Defect};
use crate::stalls::Watch;
use crate::tally::{Sum, Tally};
use crate::tls::{Certificate, Starter};

/// A short life of tunnels through a relay with a defect, and what the tally makes of it. The relay knows no TLS: under
/// that it does to records what it does to bytes otherwise.
fn through(defect: Defect, to_client: bool, legs: Legs) -> Sum {
    let directory = tempfile::tempdir().unwrap();
    let board = Arc::new(Board::create(&directory.path().join("board"), 64).unwrap());
    let tally = Arc::new(Mutex::new(Tally::default()));
    let tell = |tally: &Arc<Mutex<Tally>>| {
        let tally = tally.clone();
        Box::new(move |news| tally.lock().unwrap().note(news))
    };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let certificate = Certificate::make(directory.path()).unwrap();
    let sealed = legs.seal_backend();
    let tls = sealed.then(|| Starter::of_server(&certificate).unwrap());
    let (own, told) = (board.clone(), tell(&tally));
    thread::spawn(move || backend::serve(&[Door { socket: server, tls }], own, told));
    let address = relay::start(address, defect, to_client);
    let tls = sealed.then(|| Starter::of_client(&certificate).unwrap());
    let listeners = vec![Listener { address, sealed }];
    let legs = vec![legs];
    let orders =
        Orders { listeners, legs, tls, tunnels: 8, slots: 64, stretch: 4, life: 1200, seed: 5 };
    // Short where something is to be missed, long where a slow machine must not be mistaken for it.
    let patience = Duration::from_secs(if defect == Defect::Nothing { 30 } else { 3 });
    let control = Arc::new(Control::default());
    let watch = Arc::new(Watch::default());
    let watcher = {
        let (watch, board, control) = (watch.clone(), board.clone(), control.clone());
        thread::spawn(move || watch.run(&board, &control, patience))
    };
    let clients = {
        let (control, board, told) = (control.clone(), board.clone(), tell(&tally));
        thread::spawn(move || client::run(orders, &control, board, told))
    };
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        thread::park_timeout(Duration::from_millis(50));
    }
    board.finish().unwrap();
    while !clients.is_finished() {
        assert!(begin.elapsed() < Duration::from_secs(120), "the clients never came to an end");
        thread::park_timeout(Duration::from_millis(20));
    }
    clients.join().unwrap().unwrap();
    let begin = Instant::now();
    // What nobody tells in this time is a loss as well.
    while tally.lock().unwrap().waits() && begin.elapsed() < patience {
        thread::park_timeout(Duration::from_millis(20));
    }
    control.stop.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    let sum = tally.lock().unwrap().sum(&[]);
    assert!(sum.opened >= 8 && sum.refused.is_empty(), "{:?}", sum.refused);
    sum
}

#[test]
fn a_relay_that_does_nothing_wrong_passes() {
    for legs in [Legs::Ws, Legs::WssToHttps] {
        let sum = through(Defect::Nothing, true, legs);
        assert!(sum.losses.is_empty(), "{:?}", sum.losses);
        let [client, backend] = sum.counts;
        assert_eq!((client.sent, backend.sent), (backend.received, client.received));
        assert!(client.sent > 10_000 && backend.sent > 10_000, "{:?}", sum.counts);
        let kind = sum.kinds[&legs];
        assert_eq!((kind.opened, kind.clean), (sum.opened, sum.opened));
        // Or nobody would know whether a kill can meet one.
        let changed = client.key_updates > 0 && backend.key_updates > 0;
        assert_eq!((changed, kind.old > 0), (legs.seal_backend(), legs.seal_client()));
    }
}

/// The defect must be found in either direction, and look like one of these.
fn is_found(defect: Defect, looks: &[Damage]) {
    is_found_in(Legs::Ws, defect, looks);
}

fn is_found_in(legs: Legs, defect: Defect, looks: &[Damage]) {
    for to_client in [true, false] {
        let sum = through(defect, to_client, legs);
        let first = sum.losses.first().unwrap_or_else(|| panic!("{defect:?} went unnoticed"));
        assert!(looks.contains(&first.fault.damage), "{defect:?}: {first:?}");
    }
}

#[test]
fn a_relay_that_spoils_records_is_found() {
    // To a seal any other change is the same.
    for defect in [Defect::DoublesByte, Defect::FlipsBit] {
        is_found_in(Legs::WssToHttps, defect, &[Damage::Corrupted]);
    }
}

#[test]
fn a_relay_that_ends_sessions_early_is_found() {
    let dropped = [Damage::EndedEarly, Damage::Reset];
    is_found_in(Legs::WssToHttps, Defect::CutsTail, &dropped);
}

#[test]
fn a_relay_that_goes_on_behind_close_notify_or_keeps_fin_to_itself_is_found() {
    is_found_in(Legs::WssToHttps, Defect::AddsTail, &[Damage::WentOn]);
    is_found_in(Legs::WssToHttps, Defect::KeepsEnd, &[Damage::Stuck]);
}

#[test]
fn a_relay_that_loses_a_byte_is_found() {
    is_found(Defect::LosesByte, &[Damage::Lost]);
}

#[test]
fn a_relay_that_doubles_a_byte_is_found() {
    is_found(Defect::DoublesByte, &[Damage::Doubled]);
}

#[test]
fn a_relay_that_swaps_bytes_is_found() {
    is_found(Defect::SwapsBytes, &[Damage::Reordered]);
}

#[test]
fn a_relay_that_flips_a_bit_is_found() {
    is_found(Defect::FlipsBit, &[Damage::Corrupted]);
}

#[test]
fn a_relay_that_ends_tunnels_is_found() {
    let dropped = [Damage::EndedEarly, Damage::Reset];
    is_found(Defect::ClosesEarly, &dropped);
    is_found(Defect::Resets, &dropped);
}

#[test]
fn a_relay_that_cuts_or_adds_at_the_end_is_found() {
    is_found(Defect::CutsTail, &[Damage::EndedEarly]);
    is_found(Defect::AddsTail, &[Damage::WentOn]);
}

#[test]
fn a_relay_that_keeps_an_end_to_itself_is_found() {
    is_found(Defect::KeepsEnd, &[Damage::Stuck]);
}

#[test]
fn a_relay_that_passes_no_more_on_is_found() {
    is_found(Defect::Stalls, &[Damage::Stuck]);
}
