//! A certificate of the gateway's own as clients are shown it: with what its OCSP responder says of it, while that holds.
//!
//! A staple that proves nothing would make clients refuse a good certificate, so it is looked at like any other answer
//! before anybody sees it, and is left out from its end on. What was shown before stays until its own end while nothing
//! better comes: a supervisor that has just begun knows of none, and a responder may be down or talk nonsense.

use std::sync::Arc;

use rustls::pki_types::UnixTime;
use rustls::sign::CertifiedKey;

use super::ocsp::{Algorithms, Flaw, Question, Status, judge};

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Shown {
    bare: Arc<CertifiedKey>,
    stapled: Option<Stapled>,
}

#[derive(Debug)]
struct Stapled {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    until: u64,
}

/// What is known to be shown with a certificate.
#[derive(Debug)]
pub(crate) struct Staple<'a> {
    /// Whether anything is to be.
    pub(crate) wanted: bool,
    /// What a responder has said; empty: nothing new.
    pub(crate) answer: Vec<u8>,
    /// What was shown before.
    pub(crate) previous: &'a [Shown],
}

/// Why an answer is not shown.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("its issuer is not in its chain")]
    Issuer,
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error("the certificate was revoked")]
    Revoked,
    #[error("the certificate is not known there")]
    Unknown,
}

// === impl Shown ===

impl Shown {
    /// With a staple, if there is one that is good now. The name is for the log.
    pub(crate) fn new(
        name: &str,
        key: CertifiedKey,
        staple: Staple<'_>,
        algorithms: Algorithms,
        now: UnixTime,
    ) -> Self {
        let Staple { wanted, answer, previous } = staple;
        let with = |answer: &[u8], until| {
            let key = CertifiedKey { ocsp: Some(answer.to_vec()), ..key.clone() };
            Stapled { key: Arc::new(key), until }
        };
        let previous = previous.iter().filter(|it| wanted && it.bare.cert == key.cert);
        let mut previous = previous.filter_map(|it| it.stapled.as_ref());
        let kept = previous.find_map(|it| Some((it.key.ocsp.as_deref()?, it.until)));
        let stapled = match kept {
            // It came when it came: one that does not say how long it holds must not begin anew with each snapshot.
            Some((shown, until)) if answer.is_empty() || answer == shown => {
                Some(with(shown, until))
            }
            _ if !wanted || answer.is_empty() => None,
            kept => match until(&key, &answer, algorithms, now) {
                Ok(until) => Some(with(&answer, until)),
                Err(why) => {
                    tracing::warn!(
                        certificate = name,
                        why = %why,
                        "what an OCSP responder says of a certificate is not shown"
                    );
                    // Whoever answers for the issuer has taken back what was said.
                    let kept = kept.filter(|_| !matches!(why, Unfit::Revoked));
                    kept.map(|(shown, until)| with(shown, until))
                }
            },
        };
        Self { bare: Arc::new(key), stapled }
    }

    /// As clients are shown it at a time.
    pub(crate) fn at(&self, now: UnixTime) -> &Arc<CertifiedKey> {
        let stapled = self.stapled.as_ref().filter(|it| now.as_secs() < it.until);
        stapled.map_or(&self.bare, |it| &it.key)
    }
}

