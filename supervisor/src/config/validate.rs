//! Checks that need the whole gateway in view: priorities, sites that share an address, redirects in a circle. It
//! reads no document; what a single entry may hold was checked where it was read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::gateway::{Action, Listener, RedirectTarget, Rule, RuleTarget, Site};
use super::read::network::SiteDraft;
use super::read::routing::RuleDraft;
use super::reference::Table;
use super::report::{Place, Report};
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
    let multi_sites: HashSet<&str> =
        sites.iter().filter(|d| !d.site.hosts.is_empty()).map(|d| d.site.name.as_str()).collect();
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
                let hosts = multi_sites.contains(draft.rule.site.as_str());
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
        shadows(&routed, report);
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

/// A site for any host hides those with a larger priority number.
fn shadows(sites: &[(Arc<Site>, &Place)], report: &mut Report) {
    let mut any: Option<&Site> = None;
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
        if site.hosts.is_empty() && any.is_none() {
            any = Some(site);
        }
    }
}

/// A basic rule that redirects to a site whose basic rule redirects … back to it.
pub(super) fn redirect_loops(drafts: &[Arc<RuleDraft>], report: &mut Report) {
    let mut leads: HashMap<&str, &str> = HashMap::new();
    for draft in drafts {
        if let RuleTarget::Basic(Action::Redirect(redirect)) = &draft.rule.target
            && let RedirectTarget::Site { name, .. } = &redirect.target
        {
            leads.entry(draft.rule.site.as_str()).or_insert(name.as_str());
        }
    }
    let circular = in_circles(&leads);
    for draft in drafts {
        let start = draft.rule.site.as_str();
        if circular.contains(start) {
            report.error(
                &draft.place,
                format!(
                    "the redirect of the rule {:?} leads back to its own listener {start:?}",
                    draft.rule.name
                ),
                "let one of the listeners forward to a pool",
            );
        }
    }
}

/// Those from which one comes back to them. Each step is taken once, however long the chains are.
fn in_circles<'a>(leads: &HashMap<&'a str, &'a str>) -> HashSet<&'a str> {
    let mut circular = HashSet::new();
    let mut seen = HashSet::new();
    for start in leads.keys() {
        let mut walk: Vec<&str> = Vec::new();
        let mut at = *start;
        while seen.insert(at) {
            walk.push(at);
            match leads.get(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        if let Some(first) = walk.iter().position(|site| *site == at)
            && leads.contains_key(at)
        {
            circular.extend(walk.into_iter().skip(first));
        }
    }
    circular
}
