//! From a [`Gateway`] to what workers and the prober are sent. Pure: no IO, no clock, the same gateway always
//! compiles to the same tables, whatever shape its document had. Never decides anything: that is `config`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use holdfast_proto::control;

use crate::config::gateway::{
    Action, Gateway, Listener, Pool, Protocol, Redirect, RedirectTarget, RuleTarget, Settings, Site,
};

mod client_side;
mod level;
mod pages;
mod policies;
mod probes;
mod rewrite;
mod size;
mod standing;
mod tls;

pub use level::needed;
use size::Room;
pub use size::{LONGEST_STAPLE, TooLarge};

#[cfg(test)]
mod tests;

/// What Azure grants connections of a removed backend when `connectionDraining` is off.
const DRAIN_WHEN_OFF: Duration = Duration::from_secs(30);

/// Everything that is sent to children, revision and health left to the caller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// One snapshot for each bound address that serves at least one site; `revision` is 0, and no ticket keys.
    pub listeners: BTreeMap<SocketAddr, control::ListenerSnapshot>,
    /// Every (pool, settings) that some rule joins, in order of names.
    pub pools: Vec<CompiledPool>,
    /// What the prober checks: one for each backend of each of `pools`; `known` is unknown.
    pub targets: Vec<control::Target>,
    /// (pool, settings, figure): so many backends count as healthy whatever the probes say. Zeroes left out.
    pub min_servers: Vec<(String, String, u32)>,
    /// What tunnels may stay at, whichever listener they are of; goes out with each snapshot.
    pub standing: control::Standing,
}

/// A pool under one set of backend settings.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledPool {
    /// Pool name as spelled.
    pub pool: String,
    /// Settings name as spelled.
    pub settings: String,
    /// Backends, each once.
    pub backends: Vec<control::Backend>,
    /// How long tunnels of a removed or drained backend live on.
    pub drain_timeout: Duration,
}

/// Compiles a gateway.
///
/// # Errors
/// It cannot be sent to those who are to serve it.
pub fn compile(gateway: &Gateway) -> Result<Compiled, TooLarge> {
    let mut compiled = Compiled { standing: standing::standing(gateway), ..Compiled::default() };
    let mut targets = Room::of_targets();
    let mut joined = BTreeSet::new();
    for listener in &gateway.listeners {
        let snapshot = Snapshot::of(listener, gateway);
        for site in snapshot.sites() {
            for (pool, settings) in actions(site).into_iter().flat_map(policies::joins) {
                if joined.insert((pool.name.clone(), settings.name.clone())) {
                    compiled.pools.push(CompiledPool {
                        pool: pool.name.clone(),
                        settings: settings.name.clone(),
                        backends: backends(&pool.backends, settings.port),
                        drain_timeout: settings.drain_timeout.unwrap_or(DRAIN_WHEN_OFF),
                    });
                    for target in probes::targets(pool, settings) {
                        targets.take(&target)?;
                        compiled.targets.push(target);
                    }
                    let least = settings.probe.as_ref().map_or(0, |probe| probe.min_servers);
                    if least > 0 {
                        compiled.min_servers.push((
                            pool.name.clone(),
                            settings.name.clone(),
                            least,
                        ));
                    }
                }
            }
        }
        let message = snapshot.build(&compiled.standing)?;
        if !message.sites.is_empty() {
            compiled.listeners.insert(listener.address, message);
        }
    }
    compiled.pools.sort_by(|a, b| (&a.pool, &a.settings).cmp(&(&b.pool, &b.settings)));
    compiled.targets.sort_by(|a, b| probes::order(a).cmp(&probes::order(b)));
    compiled.min_servers.sort();
    Ok(compiled)
}

/// Every action that a request to the site may come to, in the order in which they are tried.
fn actions(site: &Site) -> Vec<&Action> {
    match site.rule.as_ref().map(|rule| &rule.target) {
        None => Vec::new(),
        Some(RuleTarget::Basic(action)) => vec![action],
        Some(RuleTarget::PathBased(map)) => {
            map.paths.iter().map(|path| &path.action).chain([&map.default]).collect()
        }
    }
}

