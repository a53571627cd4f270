//! Redirects, path maps and rules: which request goes where. Order between rules is checked elsewhere.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

use super::network::{SiteDraft, required};
use super::rewrite::RewriteSets;
use crate::config::gateway::{
    Action, PathMap, PathRule, Policy, Pool, Redirect, RedirectTarget, Rule, RuleTarget, Settings,
};
use crate::config::json::{Node, Value};
use crate::config::paths::normalized;
use crate::config::reference::Table;
use crate::config::report::{Place, Report};
use crate::config::shape::{Placed, Shape};

/// What actions refer to.
pub(super) struct Targets<'a> {
    pub(super) pools: &'a Table<Pool>,
    pub(super) policies: &'a Table<Policy>,
    pub(super) settings: &'a Table<Settings>,
    pub(super) redirects: &'a Table<Redirect>,
    pub(super) rewrites: &'a RewriteSets,
}

/// A rule before its priority is settled.
#[derive(Debug)]
pub(in crate::config) struct RuleDraft {
    /// Its priority is still 0.
    pub(in crate::config) rule: Rule,
    pub(in crate::config) priority: Option<u32>,
    pub(in crate::config) place: Place,
    pub(in crate::config) priority_place: Place,
}

pub(super) fn redirects(
    root: &Shape<'_>,
    sites: &Table<SiteDraft>,
    report: &mut Report,
) -> Table<Redirect> {
    super::collection(root, "redirectConfigurations", &[], report, |shape, name, report| {
        shape.pass_over(&["requestRoutingRules", "urlPathMaps", "pathRules"]);
        let words = ["Permanent", "Found", "SeeOther", "Temporary"];
        let status = match shape.word("redirectType", &words, report) {
            Ok(None | Some("Permanent")) => Some(301),
            Ok(Some("Found")) => Some(302),
            Ok(Some("SeeOther")) => Some(303),
            Ok(Some(_)) => Some(307),
            Err(()) => None,
        };
        let include_path = shape.flag("includePath", false, report);
        let include_query = shape.flag("includeQueryString", false, report);
        let url = shape.text("targetUrl", report);
        let site = shape.reference("targetListener", report);
        let target = match (url, site) {
            (Some(url), None) => url_target(url, report)?,
            (None, Some(reference)) => {
                let draft = sites.find(&reference, report)?;
                site_target(&draft, &reference.place, report)?
            }
            (url, _) => {
                let place = url.map_or_else(|| shape.place.clone(), |url| url.place);
                report.error(
                    &place,
                    "a redirect needs exactly one of targetListener and targetUrl",
                    "write one of them",
                );
                return None;
            }
        };
        Some(Redirect { name, status: status?, target, include_path, include_query })
    })
}

fn url_target(url: Placed<String>, report: &mut Report) -> Option<RedirectTarget> {
    let lower = url.value.to_ascii_lowercase();
    let rest = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if host.is_empty() || !url.value.chars().all(|c| c.is_ascii_graphic()) {
        report.error(
            &url.place,
            format!("{:?} is not an absolute URL", url.value),
            "write https://host/path",
        );
        return None;
    }
    Some(RedirectTarget::Url(url.value))
}

fn site_target(draft: &SiteDraft, at: &Place, report: &mut Report) -> Option<RedirectTarget> {
    let site = &draft.site;
    let host = match site.hosts.as_slice() {
        [] => None,
        [one] if !one.contains(['*', '?']) => Some(one.clone()),
        _ => {
            report.error(
                at,
                format!(
                    "{:?} has several hosts or wildcards, so a redirect cannot lead there",
                    site.name
                ),
                "point it at a listener with one host, or use targetUrl",
            );
            return None;
        }
    };
    Some(RedirectTarget::Site {
        name: site.name.clone(),
        protocol: site.protocol,
        host,
        port: site.port.port,
    })
}

