//! Fingerprints of messages whose fingerprints others have published, and of odd ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "tests")]

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// As Chrome sends them, with GREASE at either end of each list.
const SUITES: [u16; 16] = [
    0x2A2A, 0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014,
    0x009C, 0x009D, 0x002F, 0x0035,
];
const EXTENSIONS: [u16; 18] = [
    0x1A1A, 0x001B, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002D, 0x000D, 0x0005, 0x0023, 0x0012,
    0x002B, 0xFF01, 0x000B, 0x000A, 0x0015, 0xFAFA,
];
const SIGNATURES: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];

fn block(width: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[4 - width..], content].concat()
}

fn codes(codes: &[u16]) -> Vec<u8> {
    codes.iter().flat_map(|code| code.to_be_bytes()).collect()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), block(2, content)].concat()
}

fn message(version: u16, suites: &[u16], extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.extend(block(1, &[9; 32]));
    body.extend(block(2, &codes(suites)));
    body.extend(block(1, &[0]));
    body.extend(extensions.map(|extensions| block(2, extensions)).unwrap_or_default());
    [vec![CLIENT_HELLO], block(3, &body)].concat()
}

fn chrome() -> Vec<u8> {
    let content = |kind| match kind {
        SIGNATURE_ALGORITHMS => block(2, &codes(&SIGNATURES)),
        PROTOCOLS => block(2, &[block(1, b"h2"), block(1, b"http/1.1")].concat()),
        SUPPORTED_VERSIONS => block(1, &codes(&[0xBABA, 0x0304, 0x0303])),
        _ => vec![1, 2, 3],
    };
    let extensions: Vec<u8> =
        EXTENSIONS.iter().flat_map(|kind| extension(*kind, &content(*kind))).collect();
    message(0x0303, &SUITES, Some(&extensions))
}

fn with_protocol(protocol: &[u8]) -> String {
    let protocols = extension(PROTOCOLS, &block(2, &block(1, protocol)));
    told(&message(0x0303, &[0x1301], Some(&protocols)))
}

fn told(message: &[u8]) -> String {
    of(message).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_browser_has_the_fingerprint_that_is_published_of_it() {
    assert_eq!(told(&chrome()), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    let followed = [chrome(), vec![0xFF; 100]].concat();
    assert_eq!(of(&followed), of(&chrome()));
}

#[test]
fn the_order_of_suites_and_extensions_does_not_matter_and_that_of_signatures_does() {
    let message = chrome();
    let hello = Hello { signatures: vec![1, 2], ..Hello::read(&message).unwrap() };
    let turned = |mut codes: Vec<u16>| {
        codes.reverse();
        codes
    };
    let other = Hello {
        suites: turned(hello.suites.clone()),
        extensions: turned(hello.extensions.clone()),
        signatures: vec![1, 2],
        ..Hello::read(&message).unwrap()
    };
    assert_ne!(hello, other);
    assert_eq!(hello.fingerprint(), other.fingerprint());
    let other = Hello { signatures: vec![2, 1], ..other };
    assert_ne!(hello.fingerprint(), other.fingerprint());
}

#[test]
fn what_is_not_there_is_told_as_nothing() {
    assert_eq!(told(&message(0x0301, &[], None)), "t10i000000_000000000000_000000000000");
    assert_eq!(told(&message(0x0303, &[], Some(&[]))), "t12i000000_000000000000_000000000000");
    let versions = [(0x0304, "13"), (0x0302, "11"), (0x0300, "s3"), (0x0002, "s2"), (0x7F1C, "00")];
    for (version, name) in versions {
        assert_eq!(&told(&message(version, &[], None))[1..3], name);
    }
    let only_grease = extension(SUPPORTED_VERSIONS, &block(1, &codes(&[0x1A1A])));
    assert!(told(&message(0x0303, &[], Some(&only_grease))).starts_with("t12i0001"));
    // Without signatures there is no underscore to be hashed: printf 002b | sha256sum.
    assert!(told(&message(0x0303, &[], Some(&only_grease))).ends_with("_b9a491fefe05"));
}

#[test]
fn long_lists_are_counted_up_to_99() {
    let suites: Vec<u16> = (0..150).map(|it| 0xC000 + it).collect();
    assert!(told(&message(0x0303, &suites, None)).starts_with("t12i990000_"));
}

#[test]
fn a_protocol_is_told_by_its_ends() {
    let ends = |protocol: &[u8]| with_protocol(protocol)[8..10].to_owned();
    assert_eq!(ends(b"http/1.1"), "h1");
    assert_eq!(ends(b"h"), "hh");
    assert_eq!(ends(&[0xAB]), "ab");
    assert_eq!(ends(&[0xAB, 0xCD]), "ad");
    assert_eq!(ends(&[0x30, 0x31, 0xAB, 0xCD]), "3d");
    assert_eq!(ends(b""), "00");
}

#[test]
fn half_a_message_has_none() {
    let whole = chrome();
    for length in 0..whole.len() {
        assert_eq!(of(&whole[..length]), None, "{length}");
    }
    let another = [vec![2], whole[1..].to_vec()].concat();
    assert_eq!(of(&another), None);
    let odd = message(0x0303, &[0x1301], Some(&extension(SIGNATURE_ALGORITHMS, &[0, 1, 4])));
    assert_eq!(of(&odd), None);
    assert_eq!(of(&message(0x0303, &[], Some(&extension(PROTOCOLS, &[])))), None);
}

/// Suites and signatures are what rustls says that it offers.
#[test]
fn rustls_is_read_as_it_offers() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("chat.test").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut record = Vec::new();
    client.write_tls(&mut record).unwrap();
    let hello = Hello::read(&record[5..]).unwrap();
    let mut suites: Vec<u16> =
        provider.cipher_suites.iter().map(|suite| suite.suite().into()).collect();
    // It also says that it can renegotiate safely, by the suite that means so (RFC 5746).
    suites.push(0x00FF);
    assert_eq!(hello.suites, suites);
    assert_eq!((hello.version, hello.protocol), (0x0304, Some(&b"http/1.1"[..])));
    assert!(hello.extensions.contains(&SERVER_NAME) && !hello.signatures.is_empty());
    assert!(hello.fingerprint().starts_with(&format!("t13d{:02}", suites.len())));
}
