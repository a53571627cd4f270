//! A certificate of the gateway's own as clients are shown it: with what its OCSP responder says of it, while that holds.
//!
//! A staple that proves nothing would make clients refuse a good certificate, so it is looked at like any other answer
//! before anybody sees it, and is left out from its end on.

use std::sync::Arc;

use rustls::pki_types::UnixTime;
use rustls::sign::CertifiedKey;

use super::ocsp::{Algorithms, Question, Status, judge};

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

// === impl Shown ===

impl Shown {
    /// With a staple, if there is one that is good now. The name is for the log.
    pub(crate) fn new(
        name: &str,
        key: CertifiedKey,
        staple: Vec<u8>,
        algorithms: Algorithms,
        now: UnixTime,
    ) -> Self {
        let until = (!staple.is_empty()).then(|| until(&key, &staple, algorithms, now));
        let stapled = match until {
            None => None,
            Some(Ok(until)) => {
                let key = CertifiedKey { ocsp: Some(staple), ..key.clone() };
                Some(Stapled { key: Arc::new(key), until })
            }
            Some(Err(why)) => {
                tracing::warn!(
                    certificate = name,
                    why,
                    "what an OCSP responder says of a certificate is not shown"
                );
                None
            }
        };
        Self { bare: Arc::new(key), stapled }
    }

    /// As clients are shown it at a time.
    pub(crate) fn at(&self, now: UnixTime) -> &Arc<CertifiedKey> {
        let stapled = self.stapled.as_ref().filter(|it| now.as_secs() < it.until);
        stapled.map_or(&self.bare, |it| &it.key)
    }
}

/// Until when a staple is worth showing, or why it is not.
fn until(
    key: &CertifiedKey,
    staple: &[u8],
    algorithms: Algorithms,
    now: UnixTime,
) -> Result<u64, String> {
    let question = Question::about_own(&key.cert, algorithms);
    let question = question.ok_or("its issuer is not in its chain")?;
    let judgement = judge(staple, &question, now).map_err(|flaw| flaw.to_string())?;
    match judgement.status {
        Status::Good => Ok(now.as_secs().saturating_add(judgement.holds)),
        Status::Revoked => Err("the certificate was revoked".to_owned()),
        Status::Unknown => Err("the certificate is not known there".to_owned()),
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
    fn shown(names: &[&str], staple: Vec<u8>) -> Shown {
        let provider = rustls::crypto::ring::default_provider();
        let chain = names.iter().map(|name| CertificateDer::from(file(&format!("{name}.crt.der"))));
        let key = rcgen::KeyPair::generate().unwrap().serialize_der();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let key = CertifiedKey::new(
            chain.collect(),
            provider.key_provider.load_private_key(key).unwrap(),
        );
        let algorithms = provider.signature_verification_algorithms.all;
        Shown::new("c", key, staple, algorithms, after(60))
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
}
