//! Whether a response answers a question, and what: who signed it, what it is about, whether it still holds.
//!
//! # Invariants
//! - Nothing is read out of a response as an answer before its signature was verified: by the key of the certificate's
//!   issuer, or of somebody whom that issuer has certified to sign OCSP responses (RFC 6960, section 4.2.2.2).
//! - An answer about another certificate is none, and one that is not of today is none.

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm as Algorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity};

use super::message::{Response, Status, Unreadable};
use super::question::Question;

/// How far the clocks of others may be off, in seconds.
const SKEW: u64 = 300;
/// How long an answer holds that does not say for how long, in seconds from now: newer news may come at any time (RFC 6960,
/// section 4.2.2.1), and some responders say so of answers that they made long ago.
const UNDATED: u64 = 60 * 60;
/// `id-kp-OCSPSigning`.
const OCSP_SIGNING: KeyUsage = KeyUsage::required(&[43, 6, 1, 5, 5, 7, 3, 9]);
/// Certificates of one response that are looked at: each costs two signatures.
const MOST_CERTIFICATES: usize = 4;

/// What a responder has said of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) status: Status,
    /// For how many seconds it still holds.
    pub(crate) holds: u64,
}

/// Why a response is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("the response cannot be read")]
    Unreadable(#[from] Unreadable),
    #[error("the response is signed by nobody who may answer for the certificate's issuer")]
    Signer,
    #[error("the response is about another certificate")]
    Other,
    #[error("the response is of the future")]
    NotYet,
    #[error("the response has expired")]
    Expired,
}

pub(crate) fn judge(bytes: &[u8], question: &Question, now: UnixTime) -> Result<Judgement, Flaw> {
    let response = Response::read(bytes)?;
    if !is_signed(&response, question, now) {
        return Err(Flaw::Signer);
    }
    let mut answers = response.answers.iter();
    let answer = answers.find(|it| it.id.as_ref() == Some(&question.id)).ok_or(Flaw::Other)?;
    let now = now.as_secs();
    if answer.this_update > now.saturating_add(SKEW) {
        return Err(Flaw::NotYet);
    }
    let until = answer.next_update.unwrap_or(now.saturating_add(UNDATED));
    if until.saturating_add(SKEW) < now {
        return Err(Flaw::Expired);
    }
    Ok(Judgement { status: answer.status, holds: until.saturating_sub(now) })
}

fn is_signed(response: &Response<'_>, question: &Question, now: UnixTime) -> bool {
    let by_issuer = RawPublicKeyEntity::try_from(&question.issuer_key).is_ok_and(|key| {
        verifies(response, question, |alg, said, by| key.verify_signature(alg, said, by))
    });
    by_issuer
        || response.certificates.iter().take(MOST_CERTIFICATES).any(|der| {
            let certificate = CertificateDer::from(*der);
            EndEntityCert::try_from(&certificate).is_ok_and(|signer| {
                is_delegate(&signer, question, now)
                    && verifies(response, question, |alg, said, by| {
                        signer.verify_signature(alg, said, by)
                    })
            })
        })
}

/// Whether the issuer itself has certified it to sign responses.
fn is_delegate(signer: &EndEntityCert<'_>, question: &Question, now: UnixTime) -> bool {
    let issuer = std::slice::from_ref(&question.issuer);
    let path =
        signer.verify_for_usage(question.algorithms, issuer, &[], now, OCSP_SIGNING, None, None);
    path.is_ok()
}

fn verifies(
    response: &Response<'_>,
    question: &Question,
    verify: impl Fn(&'static dyn Algorithm, &[u8], &[u8]) -> Result<(), webpki::Error>,
) -> bool {
    // Several may have the same name, for keys on different curves.
    let named = |it: &&&dyn Algorithm| it.signature_alg_id().as_ref() == response.algorithm;
    let mut algorithms = question.algorithms.iter().filter(named);
    algorithms.any(|it| verify(*it, response.signed, response.signature).is_ok())
}

#[cfg(test)]
mod tests;
