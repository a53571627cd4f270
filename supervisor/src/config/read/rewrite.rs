//! Rewrite sets: conditions, headers, URLs, and who refers to them. Values are read by `template`. What Azure's gateway
//! refuses is refused here, and so is every change that would break a message's framing or a WebSocket's handshake.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use holdfast_proto::rewrite::{self, Side, Untouchable};

use self::template::{Scope, Unknown};
use crate::config::gateway::rewrite::{
    Condition, HeaderRewrite, Pattern, RewriteRule, RewriteSet, Template, UrlRewrite,
};
use crate::config::json::Value;
use crate::config::reference::Table;
use crate::config::report::{Place, Report};
use crate::config::shape::{Placed, Shape};

mod template;
#[cfg(test)]
mod tests;

/// Azure's limits: sets of a gateway; changes and conditions of a set.
const MOST_SETS: usize = 400;
const MOST_CHANGES: usize = 40;
const MOST_CONDITIONS: usize = 40;
/// Azure's portal numbers a first rule so.
const SEQUENCE: u32 = 100;
/// Why and how, for a header that is not to be rewritten.
const KEEP_AWAY: &str = "take it out";

/// The sets of a document, and which of them somebody refers to.
pub(super) struct RewriteSets {
    table: Table<RewriteSet>,
    places: Vec<(String, Place)>,
    used: RefCell<HashSet<String>>,
}

// === impl RewriteSets ===

impl RewriteSets {
    /// Follows a reference to a set, if there is one.
    pub(super) fn refer(
        &self,
        shape: &Shape<'_>,
        word: &str,
        report: &mut Report,
    ) -> Option<Arc<RewriteSet>> {
        shape.get(word)?;
        let reference = shape.reference(word, report)?;
        let set = self.table.find(&reference, report)?;
        self.used.borrow_mut().insert(set.name.clone());
        Some(set)
    }

    /// What can be used; warns of what nobody refers to. Call it after every reference was followed.
    pub(super) fn finish(&self, report: &mut Report) -> Vec<Arc<RewriteSet>> {
        let used = self.used.borrow();
        for (name, place) in self.places.iter().filter(|(name, _)| !used.contains(name)) {
            report.warn(
                place,
                format!("nothing refers to the rewrite set {name:?}, so it changes nothing"),
                "name it in the rewriteRuleSet of a rule or a path rule, or in a map's defaultRewriteRuleSet",
            );
        }
        self.table.values()
    }
}

pub(super) fn sets(root: &Shape<'_>, report: &mut Report) -> RewriteSets {
    let mut places = Vec::new();
    let table = super::collection(root, "rewriteRuleSets", &[], report, |shape, name, report| {
        let set = set(shape, name, report)?;
        places.push((set.name.clone(), shape.place.clone()));
        Some(set)
    });
    if let Some((_, place)) = places.get(MOST_SETS) {
        report.error(
            place,
            format!("there are more than {MOST_SETS} rewrite sets"),
            "let rules share sets",
        );
    }
    RewriteSets { table, places, used: RefCell::default() }
}

fn set(shape: &Shape<'_>, name: String, report: &mut Report) -> Option<RewriteSet> {
    let mut sound = true;
    let mut sequences: BTreeMap<u32, String> = BTreeMap::new();
    let rules = super::collection(shape, "rewriteRules", &[], report, |shape, name, report| {
        let number = shape.number("ruleSequence", 0..=2_147_483_647, report);
        let sequence = number.ok().map(|it| it.and_then(|it| u32::try_from(it).ok()));
        if let Some(sequence) = sequence.map(|it| it.unwrap_or(SEQUENCE))
            && let Some(other) = sequences.insert(sequence, name.clone())
        {
            report.error(
                shape.place_of("ruleSequence"),
                format!(
                    "the rewrite rules {other:?} and {name:?} have the same ruleSequence {sequence}"
                ),
                "give each rule of a set a number of its own",
            );
        }
        let rule = rule(shape, name, report);
        sound &= rule.is_some() && sequence.is_some();
        Some(RewriteRule { sequence: sequence?.unwrap_or(SEQUENCE), ..rule? })
    });
    let rules = rules.values();
    let mut rules: Vec<RewriteRule> = rules.iter().map(|rule| RewriteRule::clone(rule)).collect();
    rules.sort_by_key(|rule| rule.sequence);
    let changes: usize = rules.iter().map(RewriteRule::changes).sum();
    let conditions: usize = rules.iter().map(|rule| rule.conditions.len()).sum();
    for (what, count, most) in
        [("changes", changes, MOST_CHANGES), ("conditions", conditions, MOST_CONDITIONS)]
    {
        if count > most {
            report.error(
                &shape.place,
                format!("the rewrite set {name:?} has {count} {what}; {most} are the most"),
                "make two sets of it",
            );
            sound = false;
        }
    }
    sound.then_some(RewriteSet { name, rules })
}

