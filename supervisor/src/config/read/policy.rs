//! Which backend a client gets: policies that share requests out among pools, and cookies that keep a client where it
//! is. Which rules use them is the rules' business.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::network::required;
use super::routing::Targets;
use crate::config::gateway::rewrite::RewriteSet;
use crate::config::gateway::{Action, Algorithm, Policy, Pool, Rule, RuleTarget, Share};
use crate::config::reference::Table;
use crate::config::report::Report;
use crate::config::shape::{Placed, Shape};

/// Azure's name of the cookie where the document gives none.
const COOKIE: &str = "ApplicationGatewayAffinity";
/// No server or tool needs a longer name, and every request carries it twice.
const COOKIE_NAME_LIMIT: usize = 128;

pub(super) fn policies(
    root: &Shape<'_>,
    pools: &Table<Pool>,
    report: &mut Report,
) -> Table<Policy> {
    super::collection(root, "loadDistributionPolicies", &[], report, |shape, name, report| {
        let words = Algorithm::ALL.map(Algorithm::as_str);
        let word = shape.word("loadDistributionAlgorithm", &words, report);
        let shares = shares(shape, pools, report);
        let algorithm = match word.ok()? {
            None => Algorithm::RoundRobin,
            Some(word) => Algorithm::ALL.into_iter().find(|it| it.as_str() == word)?,
        };
        Some(Policy { name, algorithm, shares: shares? })
    })
}

/// `None`: wrong, and reported.
fn shares(shape: &Shape<'_>, pools: &Table<Pool>, report: &mut Report) -> Option<Vec<Share>> {
    let targets = shape.shapes("loadDistributionTargets", report);
    if targets.is_empty() {
        report.error(
            shape.place_of("loadDistributionTargets"),
            "the policy has no targets",
            "write \"loadDistributionTargets\": [{\"name\": …, \"properties\": {\"weightPerServer\": 1, \
             \"backendAddressPool\": {\"id\": …}}}]",
        );
        return None;
    }
    let mut shares: Vec<Share> = Vec::new();
    let mut sound = true;
    for target in targets {
        let name = target.text("name", report).map(|name| name.value);
        let weight = target.number("weightPerServer", 1..=100, report);
        let pool = required(&target, "backendAddressPool", pools, report);
        target.finish(report);
        let (Ok(weight), Some(pool)) = (weight, pool) else {
            sound = false;
            continue;
        };
        if shares.iter().any(|share| share.pool.name == pool.name) {
            report.error(
                target.place_of("backendAddressPool"),
                format!("the pool {:?} is in the policy twice", pool.name),
                "keep one of them, with the weight that is meant",
            );
            sound = false;
            continue;
        }
        let weight = weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1);
        shares.push(Share { name, pool, weight });
    }
    sound.then_some(shares)
}

/// An action that goes by a policy. `words` are Azure's for policy, pool and settings. `None`: wrong, and reported.
pub(super) fn action(
    shape: &Shape<'_>,
    [policy, pool, settings]: [&str; 3],
    rewrite: Option<Arc<RewriteSet>>,
    targets: &Targets<'_>,
    report: &mut Report,
) -> Option<Action> {
    if shape.says(pool) {
        report.warn(
            shape.place_of(pool),
            format!("{pool} has no effect beside {policy}, which names the pools itself"),
            "keep one of them",
        );
    }
    let policy = required(shape, policy, targets.policies, report);
    let settings = required(shape, settings, targets.settings, report);
    Some(Action::Distribute { policy: policy?, settings: settings?, rewrite })
}

/// The name of the affinity cookie, if affinity is on. `Err`: wrong, and reported.
pub(super) fn affinity(shape: &Shape<'_>, report: &mut Report) -> Result<Option<String>, ()> {
    let word = shape.word("cookieBasedAffinity", &["Enabled", "Disabled"], report);
    let name = shape.text("affinityCookieName", report);
    if word? != Some("Enabled") {
        // Azure names the cookie in its output also where there is none.
        return Ok(None);
    }
    let Some(name) = name else { return Ok(Some(COOKIE.to_owned())) };
    let trimmed = name.value.trim();
    // RFC 6265, section 4.1.1: a cookie's name is a token.
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if trimmed.len() <= COOKIE_NAME_LIMIT && trimmed.chars().all(token) {
        return Ok(Some(trimmed.to_owned()));
    }
    report.error(
        &name.place,
        format!("{trimmed:.80?} cannot be the name of a cookie"),
        format!("use letters, digits, _ . and -, at most {COOKIE_NAME_LIMIT}"),
    );
    Err(())
}

/// A cookie is a host's: pools behind one listener that share a cookie's name take it from each other.
pub(super) fn shared_cookies(rules: &[Placed<Arc<Rule>>], report: &mut Report) {
    for rule in rules {
        let RuleTarget::PathBased(map) = &rule.value.target else { continue };
        // Not by comparing each with each: a hostile map has very many entries.
        let mut owners: HashMap<&str, (&str, &str)> = HashMap::new();
        let mut told = HashSet::new();
        for action in map.paths.iter().map(|path| &path.action).chain([&map.default]) {
            let (pool, settings) = match action {
                Action::Forward { pool, settings, .. } => (&pool.name, settings),
                Action::Distribute { policy, settings, .. } => (&policy.name, settings),
                Action::Redirect(_) => continue,
            };
            let Some(cookie) = settings.affinity.as_deref() else { continue };
            let place = (pool.as_str(), settings.name.as_str());
            let owner = *owners.entry(cookie).or_insert(place);
            if owner != place && told.insert(cookie) {
                report.warn(
                    &rule.place,
                    format!(
                        "a client that is sent to {:?} under {:?} and to {:?} under {:?} is given another cookie \
                         {cookie:?} each time, and keeps neither backend",
                        owner.0, owner.1, place.0, place.1
                    ),
                    "give their settings different names with affinityCookieName",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
