//! OCSP (RFC 6960) without a wire: what is asked about a client's certificate and whom, and what an answer is worth.
//!
//! `question` is made of a certificate whose chain was verified just now, `message` writes and reads what goes over the
//! wire, `judge` says what a response proves. Who does the asking, and how often, is [`crate::revocation`]'s to know.
//!
//! # Invariants
//! - Only a client's own certificate is asked about, not the authorities above it.
//! - There is no question about a certificate whose chain was not verified: it names whom to ask.
//! - Nothing is an answer but what the certificate's issuer has said, itself or through whom it has named.

mod judge;
mod message;
mod question;

use rustls::pki_types::SignatureVerificationAlgorithm;

pub(crate) use judge::{Flaw, Judgement, judge};
pub(crate) use message::Status;
pub(crate) use question::{Question, Responder, Subject};

/// What signatures may be made with.
pub(crate) type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// Why nobody can be asked about a certificate.
const NO_RESPONDER: &str = "the certificate names no OCSP responder over http";
const UNCLEAR: &str = "the certificate's issuer is not clear";