fn backends(addresses: &[String], port: u16) -> Vec<control::Backend> {
    let mut seen = BTreeSet::new();
    addresses
        .iter()
        .filter(|address| seen.insert(address.to_ascii_lowercase()))
        .map(|address| control::Backend { address: address.clone(), port: port.into() })
        .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn scheme(protocol: Protocol) -> control::Scheme {
    match protocol {
        Protocol::Http => control::Scheme::Http,
        Protocol::Https => control::Scheme::Https,
    }
}

/// One listener's tables while they are being numbered.
struct Snapshot<'a> {
    listener: &'a Listener,
    gateway: &'a Gateway,
    /// (pool, settings) in order of first use.
    bindings: Vec<control::PoolBinding>,
    certificates: Vec<control::Certificate>,
    pages: pages::Pages,
    rewrites: Vec<control::RewriteSet>,
    tls_profiles: Vec<control::TlsProfile>,
}

impl<'a> Snapshot<'a> {
    fn of(listener: &'a Listener, gateway: &'a Gateway) -> Self {
        Self {
            listener,
            gateway,
            bindings: Vec::new(),
            certificates: Vec::new(),
            pages: pages::Pages::default(),
            rewrites: Vec::new(),
            tls_profiles: Vec::new(),
        }
    }

    fn sites(&self) -> impl Iterator<Item = &'a Site> + use<'a> {
        let listener: &'a Listener = self.listener;
        listener.sites.iter().map(AsRef::as_ref).filter(|site| site.rule.is_some())
    }

    fn build(
        mut self,
        standing: &control::Standing,
    ) -> Result<control::ListenerSnapshot, TooLarge> {
        let mut sites = Vec::new();
        let mut room = Room::of_listener(self.listener.address);
        for site in self.sites().filter_map(|site| self.site(site)) {
            // One by one: sites that share a long path map are each sent it.
            room.take(&site)?;
            sites.push(site);
        }
        let error_pages = std::mem::take(&mut self.pages).finish(self.gateway, self.sites());
        let table = control::ListenerSnapshot {
            revision: 0,
            listener: self.listener.address.to_string(),
            sites,
            bindings: self.bindings,
            certificates: self.certificates,
            limits: Some(limits(self.gateway)),
            hide_server_header: self.gateway.global.hide_server_header,
            http2: http2(self.gateway),
            access_log: client_side::access_log(&self.gateway.global.access_log),
            client_source: client_side::client_source(self.listener),
            error_pages,
            rewrite_sets: self.rewrites,
            tls_profiles: self.tls_profiles,
            ticket_keys: Vec::new(),
            // The caller's: it outlives every configuration.
            affinity_key: Vec::new(),
            // The caller's: it is the same for every listener, and no change of this one.
            standing: None,
        };
        // And what is added to it each time.
        let mut room = Room::of_listener(self.listener.address);
        room.take(&table)?;
        room.take(standing)?;
        room.reserve(table.certificates.len().saturating_mul(LONGEST_STAPLE))?;
        Ok(table)
    }

    fn site(&mut self, site: &Site) -> Option<control::Site> {
        let rule = site.rule.as_ref()?;
        let (paths, default) = match &rule.target {
            RuleTarget::Basic(action) => (Vec::new(), self.action(action)),
            RuleTarget::PathBased(map) => {
                let paths = map.paths.iter().map(|path| control::PathRoute {
                    name: path.name.clone(),
                    patterns: path.patterns.iter().map(|p| p.to_ascii_lowercase()).collect(),
                    action: Some(self.action(&path.action)),
                });
                (paths.collect(), self.action(&map.default))
            }
        };
        Some(control::Site {
            name: site.name.clone(),
            tls: site.protocol == Protocol::Https,
            hosts: site.hosts.clone(),
            certificate: self.certificate(site),
            tls_profile: tls::profile(site, self.gateway, &mut self.tls_profiles),
            rule: rule.name.clone(),
            priority: rule.priority,
            paths,
            default_action: Some(default),
            error_pages: self.pages.of(self.gateway.pages_of(site)),
        })
    }

