//! Redirects that never come to an end. From each redirect a request is followed through the gateway as a browser would
//! follow it: to the address, the site and the route that its next URL leads to. What leads out of the gateway, or may,
//! is nobody's business here.
//!
//! Every place is walked from once, however long the chains are, and hostile documents run out of [`STEPS`].

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::hosts::Hosts;
use crate::config::gateway::{
    Action, Listener, PathMap, Protocol, Redirect, RedirectTarget, Rule, RuleTarget, Site,
};
use crate::config::paths::normalized;
use crate::config::report::Report;
use crate::config::shape::Placed;

mod directory;

use directory::{Asked, Directory};

/// Places and patterns that are looked at in all, and text that is made: far more than a gateway that people can
/// understand has.
const STEPS: usize = 4_000_000;
/// Bytes of a path, and of a pattern, that are one more step.
const BYTES_A_STEP: usize = 64;
/// A circle of more redirects than this is told by its beginning and its end.
const MOST_TOLD: usize = 20;
/// How often one redirect may meet its own output before it is taken to go on for ever: paths only grow.
const VISITS: u32 = 3;
/// A path that nobody writes a rule for.
const ELSEWHERE: &str = "/holdfast-no-such-path";

/// What a browser asks for, and whose redirect it meets.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    at: Spot,
    /// `None`: a site for any host, and nothing says which.
    host: Option<String>,
    path: String,
}

/// A redirect: listener, site, and which of the site's actions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Spot {
    listener: usize,
    site: usize,
    action: usize,
}

struct Walker<'a> {
    listeners: &'a [Listener],
    hosts: Vec<Hosts<'a>>,
    directory: Directory<'a>,
    by_name: HashMap<&'a str, (usize, usize)>,
    steps: usize,
}

/// Reports each circle of redirects once, at its first rule.
pub(in crate::config) fn redirect_loops(
    listeners: &[Listener],
    rules: &[Placed<Arc<Rule>>],
    report: &mut Report,
) {
    let order: HashMap<&str, usize> =
        rules.iter().enumerate().map(|(at, rule)| (rule.value.name.as_str(), at)).collect();
    let mut walker = Walker::new(listeners);
    let mut seen: HashMap<Place, (usize, usize)> = HashMap::new();
    let mut told: HashSet<Spot> = HashSet::new();
    for (number, start) in walker.starts().into_iter().enumerate() {
        let Some(circle) = walker.walk(start, number, &mut seen) else { continue };
        // The same one may be met under several paths.
        if circle.iter().filter(|spot| !told.insert(**spot)).count() > 0 {
            continue;
        }
        let names: Vec<_> = circle.iter().filter_map(|spot| walker.describe(*spot)).collect();
        let position = |(rule, ..): &(&str, &str, String)| order.get(rule).copied();
        let first = (0..names.len()).min_by_key(|at| names.get(*at).and_then(position));
        let Some((rule, site, _)) = first.and_then(|first| names.get(first)) else { continue };
        let place = position(&(rule, site, String::new())).and_then(|at| rules.get(at));
        let round = names.iter().cycle().skip(first.unwrap_or(0)).take(names.len() + 1);
        let mut round: Vec<&str> = round.map(|(_, _, words)| words.as_str()).collect();
        let more = round.len().saturating_sub(MOST_TOLD);
        let left_out = format!("({more} more)");
        if more > 1 {
            round.splice(MOST_TOLD / 2..MOST_TOLD / 2 + more, [left_out.as_str()]);
        }
        if let Some(place) = place {
            report.error(
                &place.place,
                format!(
                    "the redirect of the rule {rule:?} leads back to its own listener {site:?}: {}",
                    round.join(" → ")
                ),
                "let one of them forward to a pool, or redirect to where no redirect stands",
            );
        }
    }
}

// === impl Walker ===

impl<'a> Walker<'a> {
    fn new(listeners: &'a [Listener]) -> Self {
        let hosts: Vec<_> = listeners.iter().map(|it| Hosts::of(&it.sites)).collect();
        let directory = Directory::of(listeners, &hosts);
        let mut by_name = HashMap::new();
        for (at, listener) in listeners.iter().enumerate() {
            for (index, site) in listener.sites.iter().enumerate() {
                by_name.insert(site.name.as_str(), (at, index));
            }
        }
        Self { listeners, hosts, directory, by_name, steps: STEPS }
    }

