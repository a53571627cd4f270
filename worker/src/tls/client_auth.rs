//! Certificates of clients: asking for them, and judging them without ending a handshake over it.
//!
//! A client that shows a bad certificate, or none, gets a TLS session like any other, so that it can be told why it is
//! not served. The verdict is made of the chain that rustls has for the session once the handshake is over, and for a
//! session that is resumed just as for a new one: against today's date and the authorities in force.
//!
//! # Invariants
//! - Whether the client holds the key of the certificate that it shows is always checked; if not, there is no session.
//! - Who asks decides by the verdict of the session at hand. Nothing is believed because it was true once.
//! - Nothing here waits: where a responder has to be asked, a question is handed out ([`Sight::Open`]).

mod facts;

use std::fmt;
use std::sync::Arc;

use holdfast_proto::control as wire;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::ocsp::Question;
use super::tickets::Proof;

pub(crate) use facts::ClientCertificate;

/// Why a way of asking cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthRefusal {
    /// The mode is none that is known.
    #[error("the mode is not known")]
    Mode,
    /// An authority is no certificate.
    #[error("an authority is not a certificate")]
    Authority(#[source] Error),
    /// The verifier could not be made.
    #[error("verifier")]
    Verifier(#[source] VerifierBuilderError),
}

/// How clients of a profile are asked, and what makes their certificates pass.
pub(crate) struct ClientAuth {
    source: wire::ClientAuth,
    strict: bool,
    /// None when no authority is trusted: then nothing passes.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    /// Present where it is asked whether a certificate was revoked.
    anchors: Option<Vec<TrustAnchor<'static>>>,
    intermediates: Vec<CertificateDer<'static>>,
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

/// What came of looking at a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passes.
    Success,
    /// It does not, and why.
    Failed(&'static str),
    /// There was none, or nobody asked.
    None,
}

/// What is to be said of a client's certificate.
#[derive(Clone, Debug)]
pub(crate) enum Sight {
    /// It is known.
    Settled(Verdict),
    /// It passes, if it was not revoked.
    Open(Arc<Question>),
}

/// Asks one client.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) auth: Arc<ClientAuth>,
    pub(crate) proof: Arc<Proof>,
}

// === impl ClientAuth ===

impl ClientAuth {
    pub(crate) fn compile(
        source: wire::ClientAuth,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, ClientAuthRefusal> {
        let strict = match source.mode() {
            wire::ClientAuthMode::Strict => true,
            wire::ClientAuthMode::Passthrough => false,
            wire::ClientAuthMode::Unspecified => return Err(ClientAuthRefusal::Mode),
        };
        let roots = store(&source.roots_der)?;
        let mut hints = Vec::new();
        if strict {
            // A client that has the chain's end only finds itself by the name of its issuer.
            hints.extend(roots.subjects());
            hints.extend(store(&source.intermediates_der)?.subjects());
        }
        let anchors = source.check_revocation.then(|| roots.roots.clone());
        let chain = if roots.is_empty() {
            None
        } else {
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            Some(builder.build().map_err(ClientAuthRefusal::Verifier)?)
        };
        let intermediates = source.intermediates_der.iter().cloned().map(Into::into).collect();
        let provider = provider.clone();
        Ok(Self { source, strict, chain, anchors, intermediates, hints, provider })
    }

    /// Whether no request is served without a certificate that passes.
    pub(crate) const fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether both ask in the same way, for the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.source == other.source
    }

    /// Looks at what a client has shown: its own certificate first.
    pub(crate) fn judge(&self, shown: &[CertificateDer<'_>], now: UnixTime) -> Verdict {
        let Some((own, others)) = shown.split_first() else { return Verdict::None };
        let Some(chain) = &self.chain else {
            return Verdict::Failed("no authority is trusted");
        };
        let others: Vec<_> = others.iter().chain(&self.intermediates).cloned().collect();
        if let Err(error) = chain.verify_client_cert(own, &others, now) {
            return Verdict::Failed(reason(&error));
        }
        if self.source.check_issuer && !self.issued(own) {
            return Verdict::Failed("the issuer is not the one that is wanted");
        }
        Verdict::Success
    }

    /// The same, and whether a responder is to be asked about it.
    pub(crate) fn look(&self, shown: &[CertificateDer<'_>], now: UnixTime) -> Sight {
        let verdict = self.judge(shown, now);
        let (Verdict::Success, Some(anchors), Some((own, others))) =
            (verdict, &self.anchors, shown.split_first())
        else {
            return Sight::Settled(verdict);
        };
        let others: Vec<_> = others.iter().chain(&self.intermediates).cloned().collect();
        let algorithms = self.provider.signature_verification_algorithms.all;
        match Question::about(own, &others, anchors, algorithms, now) {
            Ok(question) => Sight::Open(Arc::new(question)),
            Err(reason) => Sight::Settled(Verdict::Failed(reason)),
        }
    }

    fn issued(&self, own: &CertificateDer<'_>) -> bool {
        let parsed = X509Certificate::from_der(own);
        parsed.is_ok_and(|(_, parsed)| {
            self.source.issuers_der.iter().any(|name| *name == parsed.issuer().as_raw())
        })
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").field("strict", &self.strict).finish_non_exhaustive()
    }
}

fn store(certificates: &[Vec<u8>]) -> Result<RootCertStore, ClientAuthRefusal> {
    let mut store = RootCertStore::empty();
    for der in certificates {
        store.add(der.clone().into()).map_err(ClientAuthRefusal::Authority)?;
    }
    Ok(store)
}

/// In words that OpenSSL has for it, where it has some: people search for them.
fn reason(error: &Error) -> &'static str {
    let Error::InvalidCertificate(error) = error else { return "the certificate cannot be used" };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate is not yet valid"
        }
        CertificateError::UnknownIssuer => "unable to get local issuer certificate",
        CertificateError::BadSignature => "certificate signature failure",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "unsuitable certificate purpose"
        }
        _ => "the certificate cannot be used",
    }
}

// === impl Verdict ===

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("SUCCESS"),
            Self::Failed(reason) => write!(f, "FAILED:{reason}"),
            Self::None => f.write_str("NONE"),
        }
    }
}

// === impl Sight ===

impl Sight {
    /// What is known without asking a responder. None: nothing, and not that there is no certificate.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Settled(verdict) => Some(*verdict),
            Self::Open(_) => None,
        }
    }
}

// === impl Asking ===

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.auth.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let shown: Vec<_> = [end_entity].into_iter().chain(intermediates).cloned().collect();
        if !self.auth.strict || self.auth.judge(&shown, now) == Verdict::Success {
            self.proof.give();
        }
        // Not a word on whether it passes: that is said after the handshake, in HTTP.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.auth.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.auth.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.auth.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(in crate::tls) mod tests;
