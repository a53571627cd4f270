//! What a site's clients are offered in TLS and whether they are asked for certificates: one profile for each way that the
//! sites of a listener have, chosen by the name that a client asks for.
//!
//! # Invariants
//! - No cipher suite is offered whose records are not known to [`super::record`]: a tunnel's session could not leave.
//! - A profile that does not change is kept as it is from one table to the next, and so is what can be resumed.

use std::sync::Arc;

use holdfast_proto::control as wire;
use ring::digest::{Context, SHA256};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::client_auth::{
    Asking, ClientAuth, ClientAuthRefusal, ClientCertificate, Sight, Verdict,
};
use super::session::is_known;
use super::tickets::{Proof, Scope, TicketKeyRefusal, TicketKeys, Ticketer};

/// Why what clients are offered cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OfferRefusal {
    /// A suite is none that can be offered.
    #[error("profile {profile:?}: the cipher suite {suite:#06x} is not known")]
    Suite {
        /// Name of the profile.
        profile: String,
        /// IANA's number.
        suite: u32,
    },
    /// Versions and suites leave nothing.
    #[error("profile {profile:?}: nothing is offered")]
    Nothing {
        /// Name of the profile.
        profile: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Clients cannot be asked for certificates in that way.
    #[error("profile {profile:?}: certificates of clients")]
    ClientAuth {
        /// Name of the profile.
        profile: String,
        /// Why.
        #[source]
        source: ClientAuthRefusal,
    },
    /// The keys of tickets cannot be used.
    #[error("keys of session tickets")]
    TicketKeys(#[from] TicketKeyRefusal),
}

/// Everything that a listener's handshakes take but certificates of its own.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    profiles: Vec<Arc<Profile>>,
    keys: Arc<TicketKeys>,
}

/// One way to shake hands.
#[derive(Debug)]
pub(crate) struct Profile {
    /// What it was compiled from, to tell whether it changed.
    source: wire::TlsProfile,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// For clients that are not asked; those that are need one each.
    plain: ServerConfig,
    scope: Scope,
    auth: Option<Arc<ClientAuth>>,
}

/// The one certificate for a handshake.
#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

/// Who a client has shown to be, for as long as its connection lives.
#[derive(Debug)]
pub(crate) struct ClientIdentity {
    /// As whose client it was asked.
    profile: Arc<Profile>,
    sight: Sight,
    shown: Vec<CertificateDer<'static>>,
    certificate: Option<ClientCertificate>,
}

/// What a client's certificate means for a request to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admittance {
    /// It may be served.
    Granted,
    /// There is no certificate, and there must be one.
    Missing,
    /// It does not pass, and it must.
    Bad,
    /// On this connection the client was not asked as this site asks.
    AskedOtherwise,
}

// === impl Offer ===

impl Offer {
    /// Compiles what the supervisor says. What did not change since `previous` is kept.
    pub(crate) fn compile(
        profiles: Vec<wire::TlsProfile>,
        keys: Vec<wire::TicketKey>,
        listener: &str,
        provider: &Arc<CryptoProvider>,
        previous: Option<&Self>,
    ) -> Result<Self, OfferRefusal> {
        let profiles = if profiles.is_empty() { vec![everything(provider)] } else { profiles };
        let compile = |source: wire::TlsProfile| {
            let known = previous.and_then(|it| it.profiles.iter().find(|it| it.source == source));
            known.map_or_else(
                || Profile::compile(source, listener, provider).map(Arc::new),
                |known| Ok(known.clone()),
            )
        };
        let profiles = profiles.into_iter().map(compile).collect::<Result<_, _>>()?;
        let keys = TicketKeys::compile(keys, previous.map(|it| &*it.keys))?;
        Ok(Self { profiles, keys: Arc::new(keys) })
    }

    /// The profile that a site refers to.
    pub(crate) fn profile(&self, index: usize) -> Option<&Arc<Profile>> {
        self.profiles.get(index)
    }

    /// The configuration for one client of a profile, which is shown this certificate.
    pub(crate) fn config(
        &self,
        profile: &Profile,
        shown: Option<Arc<CertifiedKey>>,
    ) -> Result<ServerConfig, rustls::Error> {
        let proof = profile.auth.is_some().then(Arc::<Proof>::default);
        let mut config = match profile.auth.clone().zip(proof.clone()) {
            Some((auth, proof)) => profile.asking(auth, proof)?,
            None => profile.plain.clone(),
        };
        config.cert_resolver = Arc::new(Shown(shown));
        let keys = self.keys.clone();
        config.ticketer = Arc::new(Ticketer { keys, scope: profile.scope, proof });
        Ok(config)
    }
}

/// Everything that the provider has, asking nobody.
fn everything(provider: &CryptoProvider) -> wire::TlsProfile {
    let suites = provider.cipher_suites.iter();
    wire::TlsProfile {
        tls12: true,
        tls13: true,
        suites: suites.map(|suite| u16::from(suite.suite()).into()).collect(),
        ..wire::TlsProfile::default()
    }
}

// === impl Profile ===

