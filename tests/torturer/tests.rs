//! The checker is checked: a stream with anything wrong must be found, and one without must not.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use super::board::{Board, DONE, FIN_SENT, Half, OPEN, Slot};
use super::checker::{Checker, Damage, Fault};
use super::client::{self, Control, Orders};
use super::diary::Log;
use super::options::Cli;
use super::plan::{Role, Ticket};
use super::relay::{self, Defect};
use super::report::Report;
use super::stalls::{Stalls, Watch};
use super::stream::{Framer, Recipe, Rng, Sizes};
use super::tally::{Sum, Tally};
use super::{backend, hub::News};

const SMALL: Recipe = Recipe { seed: 41, masked: true, sizes: Sizes::Small };
const BULK: Recipe = Recipe { seed: 42, masked: false, sizes: Sizes::Bulk };

/// A whole direction: `messages` messages and the Close frame.
fn stream(recipe: Recipe, messages: u32) -> Vec<u8> {
    let mut framer = Framer::new(recipe);
    let mut bytes = Vec::new();
    for _ in 0..messages {
        framer.begin_message();
        while !framer.at_boundary() {
            let mut chunk = [0; 1000];
            let count = framer.peek(&mut chunk);
            framer.advance(&chunk[..count]);
            bytes.extend_from_slice(&chunk[..count]);
        }
    }
    bytes.extend(framer.close_frame());
    bytes
}

/// Feeds a stream in pieces of random sizes, and its end.
fn check(recipe: Recipe, bytes: &[u8], largest: u64) -> Result<(), Fault> {
    check_within(1 << 17, recipe, bytes, largest)
}

fn check_within(reach: usize, recipe: Recipe, bytes: &[u8], largest: u64) -> Result<(), Fault> {
    let mut checker = Checker::new(recipe);
    checker.reach = reach;
    let mut rng = Rng::new(largest);
    let mut scratch = vec![0; 4096];
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = rest.len().min(rng.between(1, largest) as usize);
        checker.feed(&rest[..count], &mut scratch)?;
        rest = &rest[count..];
    }
    checker.finish()
}

fn found(recipe: Recipe, bytes: &[u8]) -> (u64, Damage) {
    let fault = check(recipe, bytes, 1 << 20).unwrap_err();
    (fault.position, fault.damage)
}

#[test]
fn a_sound_stream_passes_however_it_is_cut() {
    for (recipe, messages) in [(SMALL, 300), (BULK, 3), (SMALL, 0)] {
        let bytes = stream(recipe, messages);
        for largest in [1, 7, 1000, 100_000] {
            check(recipe, &bytes, largest).unwrap();
        }
    }
}

#[test]
fn every_single_byte_is_checked() {
    let check = |recipe, bytes: &[u8]| check_within(64, recipe, bytes, 5000);
    let sound = stream(SMALL, 12);
    for place in 0..sound.len().min(3000) {
        let mut lost = sound.clone();
        lost.remove(place);
        check(SMALL, &lost).unwrap_err();
        let mut doubled = sound.clone();
        doubled.insert(place, sound[place]);
        check(SMALL, &doubled).unwrap_err();
        let mut corrupted = sound.clone();
        corrupted[place] ^= 1;
        let fault = check(SMALL, &corrupted).unwrap_err();
        assert_eq!(fault.position, place as u64, "{fault}");
        check(SMALL, &sound[..place]).unwrap_err();
        if place > 0 && sound[place] != sound[place - 1] {
            let mut swapped = sound.clone();
            swapped.swap(place, place - 1);
            check(SMALL, &swapped).unwrap_err();
        }
    }
}

#[test]
fn damage_is_named_with_its_place() {
    for recipe in [SMALL, BULK] {
        let sound = stream(recipe, 60);
        let place = sound.len() / 3;
        let at = place as u64;
        for count in [1, 100, 50_000] {
            if place + count + 100 > sound.len() {
                continue;
            }
            let lost = [&sound[..place], &sound[place + count..]].concat();
            assert_eq!(found(recipe, &lost), (at, Damage::Lost));
            let begin = place.saturating_sub(count);
            let doubled = [&sound[..place], &sound[begin..]].concat();
            assert_eq!(found(recipe, &doubled), (at, Damage::Doubled));
        }
        let mut swapped = sound.clone();
        swapped.swap(place, place + 1);
        assert_eq!(found(recipe, &swapped), (at, Damage::Reordered));
        let mut corrupted = sound.clone();
        corrupted[place] = !corrupted[place];
        assert_eq!(found(recipe, &corrupted), (at, Damage::Corrupted));
        assert_eq!(found(recipe, &sound[..place]), (at, Damage::EndedEarly));
        let longer = [&sound[..], b"x"].concat();
        assert_eq!(found(recipe, &longer), (sound.len() as u64, Damage::WentOn));
    }
}

#[test]
fn messages_that_are_missing_before_the_close_frame_are_found() {
    let (long, short) = (stream(SMALL, 10), stream(SMALL, 9));
    let close = long.len() - Framer::new(SMALL).close_frame().len() - 10;
    // The first nine messages, and a Close frame that counts ten.
    let tail = &long[long.len() - (long.len() - close).min(60)..];
    let mixed = [&short[..short.len() - 40], tail].concat();
    check(SMALL, &mixed, 5000).unwrap_err();
}

