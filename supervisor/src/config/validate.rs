//! Checks that need the whole gateway in view: priorities, sites that share an address, redirects in a circle. It
//! reads no document; what a single entry may hold was checked where it was read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::gateway::{Action, Listener, RedirectTarget, Rule, RuleTarget, Site};
use super::read::network::SiteDraft;
use super::read::routing::RuleDraft;
use super::reference::Table;
use super::report::Report;
use super::shape::Placed;

/// What Azure numbers rules from when none has a priority: those with hosts first, in steps of five.
const MULTI_SITE_FROM: u32 = 19_000;
const BASIC_FROM: u32 = 19_500;
const STEP: u32 = 5;

/// Settles every rule's priority: all given, or none.
pub(super) fn priorities(
    drafts: Vec<Arc<RuleDraft>>,
    sites: &Table<SiteDraft>,
    report: &mut Report,
) -> Vec<Placed<Arc<Rule>>> {
    let given = drafts.iter().any(|draft| draft.priority.is_some());
    let mut taken: BTreeMap<u32, String> = BTreeMap::new();
    let (mut multi_site, mut basic) = (MULTI_SITE_FROM, BASIC_FROM);
    let sites = sites.values();
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
                let hosts = sites
                    .iter()
                    .any(|d| d.site.name == draft.rule.site && !d.site.hosts.is_empty());
                let next = if hosts { &mut multi_site } else { &mut basic };
                let priority = *next;
                *next += STEP;
                priority
            }
        };
        let rule = Rule { priority, ..draft.rule.clone() };
        rules.push(Placed { value: Arc::new(rule), place: draft.place.clone() });
    }
    rules
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
    let mut listeners = Vec::new();
    for (address, drafts) in groups {
        conflicts(address, &drafts, report);
        let mut routed: Vec<Arc<Site>> =
            drafts.iter().map(|draft| Arc::new(with_rule(draft, rules, report))).collect();
        routed.sort_by_key(|site| site.rule.as_ref().map_or(u32::MAX, |rule| rule.priority));
        shadows(&routed, &drafts, report);
        listeners.push(Listener { address, sites: routed });
    }
    listeners
}

fn with_rule(draft: &SiteDraft, rules: &[Placed<Arc<Rule>>], report: &mut Report) -> Site {
    let mut found = rules.iter().filter(|rule| rule.value.site == draft.site.name);
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
        let wide = groups.keys().find(|other| {
            other.ip().is_unspecified()
                && other.port() == address.port()
                && other.is_ipv4() == address.is_ipv4()
                && other.ip() != address.ip()
        });
        if let (Some(wide), Some(draft)) = (wide, drafts.first()) {
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

/// A site for any host hides those with a larger priority number.
fn shadows(sites: &[Arc<Site>], drafts: &[Arc<SiteDraft>], report: &mut Report) {
    let mut any: Option<&Site> = None;
    for site in sites.iter().filter(|site| site.rule.is_some()) {
        let place = drafts.iter().find(|draft| draft.site.name == site.name).map(|d| &d.place);
        if let (Some(any), Some(place)) = (any, place) {
            report.warn(
                place,
                format!(
                    "{:?} is never reached: {:?} takes any host, and its rule has the smaller priority",
                    site.name, any.name
                ),
                "give the rule of the listener without hosts the largest priority number",
            );
        }
        if site.hosts.is_empty() && any.is_none() {
            any = Some(site);
        }
    }
}

/// A basic rule that redirects to a site whose basic rule redirects … back to it.
pub(super) fn redirect_loops(drafts: &[Arc<RuleDraft>], report: &mut Report) {
    let next = |site: &str| {
        drafts.iter().find(|d| d.rule.site == site).and_then(|draft| match &draft.rule.target {
            RuleTarget::Basic(Action::Redirect(redirect)) => match &redirect.target {
                RedirectTarget::Site { name, .. } => Some(name.as_str()),
                RedirectTarget::Url(_) => None,
            },
            _ => None,
        })
    };
    for draft in drafts {
        let start = draft.rule.site.as_str();
        let mut site = next(start);
        for _ in 0..drafts.len() {
            let Some(reached) = site else { break };
            if reached == start {
                report.error(
                    &draft.place,
                    format!(
                        "the redirect of the rule {:?} leads back to its own listener {start:?}",
                        draft.rule.name
                    ),
                    "let one of the listeners forward to a pool",
                );
                break;
            }
            site = next(reached);
        }
    }
}