impl Profile {
    fn compile(
        source: wire::TlsProfile,
        listener: &str,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, OfferRefusal> {
        let profile = || source.name.clone();
        let suite = |number: &u32| {
            let refusal = || OfferRefusal::Suite { profile: profile(), suite: *number };
            let wanted = u16::try_from(*number).map(CipherSuite::from).ok();
            let found = provider.cipher_suites.iter().find(|it| Some(it.suite()) == wanted);
            found.copied().filter(|it| is_known(it.suite())).ok_or_else(refusal)
        };
        let cipher_suites = source.suites.iter().map(suite).collect::<Result<_, _>>()?;
        let chosen = Arc::new(CryptoProvider { cipher_suites, ..CryptoProvider::clone(provider) });
        let versions = [(source.tls12, &TLS12), (source.tls13, &TLS13)];
        let versions: Vec<_> = versions.into_iter().filter(|it| it.0).map(|it| it.1).collect();
        let plain = ServerConfig::builder_with_provider(chosen.clone())
            .with_protocol_versions(&versions)
            .map_err(|source| OfferRefusal::Nothing { profile: profile(), source })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(None)));
        let auth = source.client_auth.clone();
        let auth = auth.map(|auth| ClientAuth::compile(auth, provider).map(Arc::new)).transpose();
        let auth =
            auth.map_err(|source| OfferRefusal::ClientAuth { profile: profile(), source })?;
        let scope = scope(listener, source.client_auth.as_ref());
        let plain = settled(plain);
        Ok(Self { source, provider: chosen, versions, plain, scope, auth })
    }

    /// Whether backends are told the fingerprints of clients.
    pub(crate) const fn tells_fingerprint(&self) -> bool {
        self.source.fingerprint
    }

    /// As `plain`, for one client that is asked.
    fn asking(
        &self,
        auth: Arc<ClientAuth>,
        proof: Arc<Proof>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)?
            .with_client_cert_verifier(Arc::new(Asking { auth, proof }))
            .with_cert_resolver(Arc::new(Shown(None)));
        // What a ticket is refused for, a session kept here would not be.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(settled(config))
    }

    /// Whether clients are asked for certificates.
    pub(crate) fn asks(&self) -> bool {
        self.auth.is_some()
    }

    /// Whether no request is served without a certificate that passes.
    pub(crate) fn is_strict(&self) -> bool {
        self.auth.as_ref().is_some_and(|auth| auth.is_strict())
    }

    /// What is to be said of a client with this identity. `Err`: it was asked for something else.
    pub(crate) fn sight(&self, identity: Option<&ClientIdentity>) -> Result<Sight, Admittance> {
        let Some(auth) = &self.auth else { return Ok(Sight::Settled(Verdict::None)) };
        identity.and_then(|it| self.sight_of(auth, it)).ok_or(Admittance::AskedOtherwise)
    }

    /// What a client may have of a site with this profile, when that came of looking at it.
    pub(crate) fn admits(&self, verdict: Verdict) -> Admittance {
        match verdict {
            _ if !self.is_strict() => Admittance::Granted,
            Verdict::Success => Admittance::Granted,
            Verdict::Failed(_) => Admittance::Bad,
            Verdict::None => Admittance::Missing,
        }
    }

    /// None: the client was asked for something else.
    fn sight_of(&self, auth: &ClientAuth, identity: &ClientIdentity) -> Option<Sight> {
        let asked = identity.profile.auth.as_ref()?;
        if asked.is_like(auth) {
            return Some(identity.sight.clone());
        }
        // The profile has changed since; the client need not know, if what it has shown will do.
        let same = identity.profile.source.name == self.source.name;
        same.then(|| auth.look(&identity.shown, UnixTime::now()))
    }
}

/// What holds for each connection.
fn settled(mut config: ServerConfig) -> ServerConfig {
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A tunnel takes its session out of rustls, to survive this process.
    config.enable_secret_extraction = true;
    config
}

/// What tickets are bound to: the listener, and how its clients are asked.
fn scope(listener: &str, auth: Option<&wire::ClientAuth>) -> Scope {
    let mut context = Context::new(&SHA256);
    context.update(listener.as_bytes());
    if let Some(auth) = auth {
        context.update(&[0]);
        context.update(&auth.mode.to_be_bytes());
        context.update(&[u8::from(auth.check_issuer)]);
        for list in [&auth.roots_der, &auth.intermediates_der, &auth.issuers_der] {
            context.update(&list.len().to_be_bytes());
            for item in list {
                context.update(&item.len().to_be_bytes());
                context.update(item);
            }
        }
    }
    let mut scope = Scope::default();
    for (place, byte) in scope.iter_mut().zip(context.finish().as_ref()) {
        *place = *byte;
    }
    scope
}

// === impl Shown ===

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

// === impl ClientIdentity ===

impl ClientIdentity {
    /// Of a handshake that is over, be it for a new session or for one that was resumed. None: the client was not asked.
    pub(crate) fn of(connection: &ServerConnection, profile: &Arc<Profile>) -> Option<Self> {
        let auth = profile.auth.as_ref()?;
        let shown: Vec<_> = connection.peer_certificates().unwrap_or_default().to_vec();
        let sight = auth.look(&shown, UnixTime::now());
        let certificate = shown.first().map(|own| ClientCertificate::new(own));
        Some(Self { profile: profile.clone(), sight, shown, certificate })
    }

    /// Of a client that shows nothing. None: it is not asked.
    pub(crate) fn bare(profile: &Arc<Profile>) -> Option<Self> {
        let sight = profile.auth.as_ref()?.look(&[], UnixTime::now());
        Some(Self { profile: profile.clone(), sight, shown: Vec::new(), certificate: None })
    }

    /// What the client has shown, if it had something.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }

    /// What came of looking at it. None: that is a responder's to say.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.sight.verdict()
    }
}

#[cfg(test)]
mod tests;