/// Where requests go, by Azure's words; `prefix` is "default" in a path map. `None`: wrong, and reported.
fn action(
    shape: &Shape<'_>,
    words: [&str; 5],
    targets: &Targets<'_>,
    report: &mut Report,
) -> Option<Action> {
    let [pool, settings, redirect, rewrite, load] = words;
    let set = targets.rewrites.refer(shape, rewrite, report);
    shape.no_effect("firewallPolicy", "requests are NOT inspected by a WAF", report);
    if shape.get(redirect).is_some() {
        if [pool, settings, load].iter().any(|name| shape.get(name).is_some()) {
            report.error(
                shape.place_of(redirect),
                format!("{redirect} stands beside {pool}, {settings} or {load}"),
                "keep either the redirect or the pool with its settings",
            );
            return None;
        }
        if set.is_some() {
            report.warn(
                shape.place_of(rewrite),
                format!("{rewrite} has no effect: what is redirected is not rewritten"),
                "take it out, or forward to a pool",
            );
        }
        let reference = shape.reference(redirect, report)?;
        return targets.redirects.find(&reference, report).map(Action::Redirect);
    }
    if shape.get(load).is_some() {
        return super::policy::action(shape, [load, pool, settings], set, targets, report);
    }
    let pool = required(shape, pool, targets.pools, report);
    let settings = required(shape, settings, targets.settings, report);
    Some(Action::Forward { pool: pool?, settings: settings?, rewrite: set })
}

const WORDS: [&str; 5] = [
    "backendAddressPool",
    "backendHttpSettings",
    "redirectConfiguration",
    "rewriteRuleSet",
    "loadDistributionPolicy",
];
const DEFAULTS: [&str; 5] = [
    "defaultBackendAddressPool",
    "defaultBackendHttpSettings",
    "defaultRedirectConfiguration",
    "defaultRewriteRuleSet",
    "defaultLoadDistributionPolicy",
];

pub(super) fn path_maps(
    root: &Shape<'_>,
    targets: &Targets<'_>,
    report: &mut Report,
) -> Table<PathMap> {
    super::collection(root, "urlPathMaps", &[], report, |shape, name, report| {
        let default = action(shape, DEFAULTS, targets, report);
        let mut seen = Seen::default();
        let paths = super::collection(shape, "pathRules", &[], report, |shape, name, report| {
            let patterns = patterns(shape, &mut seen, report);
            let action = action(shape, WORDS, targets, report)?;
            Some(PathRule { name, patterns: patterns?, action })
        });
        let paths = paths.values().iter().map(|path| PathRule::clone(path)).collect();
        Some(PathMap { name, default: default?, paths })
    })
}

/// Patterns of a map so far, in lower case; of those that end in * what stands before it, none of which begins
/// with another: so the one before a path in order is the only one that can hide it.
#[derive(Default)]
struct Seen {
    exact: HashSet<String>,
    prefixes: BTreeSet<String>,
}

impl Seen {
    /// An earlier pattern that takes everything that this one would.
    fn hides(&self, pattern: &str) -> Option<String> {
        let head = pattern.strip_suffix('*').unwrap_or(pattern);
        match self.prefixes.range::<str, _>((Unbounded, Included(head))).next_back() {
            Some(prefix) if head.starts_with(prefix.as_str()) => Some(format!("{prefix}*")),
            _ => self.exact.get(pattern).cloned(),
        }
    }

    /// Only what nothing hides yet.
    fn add(&mut self, pattern: String) {
        let Some(prefix) = pattern.strip_suffix('*') else {
            self.exact.insert(pattern);
            return;
        };
        let longer = self.prefixes.range::<str, _>((Included(prefix), Unbounded));
        let covered: Vec<String> =
            longer.take_while(|it| it.starts_with(prefix)).cloned().collect();
        for it in covered {
            self.prefixes.remove(&it);
        }
        self.prefixes.insert(prefix.to_owned());
    }
}

