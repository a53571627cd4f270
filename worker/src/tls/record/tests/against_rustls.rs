//! Sessions that go on between our record layer and rustls, for every version, suite and role.

use std::io::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

use super::pair::{Pair, lets_go_after_update, suites};
use crate::tls::keys::{Role, Version};
use crate::tls::record::{
    Kind, Message, Violation, close_notify, fatal_alert, key_update, record_limit,
};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

#[derive(Debug, Clone)]
enum Step {
    WeSend(usize),
    TheySend { len: usize, piece: usize },
    WeUpdate { requested: bool },
    TheyUpdate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..40_000usize).prop_map(Step::WeSend),
        3 => (0..40_000usize, 1..50_000usize).prop_map(|(len, piece)| Step::TheySend { len, piece }),
        1 => any::<bool>().prop_map(|requested| Step::WeUpdate { requested }),
        1 => Just(Step::TheyUpdate),
    ]
}

fn bytes(len: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().skip(len % 251).take(len).collect()
}

fn pairs() -> impl Iterator<Item = Pair> {
    let pair = |suite, protocol| ROLES.map(|role| Pair::new(suite, protocol, role));
    suites().into_iter().flat_map(move |(suite, protocol)| pair(suite, protocol))
}

fn take(pair: &mut Pair, step: &Step) {
    let updates = pair.ours.protocol.version == Version::Tls13;
    match *step {
        Step::WeSend(len) => {
            let wire = pair.ours.data(&bytes(len));
            assert_eq!(pair.deliver(&wire), Ok(bytes(len)));
        }
        Step::TheySend { len, piece } => {
            let (plaintext, messages) = pair.receive(&bytes(len), piece).unwrap();
            assert!(plaintext == bytes(len));
            let other = |message: &&Message| **message != Message::Data;
            assert_eq!(messages.iter().find(other), None);
        }
        Step::WeUpdate { requested } if updates => {
            let wire = pair.ours.record(Kind::Handshake, &key_update(requested));
            pair.ours.update();
            assert_eq!(pair.deliver(&wire), Ok(Vec::new()));
            // rustls answers no sooner than it has something to say.
            assert!(pair.collect().is_empty());
            let (plaintext, messages) = pair.receive(b"more", usize::MAX).unwrap();
            assert_eq!(plaintext, b"more");
            let mut expected = vec![Message::Data];
            if requested {
                expected.insert(0, Message::KeyUpdate { requested: false });
            }
            assert_eq!(messages, expected);
        }
        Step::TheyUpdate if updates => {
            pair.theirs.refresh_traffic_keys().unwrap();
            let (_, messages) = pair.receive(&[], 1).unwrap();
            assert_eq!(messages, [Message::KeyUpdate { requested: true }]);
            let mut wire = pair.ours.record(Kind::Handshake, &key_update(false));
            pair.ours.update();
            wire.extend(pair.ours.data(b"more"));
            assert_eq!(pair.deliver(&wire), Ok(b"more".to_vec()));
        }
        Step::WeUpdate { .. } | Step::TheyUpdate => {}
    }
}

/// Both ends say that they are done, and hear it.
fn close(pair: &mut Pair) {
    pair.theirs.send_close_notify();
    assert_eq!(pair.receive(&[], 7), Ok((Vec::new(), vec![Message::Closed])));
    let wire = pair.ours.record(Kind::Alert, &close_notify());
    pair.theirs.read_tls(&mut wire.as_slice()).unwrap();
    assert!(pair.theirs.process_new_packets().unwrap().peer_has_closed());
}

/// What rustls had sent before we took over: tickets if we are a client of TLS 1.3.
fn catch_up(pair: &mut Pair) -> Vec<Message> {
    let (plaintext, messages) = pair.receive(&[], 11).unwrap();
    assert!(plaintext.is_empty());
    messages
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_session_goes_on(steps in vec(step(), 1..10)) {
        for mut pair in pairs() {
            catch_up(&mut pair);
            for step in &steps {
                take(&mut pair, step);
            }
            close(&mut pair);
        }
    }
}

#[test]
fn every_step_is_right_at_the_edges_of_records() {
    for mut pair in pairs() {
        catch_up(&mut pair);
        for len in [0, 1, 16_383, 16_384, 16_385, 32_768, 32_769] {
            take(&mut pair, &Step::WeSend(len));
            take(&mut pair, &Step::TheySend { len, piece: 16_384 });
        }
        for step in [
            Step::WeUpdate { requested: true },
            Step::TheyUpdate,
            Step::WeUpdate { requested: false },
        ] {
            take(&mut pair, &step);
            take(&mut pair, &step);
        }
        // An empty record is none that rustls would make, but one that it has to take.
        let empty = pair.ours.record(Kind::Data, &[]);
        assert_eq!(pair.deliver(&empty), Ok(Vec::new()));
        close(&mut pair);
    }
}

#[test]
fn rustls_seals_the_same_bytes() {
    for mut pair in pairs() {
        catch_up(&mut pair);
        for len in [1, 16_384, 40_000] {
            let forecast = pair.ours.forecast(&bytes(len));
            pair.theirs.writer().write_all(&bytes(len)).unwrap();
            let wire = pair.collect();
            assert!(wire == forecast, "{:?}", pair.ours.protocol);
            let (plaintext, _) = pair.arrive(&wire, usize::MAX).unwrap();
            assert!(plaintext == bytes(len));
        }
    }
}

#[test]
fn tickets_are_for_clients_of_tls_13() {
    for (suite, protocol) in suites() {
        for role in ROLES {
            let messages = catch_up(&mut Pair::new(suite, protocol, role));
            let expected = protocol.version == Version::Tls13 && role == Role::Client;
            assert_eq!(!messages.is_empty(), expected, "{protocol:?} {role:?}");
            assert!(messages.iter().all(|message| *message == Message::Nothing));
        }
    }
}

#[test]
fn rustls_understands_our_last_word() {
    for mut pair in pairs() {
        let alert = Violation::BadRecordMac.alert();
        let wire = pair.ours.record(Kind::Alert, &fatal_alert(alert));
        let heard = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(pair.deliver(&wire), Err(heard));
    }
}

#[test]
fn we_understand_the_last_word_of_rustls() {
    for mut pair in pairs() {
        catch_up(&mut pair);
        let mut wire = pair.ours.data(b"spoilt");
        *wire.last_mut().unwrap() ^= 1;
        pair.deliver(&wire).unwrap_err();
        let (_, messages) = pair.receive(&[], usize::MAX).unwrap();
        assert_eq!(messages, [Message::PeerAlert(20)]);
    }
}

/// rustls sends its answer to a `KeyUpdate` with its next record, and forgets an answer that is due when it lets the
/// session go, though the keys are those behind it. Who takes over must compare keys with those of the handshake.
#[test]
fn a_forgotten_key_update_shows_in_the_keys() {
    for (suite, protocol) in suites().into_iter().filter(|(suite, _)| suite.tls13().is_some()) {
        assert_eq!(lets_go_after_update(suite, protocol), [true, true]);
    }
}

#[test]
fn no_key_is_used_for_longer_than_by_rustls() {
    for (suite, protocol) in suites() {
        let theirs = match suite {
            rustls::SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            rustls::SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        assert!(record_limit(protocol) <= theirs, "{protocol:?}");
    }
}
