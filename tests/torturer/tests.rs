//! The checker is checked: a stream with anything wrong must be found, and one without must not.
//!
//! What stands behind a relay, plain or under TLS, is in the files below.

use clap::Parser;

use super::board::{Board, DONE, FIN_SENT, Half, OPEN, Slot};
use super::checker::{Checker, Damage, Fault};
use super::diary::Log;
use super::options::{Cli, Tls};
use super::plan::{Legs, Role, Ticket};
use super::report::Report;
use super::stalls::Stalls;
use super::stream::{Framer, Recipe, Rng, Sizes};
use super::tally::Sum;
use super::{backend, hub::News};

mod through;
mod wire;

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
    for legs in Legs::ALL {
        let ticket = Ticket { id: 7, legs, slot: 3, seed: u64::MAX, stretch: 250, life: 9000 };
        assert_eq!(Ticket::parse(&ticket.path()), Some(ticket));
    }
    for bad in ["/healthz", "/ws/1/2/3/4", "/ws/1/2/3/4/5/6", "/wss/1/2/3/4/x", "/x/1/2/3/4/5"] {
        assert_eq!(Ticket::parse(bad), None);
    }
    assert!(matches!(backend::parse("clean 7 1 2 3 4"), Some(News::Clean { id: 7, .. })));
    let Some(News::Broken { fault, .. }) =
        backend::parse("broken 7 1 2 3 4 55 doubled the 4 bytes")
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

#[test]
fn a_run_that_misses_its_minimum_does_not_pass() {
    let reasons = |line: &str, sum: Sum| {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let (log, left_behind) = (Log::default(), Vec::new());
        let report = Report {
            options: &cli.options,
            listeners: &[],
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

#[test]
fn thirds_need_listeners_of_both_protocols() {
    for (line, tls, sealed) in [
        ("torture", Tls::Thirds, vec![false, true]),
        ("torture --tls thirds --listeners 1", Tls::Thirds, vec![false, true]),
        ("torture --listeners 3", Tls::Thirds, vec![false, true, false]),
        ("torture --tls all --listeners 1", Tls::All, vec![true]),
        ("torture --tls none", Tls::None, vec![false, false]),
    ] {
        let options = Cli::try_parse_from(line.split(' ')).unwrap().options;
        assert_eq!(
            (options.tls, options.tls.listeners(options.listeners)),
            (tls, sealed),
            "{line}"
        );
        let kinds = options.tls.legs().iter();
        let sealed: Vec<_> = kinds.map(|legs| (legs.seal_client(), legs.seal_backend())).collect();
        assert_eq!(sealed.contains(&(false, false)), tls != Tls::All, "{line}");
        assert_eq!(sealed.contains(&(true, false)), tls != Tls::None, "{line}");
        assert_eq!(sealed.contains(&(true, true)), tls != Tls::None, "{line}");
    }
}