    fn certificate(&mut self, site: &Site) -> u32 {
        let Some(certificate) = &site.certificate else { return 0 };
        let known = self.certificates.iter().position(|c| c.name == certificate.name);
        let index = known.unwrap_or_else(|| {
            self.certificates.push(control::Certificate {
                name: certificate.name.clone(),
                chain_der: certificate.chain_der.clone(),
                key_der: certificate.key_der.clone(),
                // The caller's: it is no part of a configuration.
                staple: Vec::new(),
                wants_staple: certificate.ocsp_stapling,
            });
            self.certificates.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// The index of a pool's binding.
    fn binding(&mut self, pool: &Pool, settings: &Settings) -> u32 {
        let known = self.bindings.iter().position(|it| {
            it.distribution.is_none() && it.pool == pool.name && it.settings == settings.name
        });
        let index = known.unwrap_or_else(|| {
            self.bindings.push(control::PoolBinding {
                pool: pool.name.clone(),
                settings: settings.name.clone(),
                backends: backends(&pool.backends, settings.port),
                backend_settings: Some(backend_settings(settings)),
                distribution: None,
            });
            self.bindings.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn action(&mut self, action: &Action) -> control::Action {
        let mut rewrite_set = None;
        let forward = |binding| control::action::Kind::Forward(control::Forward { binding });
        if let Action::Forward { rewrite, .. } | Action::Distribute { rewrite, .. } = action {
            rewrite_set = rewrite.as_ref().map(|set| rewrite::index(&mut self.rewrites, set));
        }
        let kind = match action {
            Action::Forward { pool, settings, .. } => forward(self.binding(pool, settings)),
            Action::Distribute { policy, settings, .. } => forward(self.shared(policy, settings)),
            Action::Redirect(target) => control::action::Kind::Redirect(redirect(target)),
        };
        control::Action { kind: Some(kind), rewrite_set }
    }
}

fn redirect(redirect: &Redirect) -> control::Redirect {
    let mut message = control::Redirect {
        status: redirect.status.into(),
        include_path: redirect.include_path,
        include_query: redirect.include_query,
        ..control::Redirect::default()
    };
    match &redirect.target {
        RedirectTarget::Url(url) => message.target_url.clone_from(url),
        RedirectTarget::Site { protocol, host, port, .. } => {
            message.target_scheme = protocol.as_str().to_ascii_lowercase();
            message.target_host = host.clone().unwrap_or_default();
            message.target_port = (*port).into();
        }
    }
    message
}

fn backend_settings(settings: &Settings) -> control::BackendSettings {
    use crate::config::gateway::HostChoice;
    let (host, host_name) = match &settings.host {
        HostChoice::Client => (control::HostChoice::Client, String::new()),
        HostChoice::Named(name) => (control::HostChoice::Named, name.clone()),
        HostChoice::Backend => (control::HostChoice::Backend, String::new()),
    };
    control::BackendSettings {
        scheme: scheme(settings.protocol).into(),
        request_timeout_ms: millis(settings.request_timeout),
        host: host.into(),
        host_name,
        path_prefix: settings.path.clone(),
        tls: (settings.protocol == Protocol::Https).then(|| backend_tls(settings)),
        draining_enabled: settings.drain_timeout.is_some(),
        drain_timeout_ms: millis(settings.drain_timeout.unwrap_or(DRAIN_WHEN_OFF)),
        affinity: settings.affinity.clone().map(|cookie_name| control::Affinity { cookie_name }),
        dedicated: settings.dedicated,
    }
}

fn backend_tls(settings: &Settings) -> control::BackendTls {
    control::BackendTls {
        trusted_roots_der: settings.trusted_roots.iter().map(|root| root.der.clone()).collect(),
        validate_chain: settings.validate_chain,
        validate_name: settings.validate_name,
        sni_name: probes::without_port(&settings.sni_name).to_owned(),
    }
}

fn http2(gateway: &Gateway) -> Option<control::Http2> {
    let global = &gateway.global;
    global.http2.then_some(control::Http2 { websockets: global.websockets_over_http2 })
}

fn limits(gateway: &Gateway) -> control::Limits {
    let global = &gateway.global;
    control::Limits {
        header_timeout_ms: millis(global.header_timeout),
        keep_alive_timeout_ms: millis(global.keep_alive_timeout),
        connect_timeout_ms: millis(global.connect_timeout),
        handshake_timeout_ms: millis(global.handshake_timeout),
        max_header_bytes: global.max_header_bytes,
        max_body_bytes: global.max_body_bytes,
        max_connections: global.max_connections,
        drain_timeout_ms: millis(global.drain_timeout),
        threads: global.threads.unwrap_or(0),
    }
}
