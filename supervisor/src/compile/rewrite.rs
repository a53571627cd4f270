//! Rewrite sets for a worker: parsed values, numbered within one listener.

use holdfast_proto::control::{self, rewrite_part, rewrite_source};

use crate::config::gateway::rewrite::{
    Condition, HeaderRewrite, Part, Pattern, RewriteRule, RewriteSet, Source, Template, UrlRewrite,
};

/// The number of a set among those of a listener; one that is new there is added.
pub(super) fn index(known: &mut Vec<control::RewriteSet>, wanted: &RewriteSet) -> u32 {
    let at = known.iter().position(|it| it.name == wanted.name).unwrap_or_else(|| {
        known.push(set(wanted));
        known.len() - 1
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn set(set: &RewriteSet) -> control::RewriteSet {
    control::RewriteSet { name: set.name.clone(), rules: set.rules.iter().map(rule).collect() }
}

fn rule(rule: &RewriteRule) -> control::RewriteRule {
    control::RewriteRule {
        name: rule.name.clone(),
        conditions: rule.conditions.iter().map(condition).collect(),
        request_headers: rule.request_headers.iter().map(header).collect(),
        response_headers: rule.response_headers.iter().map(header).collect(),
        url: rule.url.as_ref().map(url),
    }
}

fn condition(condition: &Condition) -> control::RewriteCondition {
    control::RewriteCondition {
        source: Some(source(&condition.source)),
        pattern: Some(pattern(&condition.pattern)),
    }
}

fn pattern(pattern: &Pattern) -> control::RewritePattern {
    control::RewritePattern {
        pattern: pattern.text.clone(),
        ignore_case: pattern.ignore_case,
        negate: pattern.negate,
    }
}

fn header(header: &HeaderRewrite) -> control::HeaderRewrite {
    control::HeaderRewrite {
        name: header.name.clone(),
        value: Some(value(&header.value)),
        matcher: header.matcher.as_ref().map(pattern),
    }
}

fn url(url: &UrlRewrite) -> control::UrlRewrite {
    control::UrlRewrite {
        path: url.path.as_ref().map(value),
        query: url.query.as_ref().map(value),
        reroute: url.reroute,
    }
}

fn value(template: &Template) -> control::RewriteValue {
    let parts = template.parts.iter().map(|part| {
        let kind = match part {
            Part::Text(text) => rewrite_part::Kind::Text(text.clone()),
            Part::Value(from) => rewrite_part::Kind::Source(source(from)),
            Part::Capture { condition, group } => {
                let condition = u32::try_from(*condition).unwrap_or(u32::MAX);
                rewrite_part::Kind::Capture(control::RewriteCapture { condition, group: *group })
            }
            Part::Matched(group) => rewrite_part::Kind::Matched(*group),
        };
        control::RewritePart { kind: Some(kind) }
    });
    control::RewriteValue { parts: parts.collect() }
}

fn source(source: &Source) -> control::RewriteSource {
    let kind = match source {
        Source::Variable(variable) => rewrite_source::Kind::Variable((*variable).into()),
        Source::Cookie(name) => rewrite_source::Kind::Cookie(name.clone()),
        Source::RequestHeader(name) => rewrite_source::Kind::RequestHeader(name.clone()),
        Source::ResponseHeader(name) => rewrite_source::Kind::ResponseHeader(name.clone()),
    };
    control::RewriteSource { kind: Some(kind) }
}
