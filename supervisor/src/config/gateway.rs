//! The gateway that a document means: every default filled in, every reference followed, every value in range.
//! Nothing here remembers a document's shape or spelling except names, which stay as spelled. References are
//! [`Arc`]s, so a dangling one cannot be expressed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

mod access_log;
mod admin;
mod client_source;

pub use access_log::{AccessLog, AccessLogDestination};
pub use admin::{AdminClient, AdminIdentity, AdminNetwork, AdminRole};
pub use client_source::{ClientSource, Network};

/// Of which shares are counted.
pub const MILLION: u32 = 1_000_000;
mod error_page;

pub use error_page::{Bodies, ErrorPage, PAGE_LIMIT, PageSource};
pub mod rewrite;

use self::rewrite::RewriteSet;
mod tls;

pub use super::policy::{Algorithm, Policy, Share};
pub use tls::{
    ClientAuth, ClientAuthMode, Suite, SuiteNeeds, TlsPolicy, TlsProfile, TrustedClients,
};

/// A whole gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Name of the resource; empty when the document gives none.
    pub name: String,
    /// Addresses to bind.
    pub frontends: Vec<Arc<Frontend>>,
    /// Ports to bind.
    pub ports: Vec<Arc<Port>>,
    /// Bound addresses, ascending, each with its sites.
    pub listeners: Vec<Listener>,
    /// Routing rules, by ascending priority.
    pub rules: Vec<Arc<Rule>>,
    /// URL path maps.
    pub path_maps: Vec<Arc<PathMap>>,
    /// Redirects.
    pub redirects: Vec<Arc<Redirect>>,
    /// Rewrite sets.
    pub rewrite_sets: Vec<Arc<RewriteSet>>,
    /// Backend pools.
    pub pools: Vec<Arc<Pool>>,
    /// Policies that share requests out among pools.
    pub policies: Vec<Arc<Policy>>,
    /// Backend settings.
    pub settings: Vec<Arc<Settings>>,
    /// Custom probes.
    pub probes: Vec<Arc<Probe>>,
    /// Certificates with their keys.
    pub certificates: Vec<Arc<Certificate>>,
    /// Roots that backends' certificates may chain to.
    pub trusted_roots: Vec<Arc<TrustedRoot>>,
    /// Pages of sites that have none of their own.
    pub error_pages: Vec<ErrorPage>,
    /// What clients are offered where no profile says otherwise.
    pub tls_policy: TlsPolicy,
    /// Profiles of sites.
    pub tls_profiles: Vec<Arc<TlsProfile>>,
    /// Authorities that may issue certificates of clients.
    pub trusted_clients: Vec<Arc<TrustedClients>>,
    /// What concerns the gateway as a whole.
    pub global: Global,
}

/// An address that listeners bind.
#[derive(Clone, Debug, PartialEq)]
pub struct Frontend {
    /// Name as spelled.
    pub name: String,
    /// Address to bind.
    pub address: IpAddr,
}

/// A port that listeners bind.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Name as spelled.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// One bound address; several sites may share it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Address and port to bind.
    pub address: SocketAddr,
    /// Sites by ascending rule priority; those without a rule last.
    pub sites: Vec<Arc<Site>>,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// One Azure `httpListener`.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// Name as spelled.
    pub name: String,
    /// Where it listens.
    pub frontend: Arc<Frontend>,
    /// Where it listens.
    pub port: Arc<Port>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Host names in lower case, with wildcards; empty: any host.
    pub hosts: Vec<String>,
    /// Present exactly when the protocol is [`Protocol::Https`].
    pub certificate: Option<Arc<Certificate>>,
    /// What its clients are offered and asked for, where that is not as for all.
    pub tls_profile: Option<Arc<TlsProfile>>,
    /// Kept for the effective configuration only.
    pub require_sni: bool,
    /// Who may tell it who its clients are.
    pub source: ClientSource,
    /// Its own pages; none: the gateway's.
    pub error_pages: Vec<ErrorPage>,
    /// The rule that routes it; without one it is not served.
    pub rule: Option<Arc<Rule>>,
}

