//! What responses are worth: OpenSSL's, made by `tests/fixtures/ocsp/make`, and some that no responder should make.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ED25519, SigningKey};

use super::*;
use crate::tls::client_auth::tests::authority_with;
use crate::tls::ocsp::{Algorithms, NO_RESPONDER, UNCLEAR};

const DAY: u64 = 24 * 60 * 60;
const AUTHORITY_INFO_ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];

fn file(name: &str) -> Vec<u8> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ocsp");
    std::fs::read(directory.join(name)).unwrap()
}

fn certificate(name: &str) -> CertificateDer<'static> {
    file(&format!("{name}.crt.der")).into()
}

fn algorithms() -> Algorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms.all
}

/// So many seconds after the responses were made.
fn after(seconds: u64) -> UnixTime {
    let made: u64 = String::from_utf8(file("made")).unwrap().trim().parse().unwrap();
    UnixTime::since_unix_epoch(Duration::from_secs(made + seconds))
}

fn asked(
    own: &CertificateDer<'_>,
    root: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<Question, &'static str> {
    let anchor = webpki::anchor_from_trusted_cert(root).unwrap();
    Question::about(own, &[], &[anchor], algorithms(), now)
}

fn question(own: &str, issuer: &str) -> Question {
    asked(&certificate(own), &certificate(issuer), after(60)).unwrap()
}

fn said(response: &str, question: &Question, now: UnixTime) -> Result<Status, Flaw> {
    judge(&file(&format!("{response}.der")), question, now).map(|it| it.status)
}

#[test]
fn what_is_asked_is_what_openssl_asks() {
    let question = question("jane", "staff");
    assert_eq!(question.request().unwrap(), file("jane.req.der"));
    let [responder] = question.responders.as_slice() else { panic!("{question:?}") };
    assert_eq!(responder.label(), "http://ocsp.test:80/staff");
}

#[test]
fn openssls_answers_are_understood() {
    let now = after(60);
    for (response, own, issuer, status) in [
        ("good", "jane", "staff", Status::Good),
        ("revoked", "eve", "staff", Status::Revoked),
        ("unknown", "new", "staff", Status::Unknown),
        ("undated", "jane", "staff", Status::Good),
        ("delegated", "jane", "staff", Status::Good),
        ("delegated-by-key", "jane", "staff", Status::Good),
        ("delegated-revoked", "eve", "staff", Status::Revoked),
        ("rsa", "jane-of-rsa", "rsa", Status::Good),
        ("p384", "jane-of-p384", "p384", Status::Good),
    ] {
        let said = said(response, &question(own, issuer), now);
        assert!(matches!(said, Ok(it) if it == status), "{response}: {said:?}");
    }
}

#[test]
fn nobody_answers_for_an_issuer_but_whom_it_has_named() {
    let question = question("jane", "staff");
    for response in
        ["server-signed", "plain-signed", "stranger-signed", "without-certificate", "rsa", "p384"]
    {
        let said = said(response, &question, after(60));
        assert!(matches!(said, Err(Flaw::Signer)), "{response}: {said:?}");
    }
}

#[test]
fn an_answer_about_somebody_else_is_none() {
    let (jane, eve) = (question("jane", "staff"), question("eve", "staff"));
    assert!(matches!(said("good", &eve, after(60)), Err(Flaw::Other)));
    assert!(matches!(said("revoked", &jane, after(60)), Err(Flaw::Other)));
}

#[test]
fn an_answer_has_its_time() {
    let question = question("jane", "staff");
    let bytes = file("good.der");
    let first = Response::read(&bytes).unwrap().answers[0].this_update;
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let good = |now| judge(&bytes, &question, at(now));
    assert_eq!(good(first).unwrap().holds, 60 * DAY);
    assert!(matches!(good(first - SKEW - 1), Err(Flaw::NotYet)));
    assert_eq!(good(first - SKEW).unwrap().holds, 60 * DAY + SKEW);
    assert_eq!(good(first + 60 * DAY + SKEW).unwrap().holds, 0);
    assert!(matches!(good(first + 60 * DAY + SKEW + 1), Err(Flaw::Expired)));
    let bytes = file("undated.der");
    let first = Response::read(&bytes).unwrap().answers[0].this_update;
    let undated = |now| judge(&bytes, &question, at(now));
    assert!(matches!(undated(first - SKEW - 1), Err(Flaw::NotYet)));
    for later in [60, 30 * DAY] {
        assert_eq!(undated(first + later).unwrap().holds, UNDATED);
    }
}

