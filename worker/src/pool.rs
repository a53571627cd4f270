//! Backends and how to reach them: a binding is a pool under one set of backend settings.
//!
//! What a backend sees of a request (Host, path) is decided here; which backend gets it in [`rotation`], by what
//! [`distribution`] and [`affinity`] say; sockets are made in [`connect`] and kept in [`reuse`] or, for one client
//! alone, in [`dedicated`]. Health is not known here: `snapshot` joins it.

pub mod affinity;
pub mod connect;
pub mod dedicated;
pub mod distribution;
mod hashing;
pub mod resolve;
pub mod reuse;
pub mod rotation;
pub mod sender;
pub mod tls;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use holdfast_proto::control as wire;
use http::HeaderValue;
use http::uri::PathAndQuery;
use thiserror::Error;

use self::affinity::{Affinity, AffinityRefusal};
use self::distribution::{Distribution, DistributionRefusal};
use self::resolve::Addresses;
use self::rotation::Cursor;
use self::tls::{BackendTls, TlsRefusal};
use crate::load::{self, Load};
use crate::metrics::{Metrics, PairFigures};
use crate::route::{MatchedPrefix, without_port};

/// Gives backends and transports names that no other one of this process ever has.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Stands for "no limit" where a duration is needed: beyond any process's life, and still addable to a clock.
pub const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Why a binding cannot be compiled.
#[derive(Debug, Error)]
pub enum BindingRefusal {
    /// There are no backend settings.
    #[error("no backend settings")]
    NoSettings,
    /// The scheme is neither HTTP nor HTTPS.
    #[error("scheme {0} is unknown")]
    Scheme(i32),
    /// The host rule is unknown.
    #[error("host choice {0} is unknown")]
    HostChoice(i32),
    /// The host name cannot stand in a Host header.
    #[error("host name {0:?} is not valid")]
    HostName(String),
    /// The path override cannot stand in a request.
    #[error("path {0:?} is not valid")]
    Path(String),
    /// A backend has no address, or its port is out of range.
    #[error("backend {address:?} port {port} is not valid")]
    Backend {
        /// As given.
        address: String,
        /// As given.
        port: u32,
    },
    /// The TLS settings cannot be used.
    #[error("TLS towards the backends")]
    Tls(#[source] TlsRefusal),
    /// Cookie affinity cannot be had.
    #[error("affinity")]
    Affinity(#[from] AffinityRefusal),
    /// The distribution leads nowhere.
    #[error(transparent)]
    Distribution(#[from] DistributionRefusal),
}

/// What a binding is compiled with, besides itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// What affinity cookies are signed with.
    pub affinity_key: &'a [u8],
    /// The bindings that stand before it in the snapshot.
    pub bindings: &'a [Arc<Binding>],
}

/// One server of a pool.
#[derive(Debug)]
pub struct Backend {
    /// Name of the pool that it stands in.
    pub pool: Arc<str>,
    /// IP literal or host name, as configured.
    pub address: Arc<str>,
    /// The port that traffic goes to.
    pub port: u16,
    /// What it has in hand of this process.
    pub load: Arc<Load>,
    id: u64,
    /// Its part in the hashes of clients' addresses.
    seed: u64,
    literal: Option<IpAddr>,
    resolved: Addresses,
}

/// The Host that backends see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRule {
    /// As the client sent it.
    Client,
    /// This one.
    Named(HeaderValue),
    /// The backend's own address.
    Backend,
}

/// How connections of a binding are made; as long as it stays the same, connections may be shared and kept.
#[derive(Debug)]
pub(crate) struct Transport {
    id: u64,
    tls: Option<BackendTls>,
}

/// A pool under one set of backend settings.
#[derive(Debug)]
pub struct Binding {
    /// Name of the pool, or of the policy where it leads to several.
    pub pool: Arc<str>,
    /// Name of the backend settings.
    pub settings: Arc<str>,
    /// Every configured backend, in rotation or not.
    pub backends: Vec<Arc<Backend>>,
    /// How long a backend may take to answer; after a 101, how long a tunnel may be silent.
    pub request_timeout: Duration,
    /// The Host that backends see.
    pub host: HostRule,
    /// Azure's `path`: goes before what the path pattern did not match. `None`: the path is left alone.
    pub path_prefix: Option<String>,
    /// Whether draining was asked for.
    pub draining_enabled: bool,
    /// How long tunnels of a backend that was removed or drained live on.
    pub drain_timeout: Duration,
    /// Cookies that lead clients back to their backend.
    pub affinity: Option<Affinity>,
    /// Whether connections to backends belong to one client's connection each.
    pub dedicated: bool,
    /// With several pools: how requests are shared out among them.
    pub distribution: Option<Distribution>,
    pub(crate) cursor: Arc<Cursor>,
    pub(crate) transport: Arc<Transport>,
    figures: OnceLock<Arc<PairFigures>>,
}

// === impl Backend ===

impl Backend {
    /// A backend whose addresses have yet to be learnt.
    pub fn new(pool: Arc<str>, address: String, port: u16) -> Self {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let literal = bare.unwrap_or(&address).parse().ok();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (load, seed) = (load::of(&address, port), hashing::backend(&address, port));
        let (address, resolved) = (address.into(), Addresses::default());
        Self { pool, address, port, load, id, seed, literal, resolved }
    }