/// One Azure `requestRoutingRule`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Name as spelled.
    pub name: String,
    /// 1 to 20000, unique.
    pub priority: u32,
    /// Name of the site that it routes.
    pub site: String,
    /// Where requests go.
    pub target: RuleTarget,
}

/// Where a rule sends requests.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleTarget {
    /// All to one place.
    Basic(Action),
    /// By path.
    PathBased(Arc<PathMap>),
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is forwarded to a backend.
    Forward {
        /// The backends.
        pool: Arc<Pool>,
        /// How to talk to them.
        settings: Arc<Settings>,
        /// What is changed on the way there and back.
        rewrite: Option<Arc<RewriteSet>>,
    },
    /// It is forwarded to a backend of one of several pools.
    Distribute {
        /// Which pools, and how.
        policy: Arc<Policy>,
        /// How to talk to their backends.
        settings: Arc<Settings>,
        /// What is changed on the way there and back.
        rewrite: Option<Arc<RewriteSet>>,
    },
    /// The client is sent elsewhere.
    Redirect(Arc<Redirect>),
}

/// One Azure `urlPathMap`.
#[derive(Clone, Debug, PartialEq)]
pub struct PathMap {
    /// Name as spelled.
    pub name: String,
    /// When no path matches.
    pub default: Action,
    /// In order; the first match wins.
    pub paths: Vec<PathRule>,
}

/// One entry of a [`PathMap`].
#[derive(Clone, Debug, PartialEq)]
pub struct PathRule {
    /// Name as spelled.
    pub name: String,
    /// Patterns as spelled; matched without regard to case.
    pub patterns: Vec<String>,
    /// What happens to a request that matches.
    pub action: Action,
}

/// One Azure `redirectConfiguration`.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// Name as spelled.
    pub name: String,
    /// 301, 302, 303 or 307.
    pub status: u16,
    /// Where to.
    pub target: RedirectTarget,
    /// Append the request's path.
    pub include_path: bool,
    /// Append the request's query.
    pub include_query: bool,
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq)]
pub enum RedirectTarget {
    /// An absolute URL.
    Url(String),
    /// Another site of this gateway.
    Site {
        /// Its name.
        name: String,
        /// What it speaks.
        protocol: Protocol,
        /// Its only host; without one the request's own host is used.
        host: Option<String>,
        /// Its port.
        port: u16,
    },
}

/// One Azure `backendAddressPool`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Name as spelled.
    pub name: String,
    /// IP literals or host names, as spelled.
    pub backends: Vec<String>,
}

/// One entry of Azure's `backendHttpSettingsCollection`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name as spelled.
    pub name: String,
    /// Port that traffic goes to.
    pub port: u16,
    /// What backends speak.
    pub protocol: Protocol,
    /// Bounds the wait for an answer, and a tunnel's silence.
    pub request_timeout: Duration,
    /// Host that a backend sees.
    pub host: HostChoice,
    /// Path override; empty: none.
    pub path: String,
    /// Custom probe; without one Azure's default probe applies.
    pub probe: Option<Arc<Probe>>,
    /// How long connections of a removed or drained backend live on, when draining is enabled.
    pub drain_timeout: Option<Duration>,
    /// Roots beside the system's.
    pub trusted_roots: Vec<Arc<TrustedRoot>>,
    /// Whether the backend's chain and dates are checked.
    pub validate_chain: bool,
    /// Whether the backend's name is checked.
    pub validate_name: bool,
    /// Name to send and to check; empty: by the host rule.
    pub sni_name: String,
    /// Name of the cookie that keeps a client at its backend; `None`: affinity is off.
    pub affinity: Option<String>,
    /// Whether a backend connection belongs to one client's connection.
    pub dedicated: bool,
}

/// The Host header that a backend sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChoice {
    /// As the client sent it.
    Client,
    /// This one.
    Named(String),
    /// The backend's own address.
    Backend,
}

