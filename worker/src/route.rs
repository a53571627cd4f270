//! From host and path to an action.
//!
//! Sites are tried in the order of their rules' priority and the first whose host matches wins, as on Azure's v2
//! gateways; nothing promotes an exact host over a wildcard. No IO, no health, no clock; a site only has its figures at hand.

mod action;
mod host;
mod path;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use holdfast_proto::control as wire;
use thiserror::Error;

pub use self::action::{Action, Redirect};
pub use self::host::{HostPattern, without_port};
pub use self::path::{MatchedPrefix, PathPattern};
use crate::metrics::{Metrics, SiteFigures};

/// Why routes cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouteRefusal {
    /// A site has no default action.
    #[error("site {site}: no default action")]
    NoDefault {
        /// Name of the site.
        site: String,
    },
    /// A path rule's action is missing.
    #[error("site {site}, path rule {rule}: no action")]
    NoAction {
        /// Name of the site.
        site: String,
        /// Name of the path rule.
        rule: String,
    },
    /// A host or path pattern cannot match anything.
    #[error("site {site}: pattern {pattern:?} is not valid")]
    Pattern {
        /// Name of the site.
        site: String,
        /// The pattern as given.
        pattern: String,
    },
    /// An action refers to a binding that the snapshot does not have.
    #[error("site {site}: binding {binding} does not exist")]
    Binding {
        /// Name of the site.
        site: String,
        /// The index.
        binding: u32,
    },
    /// A TLS site refers to a certificate that the snapshot does not have.
    #[error("site {site}: certificate {certificate} does not exist")]
    Certificate {
        /// Name of the site.
        site: String,
        /// The index.
        certificate: u32,
    },
    /// A redirect's status or target is not valid.
    #[error("site {site}: redirect is not valid: {reason}")]
    Redirect {
        /// Name of the site.
        site: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// One Azure `httpListener` with the rule that routes it.
#[derive(Debug)]
pub struct Site {
    /// Name as configured; its tunnels share it.
    pub name: Arc<str>,
    /// Whether it is served over TLS.
    pub tls: bool,
    /// Name of its rule.
    pub rule: String,
    /// Index of what its clients are offered and asked for, when it is served over TLS.
    pub tls_profile: usize,
    hosts: Vec<HostPattern>,
    certificate: Option<usize>,
    paths: Vec<Route>,
    default_action: Action,
    figures: OnceLock<Arc<SiteFigures>>,
}

#[derive(Debug)]
struct Route {
    name: String,
    patterns: Vec<PathPattern>,
    action: Action,
}

/// All sites of a listener, in order of priority.
#[derive(Debug, Default)]
pub struct Router {
    sites: Vec<Site>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'a> {
    /// The site that took the request.
    pub site: &'a Site,
    /// Name of the routing rule.
    pub rule: &'a str,
    /// Name of the path rule, unless the default applies.
    pub path_rule: Option<&'a str>,
    /// What to do.
    pub action: &'a Action,
    /// What the pattern matched, for the settings' path override.
    pub matched_prefix: MatchedPrefix,
}

// === impl Router ===

impl Router {
    /// Compiles sites. `bindings` and `certificates` are how many there are to refer to.
    pub fn compile(
        sites: Vec<wire::Site>,
        bindings: usize,
        certificates: usize,
    ) -> Result<Self, RouteRefusal> {
        let sites = sites
            .into_iter()
            .map(|site| Site::compile(site, bindings, certificates))
            .collect::<Result<_, _>>()?;
        Ok(Self { sites })
    }

    /// Finds the action for a request. `host` is the Host header as sent, `path` the path as sent, without query.
    pub fn route(&self, tls: bool, host: Option<&str>, path: &str) -> Option<Routed<'_>> {
        let name = host.map_or("", without_port);
        let site = self.sites.iter().find(|site| site.tls == tls && site.takes_host(name))?;
        Some(site.route(path))
    }

    /// The index of the certificate to show for a TLS server name: that of [`Self::site_of_handshake`].
    pub fn certificate_for(&self, sni: Option<&str>) -> Option<usize> {
        self.site_of_handshake(sni).and_then(Site::certificate)
    }

    /// The site that a handshake is for, by its TLS server name.
    ///
    /// The matching site, else the first basic site, else the first TLS site: a handshake never fails for
    /// the name, an unknown host is answered 404 afterwards.
    pub fn site_of_handshake(&self, sni: Option<&str>) -> Option<&Site> {
        let named = sni.map(without_port).and_then(|name| {
            self.tls_sites().find(|site| !site.hosts.is_empty() && site.takes_host(name))
        });
        named
            .or_else(|| self.tls_sites().find(|site| site.hosts.is_empty()))
            .or_else(|| self.tls_sites().next())
    }

    /// The sites in order of priority.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Whether any site of this kind exists: a listener without TLS sites does not shake hands.
    pub fn serves_tls(&self) -> bool {
        self.tls_sites().next().is_some()
    }

    fn tls_sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.tls)
    }
}

