//! Records that are none, or not what they were: each is refused with the right alert.

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{KINDS, cipher, protocols, sealed, secret};
use crate::tls::keys::{Protocol, Suite, Version};
use crate::tls::record::{
    Cipher, EXPLICIT_NONCE, Framed, HEADER, Kind, MOST_PLAINTEXT, TAG, Violation, frame, key_of,
};

const BAD_RECORD_MAC: u8 = 20;
const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;
const PROTOCOL_VERSION: u8 = 70;

/// A record of number 0 that is sealed well, whatever it says.
fn forged(protocol: Protocol, outer: u8, inner: &[u8]) -> Vec<u8> {
    let algorithm = match protocol.suite {
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    let keys = key_of(protocol, &secret(protocol, 1)).unwrap();
    let key = LessSafeKey::new(UnboundKey::new(algorithm, keys.key()).unwrap());
    let explicit = if protocol.has_explicit_nonce() { &keys.iv()[4..] } else { &[] };
    let fragment = u16::try_from(explicit.len() + inner.len() + TAG).unwrap().to_be_bytes();
    let header = [outer, 3, 3, fragment[0], fragment[1]];
    let inner_len = u16::try_from(inner.len()).unwrap().to_be_bytes();
    let associated = match protocol.version {
        Version::Tls12 => [&[0; 8], &header[..3], &inner_len].concat(),
        Version::Tls13 => header.to_vec(),
    };
    let mut inner = inner.to_vec();
    let nonce = Nonce::assume_unique_for_key(*keys.iv());
    key.seal_in_place_append_tag(nonce, Aad::from(associated), &mut inner).unwrap();
    [&header, explicit, &inner].concat()
}

fn opened(protocol: Protocol, mut record: Vec<u8>) -> Result<(Kind, Vec<u8>), Violation> {
    let opened = cipher(protocol).open(0, &mut record)?;
    Ok((opened.kind, opened.plaintext.to_vec()))
}

fn refused(protocol: Protocol, record: Vec<u8>) -> u8 {
    opened(protocol, record).unwrap_err().alert()
}

fn of(version: Version) -> impl Iterator<Item = Protocol> {
    protocols().filter(move |protocol| protocol.version == version)
}

#[test]
fn no_bit_can_be_changed() {
    for protocol in protocols() {
        for kind in KINDS {
            let record = sealed(protocol, 0, kind, b"some bytes");
            for at in 0..record.len() * 8 {
                let mut record = record.clone();
                record[at / 8] ^= 1 << (at % 8);
                opened(protocol, record).unwrap_err();
            }
        }
    }
}

#[test]
fn a_record_has_one_number_and_one_secret() {
    for protocol in protocols() {
        let record = sealed(protocol, 7, Kind::Data, b"some bytes");
        let other = Cipher::new(protocol, &secret(protocol, 2)).unwrap();
        for (cipher, seq) in [(&cipher(protocol), 6), (&cipher(protocol), 8), (&other, 7)] {
            let error = cipher.open(seq, &mut record.clone()).unwrap_err();
            assert_eq!(error, Violation::BadRecordMac);
        }
    }
}

#[test]
fn a_cut_record_is_not_opened_and_says_what_it_lacks() {
    for protocol in protocols() {
        let record = sealed(protocol, 0, Kind::Data, b"some bytes");
        for len in 0..record.len() {
            let end = if len < HEADER { HEADER } else { record.len() };
            let cut = record[..len].to_vec();
            assert_eq!(frame(protocol, &cut), Ok(Framed::Partial { missing: end - len }));
            assert_eq!(opened(protocol, cut), Err(Violation::NotOne));
        }
        let two = [record.clone(), record.clone()].concat();
        assert_eq!(frame(protocol, &two), Ok(Framed::Whole { len: record.len() }));
        assert_eq!(opened(protocol, two), Err(Violation::NotOne));
    }
}

#[test]
fn a_header_is_refused_as_soon_as_it_tells() {
    let refused = |protocol, bytes: &[u8]| frame(protocol, bytes).unwrap_err().alert();
    for protocol in protocols() {
        for outer in (0..20).chain(24..=u8::MAX) {
            assert_eq!(frame(protocol, &[outer]), Err(Violation::Type(outer)));
            assert_eq!(refused(protocol, &[outer]), UNEXPECTED_MESSAGE);
        }
        assert_eq!(frame(protocol, &[20]), Err(Violation::ChangeCipherSpec));
        assert_eq!(refused(protocol, &[20, 3, 3, 0, 1, 1]), UNEXPECTED_MESSAGE);
        for version in [&[23, 2][..], &[23, 4], &[23, 3, 1], &[23, 3, 4]] {
            assert_eq!(refused(protocol, version), PROTOCOL_VERSION);
        }
        let (most, least) = match (protocol.version, protocol.suite) {
            (Version::Tls13, _) => (16_384 + 256, 17),
            (Version::Tls12, Suite::Chacha20Poly1305) => (16_384 + 2048, 16),
            (Version::Tls12, _) => (16_384 + 2048, 24),
        };
        let header = |len: u16| [&[23, 3, 3], &len.to_be_bytes()[..]].concat();
        for len in [least, most] {
            let missing = usize::from(len);
            assert_eq!(frame(protocol, &header(len)), Ok(Framed::Partial { missing }));
        }
        assert_eq!(refused(protocol, &header(most + 1)), RECORD_OVERFLOW);
        assert_eq!(refused(protocol, &header(u16::MAX)), RECORD_OVERFLOW);
        assert_eq!(refused(protocol, &header(least - 1)), BAD_RECORD_MAC);
        assert_eq!(refused(protocol, &header(0)), BAD_RECORD_MAC);
    }
}

#[test]
fn tls_13_shows_nothing_but_data() {
    for protocol in of(Version::Tls13) {
        for outer in [21, 22] {
            assert_eq!(frame(protocol, &[outer]), Err(Violation::Type(outer)));
            let record = forged(protocol, outer, &[1, 0, 21]);
            assert_eq!(opened(protocol, record), Err(Violation::Type(outer)));
        }
    }
}

#[test]
fn padding_is_taken_off() {
    for protocol in of(Version::Tls13) {
        for padding in [0, 1, 100, MOST_PLAINTEXT - 2] {
            let inner = [&[7, 0, 23][..], &vec![0; padding]].concat();
            let expected = Ok((Kind::Data, vec![7, 0]));
            assert_eq!(opened(protocol, forged(protocol, 23, &inner)), expected);
        }
        for len in [1, 2, 100, MOST_PLAINTEXT + 1] {
            let record = forged(protocol, 23, &vec![0; len]);
            assert_eq!(opened(protocol, record.clone()), Err(Violation::PaddingOnly));
            assert_eq!(refused(protocol, record), UNEXPECTED_MESSAGE);
        }
    }
}

#[test]
fn the_kind_inside_is_checked() {
    for protocol in of(Version::Tls13) {
        for kind in (1..=u8::MAX).filter(|kind| ![21, 22, 23].contains(kind)) {
            let record = forged(protocol, 23, &[1, kind]);
            assert_eq!(refused(protocol, record), UNEXPECTED_MESSAGE);
        }
    }
}

#[test]
fn plaintext_has_a_limit_of_its_own() {
    for protocol in protocols() {
        let most = vec![23; MOST_PLAINTEXT];
        // In TLS 1.3 the kind follows, and padding counts as plaintext.
        let (most, over) = match protocol.version {
            Version::Tls12 => (most.clone(), vec![vec![23; MOST_PLAINTEXT + 1]]),
            Version::Tls13 => {
                let most = [most, vec![23]].concat();
                let padded = [vec![23], vec![0; MOST_PLAINTEXT + 1]].concat();
                (most.clone(), vec![[most, vec![23]].concat(), padded])
            }
        };
        let (_, plaintext) = opened(protocol, forged(protocol, 23, &most)).unwrap();
        assert_eq!(plaintext.len(), MOST_PLAINTEXT);
        for over in over {
            assert_eq!(refused(protocol, forged(protocol, 23, &over)), RECORD_OVERFLOW);
        }
    }
}

#[test]
fn a_peer_may_choose_its_explicit_nonces() {
    for protocol in of(Version::Tls12).filter(|protocol| protocol.has_explicit_nonce()) {
        // Sealed as number 9, but with the associated data of 0: only the explicit part differs.
        let keys = key_of(protocol, &secret(protocol, 1)).unwrap();
        let mut base = keys.iv().to_vec();
        base[11] ^= 9;
        let other = [keys.key(), &base].concat();
        let other = crate::tls::keys::Secret::new(&other).unwrap();
        let mut record = Vec::new();
        let cipher = Cipher::new(protocol, &other).unwrap();
        cipher.seal(0, Kind::Data, b"some bytes", &mut record).unwrap();
        assert_eq!(record[HEADER..HEADER + EXPLICIT_NONCE], base[4..]);
        assert_eq!(opened(protocol, record), Ok((Kind::Data, b"some bytes".to_vec())));
    }
}
