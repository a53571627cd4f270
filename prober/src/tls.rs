//! TLS towards backends: which roots are trusted and what of a certificate is checked.
//!
//! A chain is good where it ends in one of the system's roots or in one of the probe's trusted roots. A certificate
//! that is itself listed as a trusted root is good as long as its dates are: self-signed backends are set up like
//! that, and most tools mark such certificates as CAs, which a chain check refuses. Signatures of the handshake are
//! verified whatever is switched off: otherwise the key need not be the certificate's.

use std::sync::Arc;

use holdfast_proto::control::{BackendTls, Probe};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tracing::warn;

use crate::refusal::ProbeRefusal;

/// What all checks share: the crypto provider and the system's roots.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    system: Arc<RootCertStore>,
}

/// TLS as one probe wants it.
#[derive(Debug, Clone)]
pub(crate) struct TlsClient {
    /// For the connector.
    pub(crate) config: Arc<ClientConfig>,
    /// Sent as SNI (unless it is an IP address or SNI is off) and checked against the certificate.
    pub(crate) name: ServerName<'static>,
}

// === impl Tls ===

impl Tls {
    /// Reads the system's roots. A system without any is usable: backends may have roots of their own.
    pub(crate) fn load() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            warn!(
                error = error as &dyn std::error::Error,
                "cannot read some of the system's root certificates"
            );
        }
        let mut system = RootCertStore::empty();
        let (added, ignored) = system.add_parsable_certificates(found.certs);
        tracing::debug!(added, ignored, "read the system's root certificates");
        Self { provider: Arc::new(ring::default_provider()), system: Arc::new(system) }
    }

    /// For tests that must not depend on the machine.
    #[cfg(test)]
    pub(crate) fn without_system_roots() -> Self {
        Self {
            provider: Arc::new(ring::default_provider()),
            system: Arc::new(RootCertStore::empty()),
        }
    }

    /// TLS for `probe` of a backend at `address`. Without an SNI name none is sent, and the certificate has to be
    /// for the address.
    pub(crate) fn client(&self, address: &str, probe: &Probe) -> Result<TlsClient, ProbeRefusal> {
        let trust = probe.tls.clone().unwrap_or(BackendTls {
            validate_chain: true,
            validate_name: true,
            ..BackendTls::default()
        });
        let sni = [trust.sni_name.as_str(), probe.sni.as_str()].into_iter().find(|n| !n.is_empty());
        let name = sni.unwrap_or(address);
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| ProbeRefusal::ServerName(name.to_owned()))?;
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(ProbeRefusal::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(&trust)?))
            .with_no_client_auth();
        config.enable_sni = sni.is_some();
        // A check proves that a whole handshake works now; a resumed session would prove less.
        config.resumption = Resumption::disabled();
        Ok(TlsClient { config: Arc::new(config), name })
    }

    fn verifier(&self, trust: &BackendTls) -> Result<Verifier, ProbeRefusal> {
        let listed: Vec<CertificateDer<'static>> =
            trust.trusted_roots_der.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let mut own = RootCertStore::empty();
        for root in &listed {
            own.add(root.clone()).map_err(ProbeRefusal::Root)?;
        }
        Ok(Verifier {
            provider: self.provider.clone(),
            system: self.system.clone(),
            own,
            listed,
            chain: trust.validate_chain,
            name: trust.validate_name,
        })
    }
}

/// Checks of a certificate what the backend settings ask for.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    system: Arc<RootCertStore>,
    own: RootCertStore,
    listed: Vec<CertificateDer<'static>>,
    chain: bool,
    name: bool,
}

// === impl Verifier ===

impl Verifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let under = |roots: &RootCertStore| {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(parsed, roots, intermediates, now, algorithms)
        };
        let Err(error) = under(&self.own) else { return Ok(()) };
        // webpki checks dates before all else, so any other complaint about a listed certificate means that its
        // dates are good.
        if self.listed.iter().any(|root| root == leaf) && !is_about_dates(&error) {
            return Ok(());
        }
        under(&self.system)
    }
}

fn is_about_dates(error: &rustls::Error) -> bool {
    use CertificateError::{BadEncoding, Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            BadEncoding | Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        )
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.chain || self.name {
            let parsed = ParsedCertificate::try_from(leaf)?;
            if self.chain {
                self.verify_chain(leaf, &parsed, intermediates, now)?;
            }
            if self.name {
                verify_server_name(&parsed, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