/// A rule but for its sequence.
fn rule(shape: &Shape<'_>, name: String, report: &mut Report) -> Option<RewriteRule> {
    let mut conditions = Vec::new();
    let mut sound = true;
    for shape in shape.shapes("conditions", report) {
        let condition = condition(&shape, report);
        shape.finish(report);
        match condition {
            Some(condition) => conditions.push(condition),
            None => sound = false,
        }
    }
    let Some(actions) = shape.inner("actionSet", report) else {
        report.warn(
            &shape.place,
            format!("the rewrite rule {name:?} has no actionSet, so it changes nothing"),
            "add an actionSet, or take the rule out",
        );
        return sound.then(|| RewriteRule {
            name,
            sequence: 0,
            conditions,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            url: None,
        });
    };
    let readable = sound.then_some(conditions.as_slice());
    let request = headers(&actions, "requestHeaderConfigurations", Side::Request, readable, report);
    let response =
        headers(&actions, "responseHeaderConfigurations", Side::Response, readable, report);
    let url = url(&actions, readable, report);
    actions.finish(report);
    let (request_headers, response_headers, url) = (request?, response?, url.ok()?);
    if !sound {
        return None;
    }
    let rule =
        RewriteRule { name, sequence: 0, conditions, request_headers, response_headers, url };
    if rule.changes() == 0 {
        report.warn(
            &actions.place,
            format!("the rewrite rule {:?} changes nothing", rule.name),
            "add a header or a URL to its actionSet, or take it out",
        );
    }
    if rule.changes_request() && rule.conditions.iter().any(|it| it.source.is_of_answer()) {
        report.warn(
            &shape.place,
            format!("the rewrite rule {:?} has a condition on the answer, which comes too late for its changes of the request: they are not made", rule.name),
            "make a rule of its own for the changes of the request",
        );
    }
    Some(rule)
}

fn condition(shape: &Shape<'_>, report: &mut Report) -> Option<Condition> {
    let pattern = pattern(shape, report);
    let Some(variable) = shape.text("variable", report) else {
        report.error(
            shape.place_of("variable"),
            "the condition has no variable",
            "write var_NAME, http_req_NAME or http_resp_NAME",
        );
        return None;
    };
    match template::source(variable.value.trim()) {
        Ok(source) => {
            template::check_meaning(&source, true, &variable.place, report);
            Some(Condition {
                variable: variable.value.trim().to_owned(),
                source,
                pattern: pattern?,
            })
        }
        Err(Unknown { reason, mend }) => {
            report.error(&variable.place, reason, mend);
            None
        }
    }
}

/// `pattern`, `ignoreCase` and `negate` of an object. `None`: wrong, and reported.
fn pattern(shape: &Shape<'_>, report: &mut Report) -> Option<Pattern> {
    let ignore_case = shape.flag("ignoreCase", false, report);
    let negate = shape.flag("negate", false, report);
    let Some(text) = shape.text("pattern", report) else {
        report.error(
            shape.place_of("pattern"),
            "there is no pattern",
            "write a regular expression; \".+\" is any value",
        );
        return None;
    };
    match rewrite::pattern(&text.value, ignore_case) {
        Ok(regex) => {
            let groups = u32::try_from(regex.captures_len().saturating_sub(1)).unwrap_or(u32::MAX);
            Some(Pattern { text: text.value, ignore_case, negate, groups })
        }
        Err(error) => {
            // Its last line is the reason; those before it draw the pattern.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            report.error(
                &text.place,
                format!("{:.120?} is not a pattern: {reason}", text.value),
                "write a regular expression in RE2's syntax, without slashes around it",
            );
            None
        }
    }
}

/// The entries of one list of headers. `None`: wrong, and reported.
fn headers(
    actions: &Shape<'_>,
    list: &str,
    side: Side,
    conditions: Option<&[Condition]>,
    report: &mut Report,
) -> Option<Vec<HeaderRewrite>> {
    let mut found = Vec::new();
    let mut sound = true;
    for shape in actions.shapes(list, report) {
        let header = header(&shape, side, conditions, report);
        shape.finish(report);
        match header {
            Some(header) => found.push(header),
            None => sound = false,
        }
    }
    sound.then_some(found)
}