    /// `ADDRESS:PORT` for people, logs and metrics; an IPv6 literal in brackets.
    pub fn label(&self) -> String {
        match self.literal {
            Some(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.address, self.port),
        }
    }

    fn host(&self) -> String {
        match self.literal {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.address.to_string(),
        }
    }

    fn compile(
        backend: wire::Backend,
        pool: &Arc<str>,
        previous: Option<&Binding>,
    ) -> Result<Arc<Self>, BindingRefusal> {
        let wire::Backend { address, port } = backend;
        match u16::try_from(port) {
            Ok(port)
                if port > 0 && HeaderValue::from_str(&address).is_ok_and(|h| !h.is_empty()) =>
            {
                // Health names it as it is spelled now.
                let kept = previous
                    .and_then(|binding| binding.backend(&address, port))
                    .filter(|kept| *kept.address == *address)
                    .map(Arc::clone);
                Ok(kept.unwrap_or_else(|| Arc::new(Self::new(Arc::clone(pool), address, port))))
            }
            _ => Err(BindingRefusal::Backend { address, port }),
        }
    }
}

// === impl Transport ===

impl Transport {
    fn new(tls: Option<BackendTls>) -> Self {
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), tls }
    }
}

// === impl Binding ===

impl Binding {
    /// Compiles a binding; what of `previous` (the same pool and settings, a revision ago) did not change is kept.
    pub fn compile(
        binding: wire::PoolBinding,
        previous: Option<&Self>,
        context: Context<'_>,
    ) -> Result<Self, BindingRefusal> {
        let settings = binding.backend_settings.ok_or(BindingRefusal::NoSettings)?;
        let pool: Arc<str> = binding.pool.into();
        let mut backends = binding
            .backends
            .into_iter()
            .map(|backend| Backend::compile(backend, &pool, previous))
            .collect::<Result<Vec<_>, _>>()?;
        let distribution = match binding.distribution {
            None => None,
            Some(_) if !backends.is_empty() => Err(DistributionRefusal::OwnBackends)?,
            Some(shares) => {
                let compiled = Distribution::compile(&shares, &binding.settings, context.bindings)?;
                backends = compiled.1;
                Some(compiled.0)
            }
        };
        let signed =
            |cookie| Affinity::compile(cookie, context.affinity_key, &binding.settings, &backends);
        let affinity = settings.affinity.map(signed).transpose()?;
        let tls = match wire::Scheme::try_from(settings.scheme) {
            Ok(wire::Scheme::Http) => None,
            Ok(wire::Scheme::Https) => Some(settings.tls.unwrap_or(wire::BackendTls {
                validate_chain: true,
                validate_name: true,
                ..Default::default()
            })),
            _ => return Err(BindingRefusal::Scheme(settings.scheme)),
        };
        let path_prefix = match settings.path_prefix {
            path if path.is_empty() => None,
            path if path.starts_with('/')
                && !path.contains('?')
                && PathAndQuery::try_from(path.as_str()).is_ok() =>
            {
                Some(path)
            }
            path => return Err(BindingRefusal::Path(path)),
        };
        Ok(Self {
            host: HostRule::compile(settings.host, settings.host_name)?,
            transport: transport(tls, previous).map_err(BindingRefusal::Tls)?,
            cursor: previous.map(|previous| Arc::clone(&previous.cursor)).unwrap_or_default(),
            pool,
            settings: binding.settings.into(),
            backends,
            request_timeout: limit(settings.request_timeout_ms),
            path_prefix,
            draining_enabled: settings.draining_enabled,
            drain_timeout: Duration::from_millis(settings.drain_timeout_ms),
            affinity,
            dedicated: settings.dedicated,
            distribution,
            figures: OnceLock::new(),
        })
    }

