//! What clients are offered in TLS, and whether they are asked for certificates. Which policies there are, and what of
//! them can be offered here, is [`crate::config::read`]'s to know.

use std::sync::Arc;

/// Versions and cipher suites that clients are offered: never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Azure's name, when the document gives one.
    pub predefined: Option<&'static str>,
    /// TLS 1.2 is offered; some suite of it is in `suites` then.
    pub tls12: bool,
    /// TLS 1.3 is offered; some suite of it is in `suites` then.
    pub tls13: bool,
    /// Backends are told clients' JA4 fingerprints: with Azure's policies of 2022 and later and `CustomV2`.
    pub fingerprint: bool,
    /// In the order in which they are chosen.
    pub suites: Vec<Suite>,
}

/// A cipher suite that can be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// IANA's name.
    pub name: &'static str,
    /// IANA's number.
    pub number: u16,
    /// What it needs.
    pub needs: SuiteNeeds,
}

/// What a cipher suite needs to be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuiteNeeds {
    /// TLS 1.3.
    Tls13,
    /// TLS 1.2 and a certificate with an RSA key.
    Rsa,
    /// TLS 1.2 and a certificate with an EC or Ed25519 key.
    Ecdsa,
}

/// One Azure `sslProfile`.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsProfile {
    /// Name as spelled.
    pub name: String,
    /// Its own policy; without one the gateway's.
    pub policy: Option<TlsPolicy>,
    /// Whether clients are asked for certificates.
    pub client_auth: Option<ClientAuth>,
}

/// How clients' certificates are looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAuth {
    /// Whether a request needs one that passes.
    pub mode: ClientAuthMode,
    /// The issuer must be one that `trusted` names.
    pub check_issuer: bool,
    /// The responder that a certificate names is asked whether it was revoked.
    pub check_revocation: bool,
    /// Who may have issued them.
    pub trusted: Vec<Arc<TrustedClients>>,
}

/// Azure's `verifyClientAuthMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// No request is served without a certificate that passes.
    Strict,
    /// A certificate is asked for; nothing depends on it.
    Passthrough,
}

/// One Azure `trustedClientCertificate`: authorities that may issue certificates of clients.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedClients {
    /// Name as spelled.
    pub name: String,
    /// Authorities that are trusted.
    pub roots: Vec<Vec<u8>>,
    /// Authorities between those and clients.
    pub intermediates: Vec<Vec<u8>>,
    /// Name, in DER, of the authority at the end of the longest chain.
    pub issuer: Vec<u8>,
    /// The PEM file that it came from; without one `data`.
    pub file: Option<String>,
}

// === impl ClientAuthMode ===

impl ClientAuthMode {
    /// Azure's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Passthrough => "Passthrough",
        }
    }
}