fn header(
    shape: &Shape<'_>,
    side: Side,
    conditions: Option<&[Condition]>,
    report: &mut Report,
) -> Option<HeaderRewrite> {
    let Some(name) = shape.text("headerName", report) else {
        report.error(
            shape.place_of("headerName"),
            "the header has no name",
            "write its headerName",
        );
        return None;
    };
    let matcher = match shape.inner("headerValueMatcher", report) {
        None => None,
        Some(_) if side == Side::Request || !name.value.eq_ignore_ascii_case("Set-Cookie") => {
            report.error(
                shape.place_of("headerValueMatcher"),
                "a headerValueMatcher works for Set-Cookie in an answer only",
                "use a condition instead",
            );
            return None;
        }
        Some(inner) => {
            let matcher = pattern(&inner, report);
            inner.finish(report);
            Some(matcher?)
        }
    };
    let text = shape.text("headerValue", report);
    check_header(&name, side, text.is_none(), report)?;
    let scope = Scope {
        conditions,
        // A line that was chosen because it does not match has captured nothing.
        matcher: matcher.as_ref().map(|it| if it.negate { 0 } else { it.groups }),
        answered: side == Side::Response,
    };
    let value = match text {
        Some(text) => template::parse(&text, &scope, report)?,
        None => Template::default(),
    };
    Some(HeaderRewrite { name: name.value, value, matcher })
}

/// Whether a header may be changed. `None`: it may not, and that is reported.
fn check_header(
    name: &Placed<String>,
    side: Side,
    removes: bool,
    report: &mut Report,
) -> Option<()> {
    let Placed { value: name, place } = name;
    if !template::is_token(name) {
        report.error(
            place,
            format!("{name:.80?} is not a header's name"),
            "use letters, digits and hyphens",
        );
        return None;
    }
    if removes && side == Side::Request && name.eq_ignore_ascii_case("Host") {
        let reason = "Host cannot be deleted: no request is valid without it";
        report.error(place, reason, "give it a headerValue");
        return None;
    }
    if removes && side == Side::Response && name.eq_ignore_ascii_case("Date") {
        report.warn(place, "Date stays: the gateway writes it where it is absent", KEEP_AWAY);
    }
    let Some(untouchable) = rewrite::untouchable(name, side, removes) else { return Some(()) };
    let reason = match untouchable {
        Untouchable::Framing => "belongs to the connection or frames the message",
        Untouchable::Handshake => "is a part of a WebSocket's opening handshake, which would fail",
        Untouchable::Witness => "says what the client has sent, and is the gateway's to write",
        Untouchable::OnlyRemoved => {
            "may be deleted, but not set: the client would be answered what it has not offered"
        }
    };
    report.error(place, format!("{name} cannot be rewritten: it {reason}"), KEEP_AWAY);
    None
}

/// `Err`: wrong, and reported.
fn url(
    actions: &Shape<'_>,
    conditions: Option<&[Condition]>,
    report: &mut Report,
) -> Result<Option<UrlRewrite>, ()> {
    let Some(shape) = actions.inner("urlConfiguration", report) else { return Ok(None) };
    let scope = Scope { conditions, matcher: None, answered: false };
    let path = shape.text("modifiedPath", report);
    let query = shape.text("modifiedQueryString", report);
    // An empty query is one that goes; only null leaves it alone.
    let removes_query = matches!(
        shape.get("modifiedQueryString"),
        Some((node, _)) if matches!(&node.value, Value::Text(text) if text.trim().is_empty())
    );
    let reroute = shape.flag("reroute", false, report);
    let mut part = |text: Option<Placed<String>>, banned: &[char], mend: &str| match text {
        None => Ok(None),
        Some(text) => {
            let template = template::parse(&text, &scope, report).ok_or(())?;
            if let Some(found) = text.value.chars().find(|c| banned.contains(c)) {
                report.error(&text.place, format!("a {found} cannot stand here"), mend);
                return Err(());
            }
            Ok(Some(template))
        }
    };
    let path = part(path, &['?', '#'], "write the path alone; a query goes in modifiedQueryString");
    let query = part(query, &['#'], "write the query alone, without ? before it");
    shape.finish(report);
    let (path, query) = (path?, query?.or_else(|| removes_query.then(Template::default)));
    if path.is_none() && query.is_none() {
        report.warn(
            &shape.place,
            "the urlConfiguration has neither modifiedPath nor modifiedQueryString, so it changes nothing",
            "add one of them, or take it out",
        );
        return Ok(None);
    }
    if reroute && path.is_none() {
        report.warn(
            shape.place_of("reroute"),
            "the path stays, so there is nothing to route again",
            "add a modifiedPath, or take reroute out",
        );
    }
    Ok(Some(UrlRewrite { path, query, reroute }))
}
