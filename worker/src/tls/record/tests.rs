//! The record layer: what it seals it opens again, always in the same way.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::cipher::TooLong;
use super::derive::{BadSecret, Keys};
use super::*;
use crate::tls::keys::{Role, Secret};

mod against_rustls;
mod messages;
mod pair;
mod refusals;
mod vectors;

const KINDS: [Kind; 3] = [Kind::Alert, Kind::Handshake, Kind::Data];

fn protocols() -> impl Iterator<Item = Protocol> {
    (0..=u8::MAX).filter_map(Protocol::from_code)
}

fn secret(protocol: Protocol, seed: u8) -> Secret {
    let bytes: Vec<u8> = (seed..=u8::MAX).cycle().take(protocol.secret_len()).collect();
    Secret::new(&bytes).unwrap()
}

fn cipher(protocol: Protocol) -> Cipher {
    Cipher::new(protocol, &secret(protocol, 1)).unwrap()
}

fn sealed(protocol: Protocol, seq: u64, kind: Kind, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cipher(protocol).seal(seq, kind, plaintext, &mut out).unwrap();
    out
}

fn check_round_trip(protocol: Protocol, seq: u64, kind: Kind, plaintext: &[u8]) {
    let mut record = sealed(protocol, seq, kind, plaintext);
    assert!(record == sealed(protocol, seq, kind, plaintext), "not the same twice");
    assert_eq!(record.len(), Cipher::sealed_len(protocol, plaintext.len()));
    assert_eq!(frame(protocol, &record), Ok(Framed::Whole { len: record.len() }));
    let opened = cipher(protocol).open(seq, &mut record).unwrap();
    assert_eq!(opened.kind, kind);
    assert!(opened.plaintext == plaintext);
}

#[test]
fn what_is_sealed_opens_at_every_length_that_matters() {
    for protocol in protocols() {
        for len in [0, 1, 2, 15, 16, 17, 255, 256, 16_383, 16_384] {
            for kind in KINDS {
                for seq in [0, 1, 1 << 32, u64::MAX] {
                    check_round_trip(protocol, seq, kind, &vec![0; len]);
                }
            }
        }
    }
}

#[test]
fn records_are_appended() {
    for protocol in protocols() {
        let cipher = cipher(protocol);
        let mut out = b"before".to_vec();
        cipher.seal(0, Kind::Data, b"one", &mut out).unwrap();
        cipher.seal(1, Kind::Data, b"two", &mut out).unwrap();
        let expected = [
            b"before".to_vec(),
            sealed(protocol, 0, Kind::Data, b"one"),
            sealed(protocol, 1, Kind::Data, b"two"),
        ];
        assert_eq!(out, expected.concat());
    }
}

#[test]
fn too_much_for_a_record_is_refused_and_leaves_nothing() {
    for protocol in protocols() {
        let mut out = b"before".to_vec();
        let too_much = vec![7; MOST_PLAINTEXT + 1];
        assert_eq!(cipher(protocol).seal(0, Kind::Data, &too_much, &mut out), Err(TooLong));
        assert_eq!(out, b"before");
    }
}

#[test]
fn a_secret_of_another_protocol_is_refused() {
    for protocol in protocols() {
        for len in (0..=Secret::LONGEST).filter(|len| *len != protocol.secret_len()) {
            let wrong = Secret::new(&vec![1; len]).unwrap();
            assert_eq!(Cipher::new(protocol, &wrong).err(), Some(BadSecret));
            assert_eq!(key_of(protocol, &wrong).err(), Some(BadSecret));
            assert_eq!(next_secret(protocol, &wrong), None);
        }
    }
}

#[test]
fn only_tls_13_has_a_next_secret() {
    for protocol in protocols() {
        let first = secret(protocol, 1);
        let next = next_secret(protocol, &first);
        assert_eq!(next.is_some(), protocol.version == Version::Tls13);
        if let Some(next) = next {
            assert_eq!(next.bytes().len(), protocol.secret_len());
            assert!(next != first);
        }
    }
}

#[test]
fn no_secret_is_printed() {
    for protocol in protocols() {
        let secret = Secret::new(&vec![173; protocol.secret_len()]).unwrap();
        let cipher = Cipher::new(protocol, &secret).unwrap();
        let keys: Keys = key_of(protocol, &secret).unwrap();
        let mut record = Vec::new();
        cipher.seal(0, Kind::Data, &[173; 3], &mut record).unwrap();
        let opened: Opened<'_> = cipher.open(0, &mut record).unwrap();
        let printed = format!("{cipher:?} {keys:?} {opened:?}");
        assert!(!printed.contains("173") && !printed.contains("ad"), "{printed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_sealed_opens(seq: u64, plaintext in vec(any::<u8>(), 0..3000)) {
        for protocol in protocols() {
            check_round_trip(protocol, seq, Kind::Data, &plaintext);
        }
    }

    #[test]
    fn nothing_makes_it_panic(
        seq: u64,
        bytes in vec(any::<u8>(), 0..200),
        skip in prop_oneof![Just(0), any::<u32>()],
        claimed in 0..200u8,
    ) {
        let mut looks_right = bytes.clone();
        for (byte, right) in looks_right.iter_mut().zip([23, 3, 3, 0, claimed]) {
            *byte = right;
        }
        for protocol in protocols() {
            for bytes in [&bytes, &looks_right] {
                let framed = frame(protocol, bytes);
                if let Ok(Framed::Partial { missing }) = framed {
                    prop_assert!(missing > 0);
                }
                let len = match framed {
                    Ok(Framed::Whole { len }) => len,
                    _ => bytes.len(),
                };
                prop_assert!(cipher(protocol).open(seq, &mut bytes[..len].to_vec()).is_err());
            }
            for role in [Role::Client, Role::Server] {
                for kind in KINDS {
                    let mut left = Skip::from(skip);
                    let message = read(protocol, role, &Opened { kind, plaintext: &bytes }, &mut left);
                    let most = skip.max(131_337);
                    prop_assert!(message.is_err() || u32::from(left) <= most);
                }
            }
        }
    }
}
