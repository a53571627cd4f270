//! Checks that need the whole gateway in view: priorities, sites that share an address; and in modules of their own hosts
//! that hide one another, redirects in a circle, Azure's counts. What a single entry may hold was checked where it was read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::gateway::{Listener, Rule, Site};
use super::read::network::SiteDraft;
use super::read::routing::RuleDraft;
use super::reference::Table;
use super::report::{Place, Report};
use super::shape::Placed;

mod counts;
mod hosts;
mod redirects;

pub(super) use counts::counts;
pub(super) use redirects::redirect_loops;

/// What Azure numbers rules from when none has a priority: those with hosts first, in steps of five.
const MULTI_SITE_FROM: u32 = 19_000;
const BASIC_FROM: u32 = 19_500;
const STEP: u32 = 5;
/// The largest priority.
const LAST: u32 = 20_000;

/// Settles every rule's priority: all given, or none.
pub(super) fn priorities(
    drafts: Vec<Arc<RuleDraft>>,
    sites: &Table<SiteDraft>,
    report: &mut Report,
) -> Vec<Placed<Arc<Rule>>> {
    let given = drafts.iter().any(|draft| draft.priority.is_some());
    let mut taken: BTreeMap<u32, String> = BTreeMap::new();
    let sites = sites.values();
    let multi_sites: HashSet<&str> =
        sites.iter().filter(|d| !d.site.hosts.is_empty()).map(|d| d.site.name.as_str()).collect();
    let has_hosts = |draft: &&Arc<RuleDraft>| multi_sites.contains(draft.rule.site.as_str());
    let with_hosts = drafts.iter().filter(has_hosts).count();
    let (mut multi_site, mut basic, step) = numbering(with_hosts, drafts.len() - with_hosts);
    if let (Some(last), true) = (drafts.last(), drafts.len() > LAST as usize) {
        report.error(
            &last.place,
            format!("there are {} rules, and only {LAST} priorities", drafts.len()),
            "take rules out",
        );
        return Vec::new();
    }
    let mut rules = Vec::new();
    for draft in drafts {
        let name = &draft.rule.name;
        let priority = match draft.priority {
            Some(priority) => {
                if let Some(other) = taken.insert(priority, name.clone()) {
                    report.error(
                        &draft.priority_place,
                        format!(
                            "the rules {other:?} and {name:?} have the same priority {priority}"
                        ),
                        "give each rule a number of its own",
                    );
                }
                priority
            }
            None if given => {
                report.error(
                    &draft.place,
                    format!("the rule {name:?} has no priority, but others have one"),
                    "give every rule a priority from 1 to 20000, or none",
                );
                continue;
            }
            None => {
                let next = if has_hosts(&&draft) { &mut multi_site } else { &mut basic };
                let priority = *next;
                *next += step;
                priority
            }
        };
        let rule = Rule { priority, ..draft.rule.clone() };
        rules.push(Placed { value: Arc::new(rule), place: draft.place.clone() });
    }
    rules
}

/// The first number for rules with hosts, the first for others, and the step: Azure's own, as long as all of them fit;
/// more rules than that are numbered without gaps, up to the last priority.
fn numbering(with_hosts: usize, others: usize) -> (u32, u32, u32) {
    let room = |from: u32, until: u32| ((until - from) / STEP) as usize;
    if with_hosts <= room(MULTI_SITE_FROM, BASIC_FROM) && others <= room(BASIC_FROM, LAST) + 1 {
        return (MULTI_SITE_FROM, BASIC_FROM, STEP);
    }
    let count = |rules: usize| u32::try_from(rules).unwrap_or(LAST);
    let first = (LAST + 1).saturating_sub(count(with_hosts.saturating_add(others)));
    (first, first.saturating_add(count(with_hosts)), 1)
}

