//! TLS towards backends: which roots are trusted, and what the two switches of the settings leave out.
//!
//! Signatures are checked whatever the switches say; no switch may ever turn that off.

use std::sync::{Arc, OnceLock};

use holdfast_proto::control as wire;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use thiserror::Error as ThisError;

/// Why TLS settings cannot be used.
#[derive(Debug, ThisError)]
pub enum TlsRefusal {
    /// A trusted root is no certificate.
    #[error("trusted root {index} is not a certificate")]
    Root {
        /// Which of the settings' roots, from 0.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: Error,
    },
    /// The verifier could not be made.
    #[error("verifier")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
    /// The protocol versions could not be set.
    #[error("protocol versions")]
    Versions(#[source] Error),
}

/// TLS settings, compiled once per change.
#[derive(Debug)]
pub(crate) struct BackendTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) sni_name: String,
    /// What it was compiled from, to tell whether it changed.
    pub(crate) source: wire::BackendTls,
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// None when no root is known or the chain is not to be checked.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Trusted roots that a server may also show as its own certificate.
    pinned: Vec<CertificateDer<'static>>,
    validate_chain: bool,
    validate_name: bool,
}

/// The one crypto provider of this process.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

/// The system's roots, read when first needed. A system without any is no error: settings may bring their own.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(added, ignored, errors = found.errors.len(), "system roots read");
        Arc::new(roots)
    }))
}

// === impl BackendTls ===

impl BackendTls {
    pub(crate) fn compile(source: wire::BackendTls) -> Result<Self, TlsRefusal> {
        let provider = provider();
        let pinned: Vec<CertificateDer<'static>> =
            source.trusted_roots_der.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let chain = if source.validate_chain { chain(&pinned, &provider)? } else { None };
        let verifier = Verifier {
            provider: Arc::clone(&provider),
            chain,
            pinned,
            validate_chain: source.validate_chain,
            validate_name: source.validate_name,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsRefusal::Versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A tunnel takes its session out of rustls, to survive this process.
        config.enable_secret_extraction = true;
        let sni_name = source.sni_name.clone();
        Ok(Self { config: Arc::new(config), sni_name, source })
    }
}

fn chain(
    trusted: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>, TlsRefusal> {
    let mut roots = system_roots();
    if !trusted.is_empty() {
        let own = Arc::make_mut(&mut roots);
        for (index, root) in trusted.iter().enumerate() {
            own.add(root.clone()).map_err(|source| TlsRefusal::Root { index, source })?;
        }
    }
    if roots.is_empty() {
        return Ok(None);
    }
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map(Some)
        .map_err(TlsRefusal::Verifier)
}

// === impl Verifier ===

impl Verifier {
    fn check_name(&self, shown: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
        if self.validate_name {
            verify_server_name(&ParsedCertificate::try_from(shown)?, name)
        } else {
            Ok(())
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.validate_chain {
            let chain = self.chain.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            // webpki looks at the chain first and at the name last: a name's error means that the chain is good.
            match chain.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ) {
                Ok(_) => return Ok(ServerCertVerified::assertion()),
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) if !self.validate_name => return Ok(ServerCertVerified::assertion()),
                // A self-signed certificate that is both the listed root and the server's own. webpki says so only
                // after it has checked the dates.
                Err(Error::InvalidCertificate(CertificateError::Other(other)))
                    if other.to_string() == "CaUsedAsEndEntity"
                        && self.pinned.iter().any(|root| root == end_entity) => {}
                Err(error) => return Err(error),
            }
        }
        self.check_name(end_entity, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