#[test]
fn a_responders_own_certificate_has_its_time_too() {
    let question = question("jane", "staff");
    assert!(said("delegated", &question, after(29 * DAY)).is_ok());
    assert!(matches!(said("delegated", &question, after(31 * DAY)), Err(Flaw::Signer)));
}

#[test]
fn a_response_that_was_touched_or_cut_is_no_answer() {
    let question = question("jane", "staff");
    for name in ["good.der", "delegated.der"] {
        let whole = file(name);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut touched = whole.clone();
                touched[at] ^= 1 << bit;
                let said = judge(&touched, &question, after(60));
                assert!(said.is_err(), "{name}: byte {at}, bit {bit}");
            }
            assert!(judge(&whole[..at], &question, after(60)).is_err(), "{name}: cut at {at}");
        }
        let more = [&whole[..], b"\0"].concat();
        assert!(judge(&more, &question, after(60)).is_err(), "{name}: one byte more");
    }
}

#[test]
fn a_refusal_says_with_which_status() {
    let question = question("jane", "staff");
    let refused = judge(&[0x30, 3, 0x0a, 1, 3], &question, after(60)).unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains('3'), "{cause}");
    for junk in [&b""[..], b"<html>", &[0x30, 0x80], &[0x30, 3, 0x0a, 1, 0], &[0xff; 70]] {
        assert!(judge(junk, &question, after(60)).is_err(), "{junk:?}");
    }
}

/// An authority of these tests' own, to sign what OpenSSL would not.
struct Scene {
    key: KeyPair,
    root: CertificateDer<'static>,
    question: Question,
    /// `CertID`, as it stands in the question.
    id: Vec<u8>,
}

/// One DER value.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        short @ 0..0x80 => vec![u8::try_from(short).unwrap()],
        0x80..0x100 => vec![0x81, length[1]],
        _ => vec![0x82, length[0], length[1]],
    };
    [&[tag][..], &length, &content].concat()
}

const GOOD: &[u8] = &[0x80, 0];
const REVOKED: &[u8] = b"\xa1\x11\x18\x0f20260101000000Z";
const TIME: &[u8] = b"\x18\x0f20261126000000Z";
const NOW: u64 = 1_795_651_200 + 60;

/// What is said of one certificate.
fn single(id: &[u8], status: &[u8], more: &[u8]) -> Vec<u8> {
    tlv(0x30, &[id, status, TIME, more])
}

impl Scene {
    fn new(key: KeyPair) -> Self {
        let [root, own] = authority_with(&key, |own| {
            let uri = tlv(0x86, &[b"http://ocsp.test/"]);
            let access =
                tlv(0x30, &[&tlv(0x30, &[b"\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01", &uri])]);
            let access = rcgen::CustomExtension::from_oid_content(&AUTHORITY_INFO_ACCESS, access);
            own.custom_extensions.push(access);
        });
        let question = asked(&own, &root, now()).unwrap();
        let request = question.request().unwrap();
        // Four sequences of one thing each, with short lengths.
        let id = request[8..].to_vec();
        Self { key, root, question, id }
    }

    /// A signed response of these answers.
    fn response(&self, answers: &[Vec<u8>], before: &[u8], behind: &[u8]) -> Vec<u8> {
        let name = tlv(0xa1, &[&tlv(0x30, &[])]);
        let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
        let signed = tlv(0x30, &[before, &name, TIME, &tlv(0x30, &answers), behind]);
        let algorithm: &[u8] = if self.key.algorithm() == &PKCS_ED25519 {
            b"\x30\x05\x06\x03\x2b\x65\x70"
        } else {
            b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"
        };
        let signature = tlv(3, &[&[0], &self.key.sign(&signed).unwrap()]);
        let basic = tlv(4, &[&tlv(0x30, &[&signed, algorithm, &signature])]);
        let kind = b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01";
        let bytes = tlv(0xa0, &[&tlv(0x30, &[kind, &basic])]);
        tlv(0x30, &[&[0x0a, 1, 0], &bytes])
    }

    fn judge(&self, answers: &[Vec<u8>], before: &[u8], behind: &[u8]) -> Result<Status, Flaw> {
        let response = self.response(answers, before, behind);
        judge(&response, &self.question, now()).map(|it| it.status)
    }
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW))
}