#[test]
fn frames_are_websocket_frames_of_2_bytes_to_4_mebibytes() {
    let (mut smallest, mut largest) = (u64::MAX, 0);
    for recipe in [SMALL, BULK] {
        let mut framer = Framer::new(recipe);
        for _ in 0..2000 {
            framer.begin_message();
            let mut head = [0; 14];
            framer.peek(&mut head);
            assert_eq!((head[0], head[1] >> 7), (0x82, u8::from(recipe.masked)));
            let length = match head[1] & 0x7f {
                126 => u64::from(u16::from_be_bytes([head[2], head[3]])),
                127 => u64::from_be_bytes(head[2..10].try_into().unwrap()),
                short => u64::from(short),
            };
            (smallest, largest) = (length.min(smallest), length.max(largest));
            let mut chunk = vec![0; 5 << 20];
            let count = framer.peek(&mut chunk);
            framer.advance(&chunk[..count]);
            assert!(framer.at_boundary());
        }
    }
    assert!(smallest == 2 && largest <= 4 << 20 && largest > 3 << 20, "{smallest} to {largest}");
}

#[test]
fn tickets_and_lines_say_the_same_at_both_ends() {
    let ticket = Ticket { id: 7, slot: 3, seed: u64::MAX, stretch: 250, life: 9000 };
    assert_eq!(Ticket::parse(&ticket.path()), Some(ticket));
    for bad in ["/healthz", "/t/1/2/3/4", "/t/1/2/3/4/5/6", "/t/1/2/3/4/x"] {
        assert_eq!(Ticket::parse(bad), None);
    }
    assert!(matches!(backend::parse("clean 7 1 2 3"), Some(News::Clean { id: 7, .. })));
    let Some(News::Broken { fault, .. }) = backend::parse("broken 7 1 2 3 55 doubled the 4 bytes")
    else {
        panic!("not understood");
    };
    assert_eq!(fault.to_string(), "doubled at byte 55: the 4 bytes");
}

#[test]
fn the_board_tells_what_is_on_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let board = Board::create(&directory.path().join("board"), 4).unwrap();
    let other = Board::open(&directory.path().join("board")).unwrap();
    let half = |sent, received, flags| Half { id: 9, sent, received, flags };
    board.write(2, Role::Client, &half(100, 5, OPEN).on_listener(1)).unwrap();
    other.write(2, Role::Backend, &half(7, 60, OPEN | FIN_SENT)).unwrap();
    let slots: Vec<Slot> = board.read_all(3, &mut Vec::new()).unwrap();
    let slot = &slots[2];
    assert_eq!([Role::Client, Role::Backend].map(|from| slot.in_flight(from)), [40, 2]);
    assert!(slot.half_closed() && slot.halves[0].listener() == 1);
    other.write(2, Role::Backend, &half(7, 60, OPEN | DONE)).unwrap();
    let slot = board.read(2).unwrap();
    // The backend waits for nothing any more; the client still does.
    assert_eq!([Role::Client, Role::Backend].map(|from| slot.in_flight(from)), [0, 2]);
    assert!(!slots[0].flows(Role::Client) && !slots[0].half_closed());
}

/// A short life of tunnels through a relay with a defect, and what the tally makes of it.
fn through(defect: Defect, to_client: bool) -> Sum {
    let directory = tempfile::tempdir().unwrap();
    let board = Arc::new(Board::create(&directory.path().join("board"), 64).unwrap());
    let tally = Arc::new(Mutex::new(Tally::default()));
    let tell = |tally: &Arc<Mutex<Tally>>| {
        let tally = tally.clone();
        Box::new(move |news| tally.lock().unwrap().note(news))
    };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let (own, told) = (board.clone(), tell(&tally));
    thread::spawn(move || backend::serve(&server, own, told));
    let gateway = relay::start(address, defect, to_client);
    let orders =
        Orders { listeners: vec![gateway], tunnels: 8, slots: 64, stretch: 4, life: 1200, seed: 5 };
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
    let sum = through(Defect::Nothing, true);
    assert!(sum.losses.is_empty(), "{:?}", sum.losses);
    let [client, backend] = sum.counts;
    assert_eq!((client.sent, backend.sent), (backend.received, client.received));
    assert!(client.sent > 10_000 && backend.sent > 10_000, "{:?}", sum.counts);
}

/// The defect must be found in either direction, and look like one of these.
fn is_found(defect: Defect, looks: &[Damage]) {
    for to_client in [true, false] {
        let sum = through(defect, to_client);
        let first = sum.losses.first().unwrap_or_else(|| panic!("{defect:?} went unnoticed"));
        assert!(looks.contains(&first.fault.damage), "{defect:?}: {first:?}");
    }
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

#[test]
fn a_run_that_misses_its_minimum_does_not_pass() {
    let reasons = |line: &str, sum: Sum| {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let (log, left_behind) = (Log::default(), Vec::new());
        let report = Report {
            options: &cli.options,
            seed: 1,
            seconds: 1.0,
            sum,
            log: &log,
            stalls: Stalls::new(),
            lost_total: None,
            left_behind,
        };
        report.reasons()
    };
    let opened = || Sum { opened: 1, ..Sum::default() };
    assert_eq!(reasons("torture", opened()), Vec::<String>::new());
    assert_eq!(reasons("torture", Sum::default()).len(), 1);
    for minimum in ["--min-worker-kills 300", "--min-upgrades 1", "--min-in-flight-share 90"] {
        assert_eq!(reasons(&format!("torture {minimum}"), opened()).len(), 1, "{minimum}");
    }
}
