//! Hosts and the sites that take them, as workers see it: sites in order of priority, the first that takes a host wins.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::gateway::Site;
use crate::config::report::{Place, Report};

/// Wildcards that others are compared with. Azure has room for a hundred active listeners with five hosts each.
const MOST_WILDCARDS: usize = 500;

/// The sites of one listener, to find a host's.
pub(super) struct Hosts<'a> {
    literal: HashMap<&'a str, usize>,
    wild: Vec<(&'a str, usize)>,
    any: Option<usize>,
}

// === impl Hosts ===

impl<'a> Hosts<'a> {
    /// Of sites in order of priority; those without a rule are not served.
    pub(super) fn of(sites: &'a [Arc<Site>]) -> Self {
        let mut found = Self { literal: HashMap::new(), wild: Vec::new(), any: None };
        for (index, site) in sites.iter().enumerate().filter(|(_, site)| site.rule.is_some()) {
            if site.hosts.is_empty() {
                found.any = found.any.or(Some(index));
            }
            for host in &site.hosts {
                if !is_wild(host) {
                    found.literal.entry(host).or_insert(index);
                } else if found.wild.len() < MOST_WILDCARDS {
                    found.wild.push((host, index));
                }
            }
        }
        found
    }

    /// The site that takes a host, and whether it names it.
    pub(super) fn find(&self, host: &str) -> Option<(usize, bool)> {
        let literal = self.literal.get(host).copied();
        let wild = self.wild.iter().find(|(pattern, _)| covers(pattern, host)).map(|(_, at)| *at);
        let named = literal.into_iter().chain(wild).min();
        match (named, self.any) {
            (Some(named), Some(any)) => Some((named.min(any), named < any)),
            (Some(named), None) => Some((named, true)),
            (None, any) => any.map(|any| (any, false)),
        }
    }

    /// Whether a site names the host, or a pattern that it matches.
    pub(super) fn names(&self, host: &str) -> bool {
        self.literal.contains_key(host) || self.wild.iter().any(|(wild, _)| covers(wild, host))
    }
}

/// Whether a host has wildcards.
pub(super) fn is_wild(host: &str) -> bool {
    host.contains(['*', '?'])
}

/// Whether a pattern takes every host that another one takes (or the one that it is). `*` takes any run of characters,
/// wildcards of the other among them; `?` takes one, which the other's `*` is not.
pub(super) fn covers(pattern: &str, other: &str) -> bool {
    let (pattern, other) = (pattern.as_bytes(), other.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // The latest * to go back to: what follows it in the pattern, and where it has got to in the other.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = other.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                star = Some((at, seen));
            }
            Some(b'?') if *byte != b'*' => (at, seen) = (at + 1, seen + 1),
            Some(wanted) if wanted == byte && *byte != b'*' => (at, seen) = (at + 1, seen + 1),
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                (at, seen) = (after, from + 1);
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Warns of sites and hosts that others with smaller priority numbers hide.
pub(super) fn shadows(sites: &[(Arc<Site>, &Place)], report: &mut Report) {
    let mut any: Option<&Site> = None;
    let mut wild: Vec<(&str, &Site)> = Vec::new();
    for (site, place) in sites.iter().filter(|(site, _)| site.rule.is_some()) {
        if let Some(any) = any {
            report.warn(
                place,
                format!(
                    "{:?} is never reached: {:?} takes any host, and its rule has the smaller priority",
                    site.name, any.name
                ),
                "give the rule of the listener without hosts the largest priority number",
            );
        }
        for host in &site.hosts {
            let hides = |(pattern, owner): &&(&str, &Site)| {
                covers(pattern, host) && owner.name != site.name
            };
            if !report.is_full()
                && any.is_none()
                && let Some((pattern, owner)) = wild.iter().find(hides)
            {
                report.warn(
                    place,
                    format!(
                        "{host:?} never comes to {:?}: {:?} takes {pattern:?}, and its rule has the smaller priority",
                        site.name, owner.name
                    ),
                    format!("give the rule of {:?} a smaller priority number", site.name),
                );
            }
        }
        if site.hosts.is_empty() && any.is_none() {
            any = Some(site);
        }
        let wildcards = site.hosts.iter().filter(|host| is_wild(host));
        let room = MOST_WILDCARDS.saturating_sub(wild.len());
        wild.extend(wildcards.take(room).map(|host| (host.as_str(), site.as_ref())));
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_pattern_covers_what_it_would_take_anyway() {
        for (pattern, other) in [
            ("*.test", "a.test"),
            ("*.test", "a.b.test"),
            ("*.test", "*.a.test"),
            ("*", "?.*"),
            ("a?.test", "a?.test"),
            ("a?.test", "ab.test"),
            ("*a*", "banana"),
            ("a.test", "a.test"),
        ] {
            assert!(covers(pattern, other), "{pattern} {other}");
        }
        for (pattern, other) in [
            ("*.test", "test"),
            ("a.test", "*.test"),
            ("a?.test", "a*.test"),
            ("?.test", ".test"),
            ("a.test", "a.test.more"),
            ("*a", "banan"),
            ("a?.test", "a.test"),
        ] {
            assert!(!covers(pattern, other), "{pattern} {other}");
        }
    }
}
