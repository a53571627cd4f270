//! What records say, and what they must not.

use crate::tls::keys::{Protocol, Role, Suite, Version};
use crate::tls::record::{
    Kind, Message, Opened, Skip, Violation, close_notify, fatal_alert, key_update,
};

const TLS12: Protocol = Protocol { version: Version::Tls12, suite: Suite::Aes128Gcm };
const TLS13: Protocol = Protocol { version: Version::Tls13, suite: Suite::Aes128Gcm };
const BOTH: [Protocol; 2] = [TLS12, TLS13];
const ROLES: [Role; 2] = [Role::Client, Role::Server];

fn read(
    protocol: Protocol,
    role: Role,
    kind: Kind,
    plaintext: &[u8],
) -> Result<Message, Violation> {
    let mut skip = Skip::default();
    let message = super::read(protocol, role, &Opened { kind, plaintext }, &mut skip);
    assert!(message.is_err() || skip == Skip::default(), "{skip:?}");
    message
}

/// A client of TLS 1.3 reads records one after the other.
fn read_all(records: &[(Kind, &[u8])]) -> Result<(Vec<Message>, u32), Violation> {
    let mut skip = Skip::default();
    let mut messages = Vec::new();
    for &(kind, plaintext) in records {
        messages.push(super::read(TLS13, Role::Client, &Opened { kind, plaintext }, &mut skip)?);
        // What a successor would be left with.
        skip = Skip::from(u32::from(skip));
    }
    Ok((messages, skip.into()))
}

fn ticket(len: u32) -> Vec<u8> {
    let header = (4 << 24) | len;
    [&header.to_be_bytes()[..], &vec![24; len.try_into().unwrap()]].concat()
}

#[test]
fn data_is_data_even_if_there_is_none() {
    for (protocol, role) in BOTH.into_iter().zip(ROLES) {
        assert_eq!(read(protocol, role, Kind::Data, b"x"), Ok(Message::Data));
        assert_eq!(read(protocol, role, Kind::Data, b""), Ok(Message::Data));
        for kind in [Kind::Alert, Kind::Handshake] {
            assert_eq!(read(protocol, role, kind, b""), Err(Violation::Empty));
        }
    }
}

#[test]
fn alerts_mean_what_their_version_says() {
    let alert = |protocol, bytes: &[u8]| read(protocol, Role::Server, Kind::Alert, bytes);
    for protocol in BOTH {
        assert_eq!(alert(protocol, &close_notify()), Ok(Message::Closed));
        assert_eq!(alert(protocol, &[2, 0]), Ok(Message::Closed));
        assert_eq!(alert(protocol, &fatal_alert(20)), Ok(Message::PeerAlert(20)));
        assert_eq!(alert(protocol, &[1, 90]), Ok(Message::Nothing));
        for malformed in [&[1][..], &[1, 0, 0], &[1, 0, 1, 0]] {
            assert_eq!(alert(protocol, malformed), Err(Violation::MalformedAlert));
        }
    }
    assert_eq!(alert(TLS12, &[1, 20]), Ok(Message::Nothing));
    assert_eq!(alert(TLS12, &[2, 90]), Ok(Message::PeerAlert(90)));
    assert_eq!(alert(TLS12, &[3, 20]).unwrap_err().alert(), 47);
    assert_eq!(alert(TLS13, &[1, 20]), Ok(Message::PeerAlert(20)));
    assert_eq!(alert(TLS13, &[3, 20]), Ok(Message::PeerAlert(20)));
}

#[test]
fn a_key_update_ends_its_record() {
    for role in ROLES {
        let handshake = |bytes: &[u8]| read(TLS13, role, Kind::Handshake, bytes);
        for requested in [false, true] {
            let update = key_update(requested);
            assert_eq!(handshake(&update), Ok(Message::KeyUpdate { requested }));
            let behind = [&update[..], &update].concat();
            assert_eq!(handshake(&behind), Err(Violation::BehindKeyUpdate));
            assert_eq!(handshake(&behind).unwrap_err().alert(), 10);
        }
        assert_eq!(handshake(&[24, 0, 0, 1, 2]).unwrap_err().alert(), 47);
        for malformed in [&[24, 0, 0, 1][..], &[24, 0, 0, 0], &[24, 0, 0, 2, 0, 0], &[24, 0, 0]] {
            assert_eq!(handshake(malformed).unwrap_err().alert(), 50, "{malformed:?}");
        }
    }
}