/// Groups sites by the address that they bind, and finds those that get in each other's way.
pub(super) fn listeners(
    sites: &Table<SiteDraft>,
    rules: &[Placed<Arc<Rule>>],
    report: &mut Report,
) -> Vec<Listener> {
    let mut groups: BTreeMap<SocketAddr, Vec<Arc<SiteDraft>>> = BTreeMap::new();
    for draft in sites.values() {
        groups.entry(draft.site.address()).or_default().push(draft);
    }
    overlaps(&groups, report);
    let mut by_site: HashMap<&str, Vec<&Placed<Arc<Rule>>>> = HashMap::new();
    for rule in rules {
        by_site.entry(&rule.value.site).or_default().push(rule);
    }
    let mut listeners = Vec::new();
    for (address, drafts) in groups {
        conflicts(address, &drafts, report);
        let mut routed: Vec<(Arc<Site>, &Place)> = Vec::new();
        for draft in &drafts {
            let found = by_site.get(draft.site.name.as_str()).map_or(&[][..], Vec::as_slice);
            routed.push((Arc::new(with_rule(draft, found, report)), &draft.place));
        }
        routed.sort_by_key(|(site, _)| site.rule.as_ref().map_or(u32::MAX, |rule| rule.priority));
        hosts::shadows(&routed, report);
        let sites = routed.into_iter().map(|(site, _)| site).collect();
        listeners.push(Listener { address, sites });
    }
    listeners
}

fn with_rule(draft: &SiteDraft, found: &[&Placed<Arc<Rule>>], report: &mut Report) -> Site {
    let mut found = found.iter();
    let rule = found.next().map(|rule| Arc::clone(&rule.value));
    let name = &draft.site.name;
    match &rule {
        None => report.warn(
            &draft.place,
            format!("no rule routes the listener {name:?}, so it is not served"),
            "add a request routing rule for it, or take it out",
        ),
        Some(first) => {
            for other in found {
                report.error(
                    &other.place,
                    format!(
                        "the listener {name:?} has two rules, {:?} and {:?}",
                        first.name, other.value.name
                    ),
                    "a listener has one rule; use a path map, or another listener",
                );
            }
        }
    }
    Site { rule, ..draft.site.clone() }
}

/// The wildcard address takes the port on every address.
fn overlaps(groups: &BTreeMap<SocketAddr, Vec<Arc<SiteDraft>>>, report: &mut Report) {
    for (address, drafts) in groups {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let wide = SocketAddr::new(any, address.port());
        if let (true, Some(draft)) =
            (wide != *address && groups.contains_key(&wide), drafts.first())
        {
            report.error(
                &draft.place,
                format!(
                    "{address} cannot be bound beside {wide}, which takes the port on every address"
                ),
                "give every frontend its own holdfast.address, or none of them one",
            );
        }
    }
}

fn conflicts(address: SocketAddr, drafts: &[Arc<SiteDraft>], report: &mut Report) {
    let Some(first) = drafts.first() else { return };
    // None stands for "any host".
    let mut owners: BTreeMap<Option<&str>, &str> = BTreeMap::new();
    for draft in drafts {
        let site = &draft.site;
        if site.protocol != first.site.protocol {
            report.error(
                &draft.place,
                format!(
                    "{:?} speaks {}, but {:?} speaks {} on the same address {address}",
                    site.name,
                    site.protocol.as_str(),
                    first.site.name,
                    first.site.protocol.as_str()
                ),
                "use another frontendPort, or another holdfast.address for its frontend",
            );
        }
        if site.source != first.site.source {
            report.error(
                &draft.place,
                format!(
                    "{:?} and {:?} share the address {address}, but do not agree on proxyProtocol, trustedProxies \
                     and trustForwardedHeaders: who a client is must be known before its host name is",
                    site.name, first.site.name
                ),
                "give both the same holdfast object, or different ports",
            );
        }
        let hosts: Vec<Option<&str>> = if site.hosts.is_empty() {
            vec![None]
        } else {
            site.hosts.iter().map(|host| Some(host.as_str())).collect()
        };
        for host in hosts {
            if let Some(other) = owners.insert(host, &site.name) {
                let what = host.map_or("any host".to_owned(), |host| format!("the host {host:?}"));
                report.error(
                    &draft.place,
                    format!("{other:?} and {:?} are both for {what} on {address}", site.name),
                    "give them different hosts or ports, or their frontends different holdfast.address",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::numbering;

    #[test]
    fn rules_are_numbered_as_azure_does_while_they_fit() {
        assert_eq!(numbering(0, 1), (19_000, 19_500, 5));
        assert_eq!(numbering(100, 101), (19_000, 19_500, 5));
        assert_eq!(numbering(101, 0), (19_900, 20_001, 1));
        assert_eq!(numbering(1, 102), (19_898, 19_899, 1));
        assert_eq!(numbering(12_000, 8_000), (1, 12_001, 1));
    }
}