/// Patterns of one path rule; `seen` are those before it in the map. `None`: wrong, and reported.
fn patterns(shape: &Shape<'_>, seen: &mut Seen, report: &mut Report) -> Option<Vec<String>> {
    let mut patterns = Vec::new();
    let mut sound = true;
    let listed = shape.list("paths", report);
    if listed.is_empty() {
        report.error(&shape.place, "the path rule has no paths", "write \"paths\": [\"/chat/*\"]");
        return None;
    }
    for (node, place) in listed {
        let Value::Text(text) = &node.value else {
            report.error(
                &place,
                format!("{} stands where a path should", node.value.kind()),
                "write \"/…\"",
            );
            sound = false;
            continue;
        };
        let head = text.strip_suffix('*').unwrap_or(text);
        if !text.starts_with('/')
            || head.contains(['*', '?', '#'])
            || text.chars().any(char::is_control)
        {
            report.error(
                &place,
                format!("{text:.80?} is not a path pattern"),
                "begin it with /; a * may stand only at its very end, ? and # nowhere",
            );
            sound = false;
            continue;
        }
        // An escaped star is none at its end.
        let form = match text.strip_suffix('*') {
            Some(head) => normalized(head) + "*",
            None => normalized(text),
        };
        match seen.hides(&form) {
            Some(earlier) => report.warn(
                &place,
                format!("{text:?} is never reached: {earlier:?} stands before it, and the first match wins"),
                "put the longer pattern first",
            ),
            None => seen.add(form),
        }
        patterns.push(text.clone());
    }
    sound.then_some(patterns)
}

/// How a rule routes. `Err`: in none of the ways that there are here, and reported.
fn rule_kind(shape: &Shape<'_>, report: &mut Report) -> Result<Option<&'static str>, ()> {
    shape.no_effect(
        "advancedRoutingMap",
        "use a urlPathMap, or a listener for each host; conditions on headers and queries are not offered",
        report,
    );
    let advanced = |node: &Node| matches!(&node.value, Value::Text(word) if word.trim().eq_ignore_ascii_case("AdvancedRouting"));
    let Some((_, place)) = shape.get("ruleType").filter(|(node, _)| advanced(node)) else {
        return shape.word("ruleType", &["Basic", "PathBasedRouting"], report);
    };
    report.error(
        place,
        "AdvancedRouting is not offered: no rule here routes by conditions on headers, queries or methods",
        "make the rule Basic, or PathBasedRouting with a urlPathMap, and take its advancedRoutingMap out",
    );
    Err(())
}

pub(super) fn rules(
    root: &Shape<'_>,
    sites: &Table<SiteDraft>,
    maps: &Table<PathMap>,
    targets: &Targets<'_>,
    report: &mut Report,
) -> Vec<Arc<RuleDraft>> {
    let rules =
        super::collection(root, "requestRoutingRules", &[], report, |shape, name, report| {
            let kind = rule_kind(shape, report);
            let priority = shape.number("priority", 1..=20_000, report);
            let site = required(shape, "httpListener", sites, report);
            let based = kind == Ok(Some("PathBasedRouting"));
            let target = if based {
                if shape.says("rewriteRuleSet") {
                    report.warn(
                        shape.place_of("rewriteRuleSet"),
                        "rewriteRuleSet has no effect in a rule that routes by path",
                        "name it in the path rules of its urlPathMap, and in defaultRewriteRuleSet",
                    );
                }
                shape.pass_over(&WORDS);
                required(shape, "urlPathMap", maps, report).map(RuleTarget::PathBased)
            } else if kind.is_ok() {
                shape.pass_over(&["urlPathMap"]);
                let action = action(shape, WORDS, targets, report);
                if let Some(
                    Action::Forward { rewrite: Some(set), .. }
                    | Action::Distribute { rewrite: Some(set), .. },
                ) = &action
                    && set.rules.iter().any(|it| it.url.as_ref().is_some_and(|url| url.reroute))
                {
                    // The rest of the set does something: an import must not take it for idle.
                    report.warn(
                        shape.place_of("rewriteRuleSet"),
                        "reroute does nothing in a Basic rule, which has no path map",
                        "make it a PathBasedRouting rule, or take reroute out",
                    );
                }
                action.map(RuleTarget::Basic)
            } else {
                shape.pass_over(&WORDS);
                shape.pass_over(&["urlPathMap"]);
                None
            };
            let priority = priority.ok()?.and_then(|priority| u32::try_from(priority).ok());
            Some(RuleDraft {
                rule: Rule { name, priority: 0, site: site?.site.name.clone(), target: target? },
                priority,
                place: shape.place.clone(),
                priority_place: shape.place_of("priority").clone(),
            })
        });
    rules.values()
}