#[test]
fn tickets_may_share_records_and_span_them() {
    use Message::Nothing;
    let hs = Kind::Handshake;
    let (one, two) = (ticket(14), ticket(200));
    let joined = [one.clone(), two.clone()].concat();
    assert_eq!(read_all(&[(hs, &joined)]), Ok((vec![Nothing], 0)));
    let updated = [&joined[..], &key_update(true)].concat();
    let update = Message::KeyUpdate { requested: true };
    assert_eq!(read_all(&[(hs, &updated)]), Ok((vec![update], 0)));
    for cut in 4..two.len() {
        let (begin, end) = two.split_at(cut);
        let rest = u32::try_from(end.len()).unwrap();
        assert_eq!(read_all(&[(hs, begin)]), Ok((vec![Nothing], rest)));
        let more = [end, &updated].concat();
        assert_eq!(read_all(&[(hs, begin), (hs, &more)]), Ok((vec![Nothing, update], 0)));
    }
    let long = ticket(131_337);
    let records: Vec<_> = long.chunks(1000).map(|chunk| (hs, chunk)).collect();
    assert_eq!(read_all(&records), Ok((vec![Nothing; records.len()], 0)));
}

#[test]
fn tickets_have_bounds() {
    for len in [0_u32, 13, 131_338, 0x00ff_ffff] {
        let header = ((4 << 24) | len).to_be_bytes();
        let error = read_all(&[(Kind::Handshake, &header)]).unwrap_err();
        assert_eq!(error, Violation::MalformedHandshake(4));
    }
    for cut in 1..4 {
        let error = read_all(&[(Kind::Handshake, &ticket(14)[..cut])]).unwrap_err();
        assert_eq!((error, error.alert()), (Violation::CutHeader, 50));
    }
}

#[test]
fn nothing_comes_in_between() {
    let begin = &ticket(50)[..20];
    for (kind, other) in [(Kind::Data, &b"x"[..]), (Kind::Data, b""), (Kind::Alert, &[1, 0])] {
        let error = read_all(&[(Kind::Handshake, begin), (kind, other)]).unwrap_err();
        assert_eq!((error, error.alert()), (Violation::Interleaved, 10));
    }
    let empty = read_all(&[(Kind::Handshake, begin), (Kind::Handshake, b"")]);
    assert_eq!(empty, Err(Violation::Empty));
}

#[test]
fn other_handshake_messages_are_refused() {
    for kind in 0..=u8::MAX {
        for role in ROLES {
            let refused = |protocol| {
                let error = read(protocol, role, Kind::Handshake, &[kind, 0, 0, 0]);
                error.map_err(Violation::alert)
            };
            let expected = match (role, kind) {
                (Role::Client, 4) | (_, 24) => Err(50),
                _ => Err(10),
            };
            assert_eq!(refused(TLS13), expected, "{role:?} {kind}");
            let expected = match (role, kind) {
                (Role::Client, 0) => Ok(Message::Nothing),
                (Role::Server, 1) => Err(100),
                _ => Err(10),
            };
            assert_eq!(refused(TLS12), expected, "{role:?} {kind}");
        }
    }
}

#[test]
fn a_client_may_be_asked_to_shake_hands_anew() {
    let ask = |bytes: &[u8]| read(TLS12, Role::Client, Kind::Handshake, bytes);
    assert_eq!(ask(&[0; 8]), Ok(Message::Nothing));
    for malformed in [&[0; 3][..], &[0; 6], &[0, 0, 0, 1, 0]] {
        assert_eq!(ask(malformed).unwrap_err().alert(), 50);
    }
}