/// One custom probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Name as spelled.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Port; without one the settings' port.
    pub port: Option<u16>,
    /// Begins with `/`.
    pub path: String,
    /// Host header.
    pub host: ProbeHost,
    /// From the start of one check to the next.
    pub interval: Duration,
    /// Bounds one check.
    pub timeout: Duration,
    /// Failures in a row that make a backend unhealthy.
    pub unhealthy_threshold: u32,
    /// Inclusive ranges of healthy status codes.
    pub statuses: Vec<(u16, u16)>,
    /// Substring that the body must hold; empty: any.
    pub body: String,
    /// So many backends count as healthy whatever the probes say.
    pub min_servers: u32,
}

/// The Host header of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeHost {
    /// This one.
    Named(String),
    /// As the backend settings choose.
    FromSettings,
}

/// A certificate chain with its key.
#[derive(Clone, PartialEq)]
pub struct Certificate {
    /// Name as spelled.
    pub name: String,
    /// Leaf first.
    pub chain_der: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key_der: Vec<u8>,
    /// Where it came from.
    pub source: CertificateSource,
    /// What its OCSP responder says is shown with it.
    pub ocsp_stapling: bool,
}

/// Where a certificate came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// `data` and `password` of the document.
    Pfx,
    /// PEM files, as spelled.
    Files {
        /// The chain.
        certificate: String,
        /// The key.
        private_key: String,
    },
}

/// A root that backends' certificates may chain to.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedRoot {
    /// Name as spelled.
    pub name: String,
    /// The certificate.
    pub der: Vec<u8>,
}

/// What concerns the gateway as a whole.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, as documents have them")]
pub struct Global {
    /// Worker threads of each listener; without a figure one for each CPU.
    pub threads: Option<u32>,
    /// How long a draining worker keeps its tunnels.
    pub drain_timeout: Duration,
    /// Dialling a backend, TLS included.
    pub connect_timeout: Duration,
    /// A client's TLS handshake.
    pub handshake_timeout: Duration,
    /// A client's whole request must arrive within.
    pub header_timeout: Duration,
    /// Idle time between requests.
    pub keep_alive_timeout: Duration,
    /// Of each listener; 0: no limit.
    pub max_connections: u32,
    /// Size of a request's head.
    pub max_header_bytes: u32,
    /// Size of a request's body.
    pub max_body_bytes: u64,
    /// No Server header of the gateway's own.
    pub hide_server_header: bool,
    /// Clients that speak TLS are offered HTTP/2.
    pub http2: bool,
    /// And may open `WebSockets` over it, which are pinned.
    pub websockets_over_http2: bool,
    /// A line for each request.
    pub access_log: AccessLog,
    /// Certificate files that change are read again without being asked.
    pub watch_certificate_files: bool,
    /// Operators are served over the network, too.
    pub admin: Option<Arc<AdminNetwork>>,
}

// === impl Global ===

impl Default for Global {
    /// Azure's figures where it has them: 60 s for a request, 75 s keep-alive, 32 KiB heads, 4 GB bodies.
    fn default() -> Self {
        Self {
            threads: None,
            drain_timeout: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(75),
            max_connections: 0,
            max_header_bytes: 32 * 1024,
            max_body_bytes: 4 * 1024 * 1024 * 1024,
            hide_server_header: false,
            http2: false,
            websockets_over_http2: false,
            access_log: AccessLog::default(),
            watch_certificate_files: true,
            admin: None,
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// Azure's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "Http",
            Self::Https => "Https",
        }
    }
}

// === impl Site ===

impl Site {
    /// The address that it is bound to.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.frontend.address, self.port.port)
    }
}

// === impl Certificate ===

impl Certificate {
    /// When its leaf is no longer valid, in seconds of Unix time; `None` where it cannot be read.
    pub fn expires(&self) -> Option<i64> {
        super::certificate::expires(self.chain_der.first()?)
    }
}

impl fmt::Debug for Certificate {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("name", &self.name)
            .field("source", &self.source)
            .field("chain_length", &self.chain_der.len())
            .finish_non_exhaustive()
    }
}
