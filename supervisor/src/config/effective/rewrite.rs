//! Rewrite sets as the document has them, with every default written out. Values stand as they were spelled.

use serde_json::{Value, json};

use super::{child, put};
use crate::config::gateway::rewrite::{
    Condition, HeaderRewrite, Pattern, RewriteRule, RewriteSet, UrlRewrite,
};

pub(super) fn set(set: &RewriteSet) -> Value {
    let rules: Vec<Value> = set.rules.iter().map(rule).collect();
    child(&set.name, json!({ "rewriteRules": rules }))
}

fn rule(rule: &RewriteRule) -> Value {
    let headers = |of: &[HeaderRewrite]| of.iter().map(header).collect::<Vec<_>>();
    let mut actions = json!({
        "requestHeaderConfigurations": headers(&rule.request_headers),
        "responseHeaderConfigurations": headers(&rule.response_headers),
    });
    put(&mut actions, "urlConfiguration", rule.url.as_ref().map(url));
    json!({
        "name": rule.name,
        "ruleSequence": rule.sequence,
        "conditions": rule.conditions.iter().map(condition).collect::<Vec<_>>(),
        "actionSet": actions,
    })
}

fn condition(condition: &Condition) -> Value {
    let mut written = pattern(&condition.pattern);
    put(&mut written, "variable", Some(json!(condition.variable)));
    written
}

fn pattern(pattern: &Pattern) -> Value {
    json!({
        "pattern": pattern.text,
        "ignoreCase": pattern.ignore_case,
        "negate": pattern.negate,
    })
}

fn header(header: &HeaderRewrite) -> Value {
    let mut written = json!({ "headerName": header.name, "headerValue": header.value.text });
    put(&mut written, "headerValueMatcher", header.matcher.as_ref().map(pattern));
    written
}

fn url(url: &UrlRewrite) -> Value {
    let mut written = json!({ "reroute": url.reroute });
    put(&mut written, "modifiedPath", url.path.as_ref().map(|it| json!(it.text)));
    put(&mut written, "modifiedQueryString", url.query.as_ref().map(|it| json!(it.text)));
    written
}