/// Until when an answer is worth showing, or why it is not.
fn until(
    key: &CertifiedKey,
    answer: &[u8],
    algorithms: Algorithms,
    now: UnixTime,
) -> Result<u64, Unfit> {
    let question = Question::about_own(&key.cert, algorithms).ok_or(Unfit::Issuer)?;
    let judgement = judge(answer, &question, now)?;
    match judgement.status {
        Status::Good => Ok(now.as_secs().saturating_add(judgement.holds)),
        Status::Revoked => Err(Unfit::Revoked),
        Status::Unknown => Err(Unfit::Unknown),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn file(name: &str) -> Vec<u8> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/ocsp/");
        std::fs::read(format!("{directory}{name}")).unwrap()
    }

    fn after(seconds: u64) -> UnixTime {
        let made: u64 = String::from_utf8(file("made")).unwrap().trim().parse().unwrap();
        UnixTime::since_unix_epoch(Duration::from_secs(made + seconds))
    }

    /// Jane's chain, as if it were the gateway's own. Nobody signs with it.
    fn shown(names: &[&str], answer: Vec<u8>) -> Shown {
        shown_at(names, Staple { wanted: true, answer, previous: &[] }, 60)
    }

    fn shown_at(names: &[&str], staple: Staple<'_>, at: u64) -> Shown {
        let provider = rustls::crypto::ring::default_provider();
        let chain = names.iter().map(|name| CertificateDer::from(file(&format!("{name}.crt.der"))));
        let key = rcgen::KeyPair::generate().unwrap().serialize_der();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let key = CertifiedKey::new(
            chain.collect(),
            provider.key_provider.load_private_key(key).unwrap(),
        );
        let algorithms = provider.signature_verification_algorithms.all;
        Shown::new("c", key, staple, algorithms, after(at))
    }

    #[test]
    fn a_good_staple_is_shown_until_its_end() {
        let shown = shown(&["jane", "staff"], file("good.der"));
        for at in [60, 59 * DAY] {
            assert_eq!(shown.at(after(at)).ocsp, Some(file("good.der")));
        }
        assert_eq!(shown.at(after(60 * DAY + 60)).ocsp, None);
    }

    #[test]
    fn a_staple_that_proves_nothing_is_not_shown() {
        for (chain, staple) in [
            (&["jane", "staff"][..], Vec::new()),
            (&["jane", "staff"], b"<html>".to_vec()),
            (&["jane", "staff"], file("stranger-signed.der")),
            (&["jane", "staff"], file("revoked.der")),
            (&["eve", "staff"], file("revoked.der")),
            (&["new", "staff"], file("unknown.der")),
            (&["jane", "rsa"], file("good.der")),
            (&["jane"], file("good.der")),
        ] {
            assert_eq!(shown(chain, staple).at(after(60)).ocsp, None, "{chain:?}");
        }
    }

    #[test]
    fn what_was_shown_stays_until_its_end_while_nothing_better_comes() {
        let jane = &["jane", "staff"];
        let mut before = [shown(jane, file("good.der"))];
        // One after the other, as snapshots come.
        for answer in [Vec::new(), b"<html>".to_vec(), file("unknown.der"), file("good.der")] {
            let staple = Staple { wanted: true, answer, previous: &before };
            let next = shown_at(jane, staple, DAY);
            assert_eq!(next.at(after(59 * DAY)).ocsp, Some(file("good.der")));
            assert_eq!(next.at(after(60 * DAY + 60)).ocsp, None);
            before = [next];
        }
        let newer = Staple { wanted: true, answer: file("delegated.der"), previous: &before };
        assert_eq!(shown_at(jane, newer, DAY).at(after(DAY)).ocsp, Some(file("delegated.der")));
    }

    #[test]
    fn what_was_shown_goes_with_its_certificate_when_it_is_turned_off_and_when_it_is_revoked() {
        let (jane, eve) = (&["jane", "staff"][..], &["eve", "staff"][..]);
        let before = [shown(jane, file("good.der"))];
        let none = |names: &[&str], wanted, answer, previous: &[Shown]| {
            let staple = Staple { wanted, answer, previous };
            shown_at(names, staple, 60).at(after(60)).ocsp.is_none()
        };
        assert!(none(jane, false, Vec::new(), &before), "turned off");
        assert!(none(jane, false, file("good.der"), &[]), "not wanted");
        assert!(none(eve, true, Vec::new(), &before), "another certificate");
        assert!(!none(jane, true, Vec::new(), &before));
        // Eve's, who was good once.
        let good = |key: &Arc<CertifiedKey>| {
            let key = CertifiedKey { ocsp: Some(b"good".to_vec()), ..CertifiedKey::clone(key) };
            Some(Stapled { key: Arc::new(key), until: u64::MAX })
        };
        let bare = shown(eve, Vec::new()).bare;
        let before = [Shown { stapled: good(&bare), bare }];
        assert!(!none(eve, true, Vec::new(), &before));
        assert!(none(eve, true, file("revoked.der"), &before), "revoked");
    }

    #[test]
    fn an_answer_that_names_no_end_holds_an_hour_from_when_it_first_came() {
        let jane = &["jane", "staff"];
        let answer = || file("undated.der");
        let first = shown_at(jane, Staple { wanted: true, answer: answer(), previous: &[] }, DAY);
        let again = Staple { wanted: true, answer: answer(), previous: &[first] };
        let again = shown_at(jane, again, DAY + 3000);
        assert_eq!(again.at(after(DAY + 3599)).ocsp, Some(answer()));
        assert_eq!(again.at(after(DAY + 3600)).ocsp, None);
    }
}