// === impl Site ===

impl Site {
    fn compile(
        site: wire::Site,
        bindings: usize,
        certificates: usize,
    ) -> Result<Self, RouteRefusal> {
        let name = site.name;
        let bad_pattern = |pattern: &str| RouteRefusal::Pattern {
            site: name.clone(),
            pattern: pattern.to_owned(),
        };
        let hosts = site
            .hosts
            .iter()
            .map(|host| HostPattern::new(host).ok_or_else(|| bad_pattern(host)))
            .collect::<Result<_, _>>()?;
        let certificate = site
            .tls
            .then(|| usize::try_from(site.certificate).ok().filter(|index| *index < certificates))
            .map(|index| {
                index.ok_or_else(|| RouteRefusal::Certificate {
                    site: name.clone(),
                    certificate: site.certificate,
                })
            })
            .transpose()?;
        let mut paths = Vec::with_capacity(site.paths.len());
        for route in site.paths {
            let patterns = route
                .patterns
                .iter()
                .map(|pattern| PathPattern::new(pattern).ok_or_else(|| bad_pattern(pattern)))
                .collect::<Result<_, _>>()?;
            let action = Action::compile(route.action, &name, bindings)?.ok_or_else(|| {
                RouteRefusal::NoAction { site: name.clone(), rule: route.name.clone() }
            })?;
            paths.push(Route { name: route.name, patterns, action });
        }
        let default_action = Action::compile(site.default_action, &name, bindings)?
            .ok_or_else(|| RouteRefusal::NoDefault { site: name.clone() })?;
        Ok(Self {
            name: name.into(),
            tls: site.tls,
            rule: site.rule,
            tls_profile: usize::try_from(site.tls_profile).unwrap_or(usize::MAX),
            hosts,
            certificate,
            paths,
            default_action,
            figures: OnceLock::new(),
        })
    }

    /// What is counted of its requests, by whoever serves it.
    pub(crate) fn figures(&self, metrics: &Metrics) -> &Arc<SiteFigures> {
        self.figures.get_or_init(|| metrics.site(&self.name))
    }

    /// The index of its certificate, when it is served over TLS.
    pub fn certificate(&self) -> Option<usize> {
        self.certificate
    }

    /// Whether the site has no host names and takes every host.
    pub fn is_basic(&self) -> bool {
        self.hosts.is_empty()
    }

    fn takes_host(&self, name: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether paths are told apart at all.
    pub fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// What happens with a path, as sent, of this site.
    pub fn route(&self, path: &str) -> Routed<'_> {
        let default = Routed {
            site: self,
            rule: &self.rule,
            path_rule: None,
            action: &self.default_action,
            matched_prefix: MatchedPrefix::NONE,
        };
        if self.paths.is_empty() {
            return default;
        }
        let decoded = path::normalize(path);
        for route in &self.paths {
            for pattern in &route.patterns {
                if let Some(matched_prefix) = pattern.matches(&decoded) {
                    let path_rule = Some(route.name.as_str());
                    return Routed { path_rule, action: &route.action, matched_prefix, ..default };
                }
            }
        }
        default
    }
}