#[test]
fn a_response_by_hand_is_read_whatever_kind_of_key_signs_it() {
    for key in [KeyPair::generate().unwrap(), KeyPair::generate_for(&PKCS_ED25519).unwrap()] {
        let scene = Scene::new(key);
        let good = single(&scene.id, GOOD, b"");
        assert_eq!(scene.judge(std::slice::from_ref(&good), b"", b"").unwrap(), Status::Good);
        let revoked = single(&scene.id, REVOKED, b"");
        assert_eq!(scene.judge(&[revoked], b"", b"").unwrap(), Status::Revoked);
        // What has its default may be said all the same: the signature is over the bytes that came.
        assert_eq!(scene.judge(&[good], b"\xa0\x03\x02\x01\x00", b"").unwrap(), Status::Good);
    }
}

#[test]
fn what_is_not_understood_is_not_passed_over() {
    let scene = Scene::new(KeyPair::generate().unwrap());
    let extension = |critical: &[u8]| {
        tlv(0xa1, &[&tlv(0x30, &[&tlv(0x30, &[b"\x06\x03\x2a\x03\x04", critical, b"\x04\x00"])])])
    };
    let (harmless, critical) = (extension(b""), extension(b"\x01\x01\xff"));
    let good = |more| [single(&scene.id, GOOD, more)];
    assert_eq!(scene.judge(&good(&harmless), b"", &harmless).unwrap(), Status::Good);
    for (single, whole) in [(&critical, &harmless), (&harmless, &critical)] {
        let said = scene.judge(&good(single), b"", whole);
        assert!(matches!(said, Err(Flaw::Unreadable(Unreadable::Critical))), "{said:?}");
    }
    let newer = scene.judge(&good(b""), b"\xa0\x03\x02\x01\x01", b"");
    assert!(matches!(newer, Err(Flaw::Unreadable(Unreadable::Kind))), "{newer:?}");
    let odd = single(&scene.id, &[0x83, 0], b"");
    assert!(matches!(scene.judge(&[odd], b"", b""), Err(Flaw::Unreadable(_))));
}

#[test]
fn among_many_answers_the_one_that_was_asked_for_is_found() {
    let scene = Scene::new(KeyPair::generate().unwrap());
    let mut other = scene.id.clone();
    *other.last_mut().unwrap() ^= 1;
    // Named by another digest: it may be the same certificate, and that is not known.
    let unknown = tlv(
        0x30,
        &[
            b"\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01",
            &tlv(4, &[&[1; 32]]),
            &tlv(4, &[&[2; 32]]),
            &[2, 1, 5],
        ],
    );
    let others = [single(&unknown, REVOKED, b""), single(&other, REVOKED, b"")];
    let said = scene.judge(&others, b"", b"");
    assert!(matches!(said, Err(Flaw::Other)), "{said:?}");
    let all = [&others[..], &[single(&scene.id, GOOD, b"")]].concat();
    assert_eq!(scene.judge(&all, b"", b"").unwrap(), Status::Good);
    assert!(matches!(scene.judge(&[], b"", b""), Err(Flaw::Other)));
}

#[test]
fn there_is_no_question_without_a_chain_or_an_address() {
    let scene = Scene::new(KeyPair::generate().unwrap());
    let [other, own] = authority_with(&KeyPair::generate().unwrap(), |_| {});
    assert_eq!(asked(&own, &other, now()).err(), Some(NO_RESPONDER));
    assert_eq!(asked(&own, &scene.root, now()).err(), Some(UNCLEAR));
    let junk = CertificateDer::from(vec![1, 2, 3]);
    assert_eq!(asked(&junk, &scene.root, now()).err(), Some(UNCLEAR));
}

#[test]
fn an_issuer_that_the_client_brings_along_is_the_one_of_its_chain() {
    // The client shows an authority of the same name with another key, before the one that has signed.
    let staff = certificate("staff");
    let [impostor, _] = authority_with(&KeyPair::generate().unwrap(), |_| {});
    let anchor = webpki::anchor_from_trusted_cert(&staff).unwrap();
    let jane = certificate("jane");
    let found = Question::about(&jane, &[impostor], &[anchor], algorithms(), after(60)).unwrap();
    assert_eq!(found.subject, question("jane", "staff").subject);
}
