//! What is served: a table (compiled routing) joined with health, replaced as a whole and never changed in place.
//!
//! A request loads [`Serving`] once and keeps it to its end, so that it never sees two revisions. A snapshot that
//! cannot be compiled is refused as a whole and what is served stays as it is.

mod join;
mod pages;
mod rewrites;
mod standing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::control as wire;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use thiserror::Error;

pub use self::join::{Current, Serving};
pub use self::pages::{PageRefusal, Pages};
pub use self::standing::Standing;
use crate::access_log::{self, AccessLogRefusal};
use crate::client_source::{ClientSource, NotANetwork};
pub use crate::pool::FOREVER;
use crate::pool::{Binding, BindingRefusal, Context, limit, tls};
use crate::rewrite::{RewriteRefusal, RewriteSet};
use crate::route::{RouteRefusal, Router, Site};
use crate::tls::profile::{Offer, OfferRefusal, Profile};
use crate::tls::staple::{Shown, Staple};

/// Why a snapshot is refused. Its chain of sources, joined, is the refusal that the supervisor gets.
#[derive(Debug, Error)]
pub enum SnapshotRefusal {
    /// A site, route or action cannot be compiled.
    #[error("routing")]
    Route(#[from] RouteRefusal),
    /// A binding cannot be compiled.
    #[error("pool {pool} under settings {settings}")]
    Binding {
        /// Name of the pool.
        pool: String,
        /// Name of the settings.
        settings: String,
        /// Why.
        #[source]
        source: BindingRefusal,
    },
    /// A certificate has no chain, or it and its key do not belong together.
    #[error("certificate {name}")]
    Certificate {
        /// Name of the certificate.
        name: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Its access log cannot be had.
    #[error("access log")]
    AccessLog(#[from] AccessLogRefusal),
    /// It trusts what is no address.
    #[error("trusted proxies")]
    ClientSource(#[from] NotANetwork),
    /// A rewrite set cannot be compiled.
    #[error("rewrite set {name}")]
    Rewrite {
        /// Name of the set.
        name: String,
        /// Why.
        #[source]
        source: RewriteRefusal,
    },
    /// An action refers to a rewrite set that the snapshot does not have.
    #[error("site {site}: rewrite set {index} does not exist")]
    NoRewrite {
        /// Name of the site.
        site: String,
        /// The index.
        index: u32,
    },
    /// What clients are offered in TLS cannot be compiled.
    #[error("TLS with clients")]
    Offer(#[from] OfferRefusal),
    /// A site refers to a profile that the snapshot does not have.
    #[error("site {site}: the TLS profile does not exist")]
    Profile {
        /// Name of the site.
        site: String,
    },
    /// The snapshot has no limits.
    #[error("no limits")]
    NoLimits,
    /// A page of a fault is not valid.
    #[error("error pages")]
    Pages(#[from] PageRefusal),
}

impl SnapshotRefusal {
    /// The refusal in one line, causes included, for the acknowledgement.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

/// Limits of a listener; what the wire leaves unlimited is [`FOREVER`] or the type's largest number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A client's whole request header must arrive within.
    pub header_timeout: Duration,
    /// Idle between requests of one client connection.
    pub keep_alive_timeout: Duration,
    /// Dialling a backend, TLS included.
    pub connect_timeout: Duration,
    /// A client's TLS handshake.
    pub handshake_timeout: Duration,
    /// Size of a request's header.
    pub max_header_bytes: usize,
    /// Size of a request's body.
    pub max_body_bytes: u64,
    /// Client connections at once.
    pub max_connections: usize,
    /// How long a draining worker keeps its tunnels.
    pub drain_timeout: Duration,
    /// Threads; read once, at start. 0: as many as there are processors.
    pub threads: usize,
}

/// One revision, compiled.
#[derive(Debug)]
pub struct Table {
    /// Number of the revision; 0 before the first.
    pub revision: u64,
    /// `IP:PORT` of the listener.
    pub listener: String,
    /// From host and path to an action.
    pub router: Router,
    /// Pools under their settings; actions refer to them by index.
    pub bindings: Vec<Arc<Binding>>,
    /// Rewrite sets; actions refer to them by index.
    pub rewrite_sets: Vec<RewriteSet>,
    /// What tunnels may stay at; nothing: what the bindings have.
    pub standing: Option<Standing>,
    /// Limits of the listener.
    pub limits: Limits,
    /// Whether `Server` is left out of answers.
    pub hide_server_header: bool,
    /// Whether clients that speak TLS are offered HTTP/2.
    pub http2: bool,
    /// And may open `WebSockets` over it.
    pub websockets_over_http2: bool,
    /// Pages that replace the built-in ones.
    pub pages: Pages,
    /// Certificates; the router refers to them by index.
    pub(crate) certificates: Vec<Shown>,
    /// Where a line for each request goes.
    pub(crate) access_log: Option<access_log::Settings>,
    /// Who may tell who clients are.
    pub client_source: ClientSource,
    /// What clients are offered in TLS, and asked for.
    pub(crate) offer: Offer,
}

// === impl Table ===

impl Table {
    /// Compiles a snapshot. What did not change since `previous` (rotation, addresses, TLS sessions, connections)
    /// is kept.
    pub fn compile(
        snapshot: wire::ListenerSnapshot,
        previous: Option<&Self>,
    ) -> Result<Self, SnapshotRefusal> {
        let pages = Pages::compile(&snapshot.error_pages, &snapshot.sites)?;
        let shown = previous.map(|table| table.certificates.as_slice()).unwrap_or_default();
        let certificates = snapshot.certificates.into_iter().map(|it| certificate(it, shown));
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let mut bindings: Vec<Arc<Binding>> = Vec::with_capacity(snapshot.bindings.len());
        for binding in snapshot.bindings {
            let (pool, settings) = (binding.pool.clone(), binding.settings.clone());
            let shared = binding.distribution.is_some();
            let known = previous.and_then(|table| table.find(&pool, &settings, shared));
            let key = &snapshot.affinity_key;
            let context = Context { affinity_key: key, bindings: &bindings };
            let compiled = Binding::compile(binding, known.map(AsRef::as_ref), context)
                .map_err(|source| SnapshotRefusal::Binding { pool, settings, source })?;
            bindings.push(Arc::new(compiled));
        }
        let rewrite_sets = rewrites::compile(snapshot.rewrite_sets, &snapshot.sites)?;
        let router = Router::compile(snapshot.sites, bindings.len(), certificates.len())?;
        let offer = Offer::compile(
            snapshot.tls_profiles,
            snapshot.ticket_keys,
            &snapshot.listener,
            &tls::provider(),
            previous.map(|table| &table.offer),
        )?;
        let lost = |site: &&Site| site.tls && offer.profile(site.tls_profile).is_none();
        if let Some(site) = router.sites().iter().find(lost) {
            return Err(SnapshotRefusal::Profile { site: site.name.to_string() });
        }
        Ok(Self {
            revision: snapshot.revision,
            listener: snapshot.listener,
            router,
            bindings,
            rewrite_sets,
            standing: snapshot.standing.map(Standing::compile),
            limits: Limits::compile(&snapshot.limits.ok_or(SnapshotRefusal::NoLimits)?),
            hide_server_header: snapshot.hide_server_header,
            http2: snapshot.http2.is_some(),
            websockets_over_http2: snapshot.http2.is_some_and(|http2| http2.websockets),
            pages,
            certificates,
            access_log: snapshot.access_log.map(access_log::Settings::compile).transpose()?,
            client_source: ClientSource::compile(snapshot.client_source)?,
            offer,
        })
    }

    /// The table before the first: no site, so that every request is answered 404.
    pub fn empty() -> Self {
        Self {
            revision: 0,
            listener: String::new(),
            router: Router::default(),
            bindings: Vec::new(),
            rewrite_sets: Vec::new(),
            standing: None,
            limits: Limits::compile(&wire::Limits::default()),
            hide_server_header: false,
            http2: false,
            websockets_over_http2: false,
            pages: Pages::default(),
            certificates: Vec::new(),
            access_log: None,
            client_source: ClientSource::default(),
            offer: Offer::default(),
        }
    }

    /// The binding of a pool and settings.
    pub fn binding(&self, pool: &str, settings: &str) -> Option<&Arc<Binding>> {
        self.find(pool, settings, false)
    }

    /// The same, or with `shared` the one of a policy of that name.
    fn find(&self, pool: &str, settings: &str, shared: bool) -> Option<&Arc<Binding>> {
        let of = |it: &Binding| *it.pool == *pool && *it.settings == *settings;
        self.bindings.iter().find(|it| it.distribution.is_some() == shared && of(it))
    }

    /// The certificate to show for a TLS server name.
    pub fn certificate_for(&self, sni: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let shown = self.certificates.get(self.router.certificate_for(sni)?)?;
        Some(shown.at(UnixTime::now()))
    }

    /// What a handshake takes that asks for a TLS server name; nothing where no site speaks TLS.
    pub(crate) fn handshake_for(
        &self,
        sni: Option<&str>,
    ) -> Option<Result<(ServerConfig, Arc<Profile>), rustls::Error>> {
        let site = self.router.site_of_handshake(sni)?;
        let profile = self.offer.profile(site.tls_profile)?;
        let shown = site.certificate().and_then(|index| self.certificates.get(index));
        let shown = shown.map(|shown| shown.at(UnixTime::now()).clone());
        Some(self.offer.config(profile, shown).map(|config| (config, profile.clone())))
    }
}

fn certificate(
    certificate: wire::Certificate,
    previous: &[Shown],
) -> Result<Shown, SnapshotRefusal> {
    let wire::Certificate { name, chain_der, key_der, staple: answer, wants_staple } = certificate;
    // A supervisor of an older build does not say so.
    let wanted = wants_staple || !answer.is_empty();
    let staple = Staple { wanted, answer, previous };
    let chain = chain_der.into_iter().map(CertificateDer::from).collect::<Vec<_>>();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key_der));
    if chain.is_empty() {
        let source = rustls::Error::NoCertificatesPresented;
        return Err(SnapshotRefusal::Certificate { name, source });
    }
    let provider = tls::provider();
    let algorithms = provider.signature_verification_algorithms.all;
    CertifiedKey::from_der(chain, key, &provider)
        .map(|key| Shown::new(&name, key, staple, algorithms, UnixTime::now()))
        .map_err(|source| SnapshotRefusal::Certificate { name, source })
}

// === impl Limits ===

impl Limits {
    fn compile(limits: &wire::Limits) -> Self {
        let count = |count: u32| match usize::try_from(count) {
            Ok(count) if count > 0 => count,
            _ => usize::MAX,
        };
        Self {
            header_timeout: limit(limits.header_timeout_ms),
            keep_alive_timeout: limit(limits.keep_alive_timeout_ms),
            connect_timeout: limit(limits.connect_timeout_ms),
            handshake_timeout: limit(limits.handshake_timeout_ms),
            max_header_bytes: count(limits.max_header_bytes),
            max_body_bytes: if limits.max_body_bytes == 0 {
                u64::MAX
            } else {
                limits.max_body_bytes
            },
            max_connections: count(limits.max_connections),
            drain_timeout: limit(limits.drain_timeout_ms),
            threads: usize::try_from(limits.threads).unwrap_or(0),
        }
    }
}