    /// Pays for work; in vain once too much was done.
    fn spend(&mut self, steps: usize) -> Option<()> {
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or(0);
        left.map(drop)
    }

    fn site(&self, listener: usize, site: usize) -> Option<&'a Site> {
        self.listeners.get(listener)?.sites.get(site).map(AsRef::as_ref)
    }

    /// One request for each redirect that can be met.
    fn starts(&mut self) -> Vec<Place> {
        let mut starts = Vec::new();
        for (listener, it) in self.listeners.iter().enumerate() {
            for (index, site) in it.sites.iter().enumerate() {
                if self.steps == 0 {
                    return starts;
                }
                let host = self.own_host(listener, index, site);
                if host.is_none() && !site.hosts.is_empty() {
                    continue;
                }
                for path in paths_of(site) {
                    let Some(action) = self.action(site, &path) else { continue };
                    let at = Spot { listener, site: index, action };
                    if self.redirect(at).is_some() {
                        starts.push(Place { at, host: host.clone(), path });
                    }
                }
            }
        }
        starts
    }

    /// A host that the site names and that comes to no other; `None`: there is none.
    fn own_host(&mut self, listener: usize, index: usize, site: &Site) -> Option<String> {
        for host in &site.hosts {
            let host = host.replace(['*', '?'], "x");
            if self.site_by_host(listener, &host).is_some_and(|(at, _)| at == index) {
                return Some(host);
            }
        }
        None
    }

    /// The site of a listener that takes a host, and whether it names it.
    fn site_by_host(&mut self, listener: usize, host: &str) -> Option<(usize, bool)> {
        self.spend(self.hosts.get(listener)?.cost(host))?;
        self.hosts.get(listener)?.find(host)
    }

    /// Follows one request. A circle is told by the redirects in it.
    fn walk(
        &mut self,
        start: Place,
        number: usize,
        seen: &mut HashMap<Place, (usize, usize)>,
    ) -> Option<Vec<Spot>> {
        let mut walked: Vec<Spot> = Vec::new();
        let mut visits: HashMap<Spot, u32> = HashMap::new();
        let mut place = start;
        loop {
            if let Some((walk, at)) = seen.get(&place) {
                // What was met before was settled then.
                return (*walk == number).then(|| walked.split_off(*at));
            }
            let visit = visits.entry(place.at).or_default();
            *visit += 1;
            if *visit > VISITS {
                let last = walked.iter().rposition(|spot| *spot == place.at)?;
                return Some(walked.split_off(last));
            }
            seen.insert(place.clone(), (number, walked.len()));
            walked.push(place.at);
            place = self.next(&place)?;
        }
    }

    /// What a browser asks for next, if that meets a redirect of ours again.
    fn next(&mut self, from: &Place) -> Option<Place> {
        let redirect = self.redirect(from.at)?;
        let (listener, site, host, base) = match &redirect.target {
            RedirectTarget::Site { name, host, .. } => {
                let (listener, site) = *self.by_name.get(name.as_str())?;
                let host = host.clone().or_else(|| from.host.clone());
                let site = match &host {
                    Some(host) => self.site_by_host(listener, host)?.0,
                    None => site,
                };
                (listener, site, host, String::new())
            }
            RedirectTarget::Url(url) => {
                let url = Url::parse(url)?;
                let (listener, site) = self.site_of(&url, from.at.listener)?;
                (listener, site, Some(url.host), url.path)
            }
        };
        let path = match (redirect.include_path, base.is_empty()) {
            (true, _) => format!("{}{}", base.trim_end_matches('/'), from.path),
            (false, true) => "/".to_owned(),
            (false, false) => base,
        };
        let action = self.action(self.site(listener, site)?, &path)?;
        let at = Spot { listener, site, action };
        self.redirect(at).map(|_| Place { at, host, path })
    }

    /// Who takes a URL, where that is certainly this gateway: the listener that has sent it there, or the first.
    fn site_of(&mut self, url: &Url, near: usize) -> Option<(usize, usize)> {
        let asked = Asked { protocol: url.protocol, host: &url.host, port: url.port };
        self.spend(self.directory.cost(asked))?;
        if let Some(site) = self.takes(near, asked) {
            return Some((near, site));
        }
        let first = self.directory.first(asked)?;
        Some((first, self.site_by_host(first, &url.host)?.0))
    }

    /// The site of that listener that certainly takes a URL.
    fn takes(&mut self, listener: usize, asked: Asked<'_>) -> Option<usize> {
        let it = self.listeners.get(listener)?;
        let speaks = it.sites.first().is_some_and(|site| site.protocol == asked.protocol);
        if !speaks || it.address.port() != asked.port {
            return None;
        }
        let ip = it.address.ip();
        let dials =
            |literal: IpAddr| literal == ip || (literal.is_loopback() && ip.is_unspecified());
        let (site, named) = self.site_by_host(listener, asked.host)?;
        let certain =
            named || asked.host.parse().is_ok_and(dials) || self.directory.names(asked.host);
        certain.then_some(site)
    }

    /// Which of a site's actions a path comes to: a path rule by its number, or the default behind them.
    fn action(&mut self, site: &Site, path: &str) -> Option<usize> {
        self.spend(1 + path.len() / BYTES_A_STEP)?;
        let Some(map) = map_of(site) else { return Some(0) };
        let path = normalized(path);
        for (index, rule) in map.paths.iter().enumerate() {
            self.spend(rule.patterns.iter().map(|it| 1 + it.len() / BYTES_A_STEP).sum())?;
            let takes = |pattern: &String| match pattern.strip_suffix('*') {
                Some(prefix) => path.starts_with(&normalized(prefix)),
                None => path == normalized(pattern),
            };
            if rule.patterns.iter().any(takes) {
                return Some(index);
            }
        }
        Some(map.paths.len())
    }

    fn redirect(&self, spot: Spot) -> Option<&'a Redirect> {
        let site = self.site(spot.listener, spot.site)?;
        let action = match &site.rule.as_ref()?.target {
            RuleTarget::Basic(action) => action,
            RuleTarget::PathBased(map) => {
                map.paths.get(spot.action).map_or(&map.default, |path| &path.action)
            }
        };
        match action {
            Action::Redirect(redirect) => Some(redirect),
            Action::Forward { .. } | Action::Distribute { .. } => None,
        }
    }

    /// Rule, site, and words for people.
    fn describe(&self, spot: Spot) -> Option<(&'a str, &'a str, String)> {
        let site = self.site(spot.listener, spot.site)?;
        let rule = site.rule.as_ref()?;
        let path = map_of(site).and_then(|map| map.paths.get(spot.action));
        let words = match path {
            Some(path) => format!("{:?} (path rule {:?})", site.name, path.name),
            None => format!("{:?}", site.name),
        };
        Some((&rule.name, &site.name, words))
    }
}

fn map_of(site: &Site) -> Option<&PathMap> {
    match &site.rule.as_ref()?.target {
        RuleTarget::PathBased(map) => Some(map),
        RuleTarget::Basic(_) => None,
    }
}

/// Paths that between them meet every action of a site that redirects.
fn paths_of(site: &Site) -> Vec<String> {
    let mut paths = vec![ELSEWHERE.to_owned(), "/".to_owned()];
    for rule in map_of(site).iter().flat_map(|map| &map.paths) {
        if matches!(rule.action, Action::Redirect(_)) {
            for pattern in &rule.patterns {
                let literal = pattern.trim_end_matches('*');
                paths.push(literal.to_owned());
                if literal.len() < pattern.len() {
                    paths.push(format!("{literal}holdfast"));
                }
            }
        }
    }
    paths
}

/// A redirect's URL, as far as it decides who is asked.
struct Url {
    protocol: Protocol,
    host: String,
    port: u16,
    path: String,
}

// === impl Url ===

impl Url {
    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (protocol, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Protocol::Http, 80),
            "https" => (Protocol::Https, 443),
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, written)) if !written.ends_with(']') => (host, written.parse().ok()?),
            _ => (authority, port),
        };
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        Some(Self { protocol, host, port, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests;