    /// What is counted of its requests, by whoever serves it.
    pub(crate) fn figures(&self, metrics: &Metrics) -> &Arc<PairFigures> {
        self.figures.get_or_init(|| metrics.pair(&self.pool, &self.settings))
    }

    /// Whether backends are spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.transport.tls.is_some()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    /// The backend that is configured as `address` and `port`.
    pub fn backend(&self, address: &str, port: u16) -> Option<&Arc<Backend>> {
        self.backends
            .iter()
            .find(|backend| backend.port == port && backend.address.eq_ignore_ascii_case(address))
    }

    /// The Host header for a backend; `client_host` is the client's, as sent.
    pub fn host_for(&self, backend: &Backend, client_host: &HeaderValue) -> HeaderValue {
        let own = || {
            HeaderValue::from_str(&backend.host())
                .unwrap_or_else(|_| HeaderValue::from_static("localhost"))
        };
        match &self.host {
            HostRule::Named(name) => name.clone(),
            HostRule::Backend => own(),
            HostRule::Client if client_host.is_empty() => own(),
            HostRule::Client => client_host.clone(),
        }
    }

    /// The path for a backend: the override, then what the route's pattern did not match, then the query.
    pub fn path_for(&self, matched: &MatchedPrefix, original: &PathAndQuery) -> PathAndQuery {
        let Some(prefix) = self.path_prefix.as_deref() else { return original.clone() };
        if !original.path().starts_with('/') {
            return original.clone(); // `OPTIONS *` is about the server, not about a path
        }
        let rest = matched.rest(original.path());
        let mut path = prefix.to_owned();
        if rest.starts_with('/') {
            path.truncate(prefix.trim_end_matches('/').len());
        } else if !rest.is_empty() && !prefix.ends_with('/') {
            path.push('/');
        }
        path.push_str(&rest);
        if let Some(query) = original.query() {
            path.push('?');
            path.push_str(query);
        }
        // Both parts are valid paths, and so is their sum, but for one longer than any header limit lets in.
        PathAndQuery::try_from(path).unwrap_or_else(|_| original.clone())
    }

    /// The name that the backend's certificate is checked against and that goes out as SNI; none without TLS.
    pub(crate) fn tls_name(&self, backend: &Backend, client_host: &str) -> Option<String> {
        let tls = self.transport.tls.as_ref()?;
        if !tls.sni_name.is_empty() {
            return Some(tls.sni_name.clone());
        }
        let own = || without_port(&backend.host()).to_owned();
        Some(match &self.host {
            HostRule::Named(name) => {
                name.to_str().map_or_else(|_| own(), |name| without_port(name).to_owned())
            }
            HostRule::Client if !client_host.is_empty() => without_port(client_host).to_owned(),
            HostRule::Client | HostRule::Backend => own(),
        })
    }
}

// === impl HostRule ===

impl HostRule {
    fn compile(choice: i32, name: String) -> Result<Self, BindingRefusal> {
        match wire::HostChoice::try_from(choice) {
            Ok(wire::HostChoice::Client) => Ok(Self::Client),
            Ok(wire::HostChoice::Backend) => Ok(Self::Backend),
            Ok(wire::HostChoice::Named) => match HeaderValue::from_str(&name) {
                Ok(value) if !name.is_empty() && !name.contains(' ') => Ok(Self::Named(value)),
                _ => Err(BindingRefusal::HostName(name)),
            },
            _ => Err(BindingRefusal::HostChoice(choice)),
        }
    }
}

/// The previous transport when nothing about it changed, so that its sessions and connections live on.
fn transport(
    tls: Option<wire::BackendTls>,
    previous: Option<&Binding>,
) -> Result<Arc<Transport>, TlsRefusal> {
    if let Some(previous) = previous {
        let same = match (&tls, &previous.transport.tls) {
            (None, None) => true,
            (Some(tls), Some(previous)) => *tls == previous.source,
            _ => false,
        };
        if same {
            return Ok(Arc::clone(&previous.transport));
        }
    }
    Ok(Arc::new(Transport::new(tls.map(BackendTls::compile).transpose()?)))
}

/// A duration from the wire, where 0 means no limit.
pub(crate) fn limit(ms: u64) -> Duration {
    if ms == 0 { FOREVER } else { Duration::from_millis(ms).min(FOREVER) }
}

#[cfg(test)]
mod tests;
