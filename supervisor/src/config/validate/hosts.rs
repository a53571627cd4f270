//! Hosts and the sites that take them, as workers see it: sites in order of priority, the first that takes a host wins.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::config::gateway::Site;
use crate::config::report::{Place, Report};

/// Wildcards that others are compared with. Azure has room for a hundred active listeners with five hosts each.
const MOST_WILDCARDS: usize = 500;

/// The sites of one listener, to find a host's.
pub(super) struct Hosts<'a> {
    literal: HashMap<&'a str, usize>,
    wild: Wildcards<'a>,
    any: Option<usize>,
}

/// Hosts with wildcards and whose each is, to find those that take a host without asking all of them: only one whose end
/// behind its last wildcard is the host's own end can.
#[derive(Default)]
pub(super) struct Wildcards<'a> {
    by_end: HashMap<&'a str, Vec<(&'a str, usize)>>,
    lengths: BTreeSet<usize>,
    count: usize,
}

// === impl Hosts ===

impl<'a> Hosts<'a> {
    /// Of sites in order of priority; those without a rule are not served.
    pub(super) fn of(sites: &'a [Arc<Site>]) -> Self {
        let mut found = Self { literal: HashMap::new(), wild: Wildcards::default(), any: None };
        for (index, site) in sites.iter().enumerate().filter(|(_, site)| site.rule.is_some()) {
            if site.hosts.is_empty() {
                found.any = found.any.or(Some(index));
            }
            for host in &site.hosts {
                if !is_wild(host) {
                    found.literal.entry(host).or_insert(index);
                } else if found.wild.count < MOST_WILDCARDS {
                    found.wild.add(host, index);
                }
            }
        }
        found
    }

    /// The site that takes a host, and whether it names it.
    pub(super) fn find(&self, host: &str) -> Option<(usize, bool)> {
        let literal = self.literal.get(host).copied();
        let wild = self.wild.first(host, |_| true);
        let named = literal.into_iter().chain(wild).min();
        match (named, self.any) {
            (Some(named), Some(any)) => Some((named.min(any), named < any)),
            (Some(named), None) => Some((named, true)),
            (None, any) => any.map(|any| (any, false)),
        }
    }

    /// How many patterns [`Self::find`] compares with a host, and one.
    pub(super) fn cost(&self, host: &str) -> usize {
        1 + self.wild.cost(host)
    }

    /// Whether a site takes every host.
    pub(super) fn takes_any(&self) -> bool {
        self.any.is_some()
    }

    /// Hosts without wildcards.
    pub(super) fn literals(&self) -> impl Iterator<Item = &'a str> {
        self.literal.keys().copied()
    }

    /// Hosts with wildcards.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &'a str> {
        self.wild.by_end.values().flatten().map(|(pattern, _)| *pattern)
    }
}

// === impl Wildcards ===

impl<'a> Wildcards<'a> {
    pub(super) fn add(&mut self, pattern: &'a str, owner: usize) {
        let end = pattern.rsplit(['*', '?']).next().unwrap_or_default();
        self.by_end.entry(end).or_default().push((pattern, owner));
        self.lengths.insert(end.len());
        self.count += 1;
    }

    /// The smallest owner of a pattern that covers a host, among those that count.
    pub(super) fn first(&self, host: &str, counts: impl Fn(usize) -> bool) -> Option<usize> {
        let all = self.near(host).flatten();
        all.filter(|(pattern, at)| counts(*at) && covers(pattern, host)).map(|(_, at)| *at).min()
    }

    /// How many patterns are compared with a host.
    pub(super) fn cost(&self, host: &str) -> usize {
        self.near(host).map(<[_]>::len).sum()
    }

    /// Patterns that end as a host does, by the length of their ends.
    fn near(&self, host: &str) -> impl Iterator<Item = &[(&'a str, usize)]> {
        let ends = self.lengths.iter().filter_map(move |length| {
            let at = host.len().checked_sub(*length)?;
            host.get(at..)
        });
        ends.filter_map(|end| self.by_end.get(end).map(Vec::as_slice))
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
    let mut wild = Wildcards::default();
    let mut owners: Vec<(&str, &Site)> = Vec::new();
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
            let others =
                |at: usize| owners.get(at).is_some_and(|(_, owner)| owner.name != site.name);
            if !report.is_full()
                && any.is_none()
                && let Some((pattern, owner)) =
                    wild.first(host, others).and_then(|at| owners.get(at))
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
        let room = MOST_WILDCARDS.saturating_sub(owners.len());
        for host in wildcards.take(room) {
            wild.add(host, owners.len());
            owners.push((host, site.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Wildcards, covers};

    #[test]
    fn the_first_pattern_is_found_as_if_all_were_asked() {
        let patterns = ["*.a.test", "?.a.test", "*", "x*", "*.test", "a?.b.test", "*.*", "b.*"];
        let mut wild = Wildcards::default();
        for (at, pattern) in patterns.into_iter().enumerate() {
            wild.add(pattern, at);
        }
        for host in
            ["", "x", "b.a.test", "xy.a.test", "a.test", "*.a.test", "ab.b.test", "é", "b.é"]
        {
            for from in 0..patterns.len() {
                let mut asked = patterns.iter().enumerate().skip(from);
                let expected = asked.find(|(_, it)| covers(it, host)).map(|(at, _)| at);
                assert_eq!(wild.first(host, |at| at >= from), expected, "{host} from {from}");
            }
            assert!(wild.cost(host) <= patterns.len());
        }
        // Those that end otherwise are not looked at.
        assert_eq!(wild.cost("ab.b.test"), 6);
    }

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
