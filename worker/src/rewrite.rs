//! Rewrite sets: what is changed of a request on its way to a pool, and of the backend's answer on its way back.
//!
//! Compiled once a revision from what the supervisor has parsed; a request only evaluates. [`facts`] knows what there is
//! to know of a request, `value` makes text of it, `apply` changes a message, `url` keeps a URL one. Pure: no IO, no
//! clock. No header that frames a message or belongs to a WebSocket's handshake is ever touched, whatever a snapshot
//! says, and nothing of a client gets into a header or a request line that could end it.

mod apply;
pub mod facts;
#[cfg(test)]
mod tests;
mod url;
mod value;

use std::sync::Arc;

use holdfast_proto::control as wire;
use holdfast_proto::rewrite::{Regex, Side, pattern, untouchable};
use http::HeaderName;
use http::header::SET_COOKIE;
use thiserror::Error;

pub use self::apply::{Asked, Decided, Effect, Failure};
use self::value::{Source, Value};

/// Why a set cannot be compiled.
#[derive(Debug, Error)]
pub enum RewriteRefusal {
    /// A pattern is none, or too large.
    #[error("pattern {pattern:?} of rule {rule}")]
    Pattern {
        /// Name of the rule.
        rule: String,
        /// The pattern.
        pattern: String,
        /// Why. Boxed: it is large, and rare.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A header's name is none, or the header is not to be touched.
    #[error("rule {rule} cannot change {header:?}")]
    Header {
        /// Name of the rule.
        rule: String,
        /// The header.
        header: String,
    },
    /// A value or a condition refers to what is not there.
    #[error("rule {rule}: {reason}")]
    Reference {
        /// Name of the rule.
        rule: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A compiled set.
#[derive(Debug)]
pub struct RewriteSet {
    /// Name as configured.
    pub name: Arc<str>,
    rules: Vec<Rule>,
    changes_answers: bool,
}

#[derive(Debug)]
struct Rule {
    name: String,
    conditions: Vec<Condition>,
    request: Vec<HeaderChange>,
    response: Vec<HeaderChange>,
    url: Option<UrlChange>,
    /// Whether any condition is on the answer.
    waits: bool,
}

#[derive(Debug)]
struct Condition {
    source: Source,
    pattern: Pattern,
    /// Whether any value asks for what its groups match.
    captures: bool,
}

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    negate: bool,
}

#[derive(Debug)]
struct HeaderChange {
    name: HeaderName,
    value: Value,
    matcher: Option<Pattern>,
}

#[derive(Debug)]
struct UrlChange {
    path: Option<Value>,
    query: Option<Value>,
    reroute: bool,
}

// === impl RewriteSet ===

impl RewriteSet {
    /// Compiles a set.
    pub fn compile(set: wire::RewriteSet) -> Result<Self, RewriteRefusal> {
        let rules = set.rules.into_iter().map(Rule::compile).collect::<Result<Vec<_>, _>>()?;
        let changes_answers = rules.iter().any(|rule| !rule.response.is_empty());
        Ok(Self { name: set.name.into(), rules, changes_answers })
    }

    /// Whether it may change a backend's answer.
    pub fn changes_answers(&self) -> bool {
        self.changes_answers
    }
}

// === impl Rule ===

impl Rule {
    fn compile(rule: wire::RewriteRule) -> Result<Self, RewriteRefusal> {
        let name = rule.name;
        let mut conditions = Vec::with_capacity(rule.conditions.len());
        for condition in rule.conditions {
            let source = condition.source.and_then(Source::compile);
            let (Some(source), Some(pattern)) = (source, condition.pattern) else {
                let reason = "a condition has no source or no pattern";
                return Err(RewriteRefusal::Reference { rule: name, reason });
            };
            let pattern = Pattern::compile(pattern, &name)?;
            conditions.push(Condition { source, pattern, captures: false });
        }
        let mut values = Values { rule: &name, conditions: &mut conditions };
        let request = values.headers(rule.request_headers, Side::Request)?;
        let response = values.headers(rule.response_headers, Side::Response)?;
        let url = rule.url.map(|url| values.url(url)).transpose()?;
        let waits = conditions.iter().any(|condition| condition.source.is_of_answer());
        Ok(Self { name, conditions, request, response, url, waits })
    }
}

/// Compiles the values of one rule, and marks the conditions that they capture from.
struct Values<'a> {
    rule: &'a str,
    conditions: &'a mut [Condition],
}

impl Values<'_> {
    fn headers(
        &mut self,
        headers: Vec<wire::HeaderRewrite>,
        side: Side,
    ) -> Result<Vec<HeaderChange>, RewriteRefusal> {
        headers.into_iter().map(|header| self.header(header, side)).collect()
    }

    fn header(
        &mut self,
        header: wire::HeaderRewrite,
        side: Side,
    ) -> Result<HeaderChange, RewriteRefusal> {
        let value = header.value.unwrap_or_default();
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok();
        let may = untouchable(&header.name, side, value.parts.is_empty()).is_none();
        let Some(name) = name.filter(|_| may) else {
            return Err(RewriteRefusal::Header { rule: self.rule.to_owned(), header: header.name });
        };
        let matcher = header.matcher.map(|it| Pattern::compile(it, self.rule)).transpose()?;
        if matcher.is_some() && (side == Side::Request || name != SET_COOKIE) {
            return Err(self.refuse("only Set-Cookie of an answer has a matcher"));
        }
        let groups = matcher.as_ref().map(|it| it.regex.captures_len());
        Ok(HeaderChange { name, value: self.value(value, groups)?, matcher })
    }

    fn url(&mut self, url: wire::UrlRewrite) -> Result<UrlChange, RewriteRefusal> {
        let path = url.path.map(|value| self.value(value, None)).transpose()?;
        let query = url.query.map(|value| self.value(value, None)).transpose()?;
        Ok(UrlChange { reroute: url.reroute && path.is_some(), path, query })
    }

    /// `groups`: how many the header's own matcher has, the whole among them.
    fn value(
        &mut self,
        value: wire::RewriteValue,
        groups: Option<usize>,
    ) -> Result<Value, RewriteRefusal> {
        let value =
            Value::compile(value).ok_or_else(|| self.refuse("a part of a value is empty"))?;
        for (at, group) in value.captured() {
            let condition = self.conditions.get_mut(at).filter(|condition| {
                !condition.pattern.negate && group < condition.pattern.regex.captures_len()
            });
            match condition {
                Some(condition) => condition.captures = true,
                None => return Err(self.refuse("a value refers to a group that is not captured")),
            }
        }
        if value.matched().any(|group| groups.is_none_or(|groups| group >= groups)) {
            return Err(self.refuse("a value refers to a group that its matcher does not have"));
        }
        Ok(value)
    }

    fn refuse(&self, reason: &'static str) -> RewriteRefusal {
        RewriteRefusal::Reference { rule: self.rule.to_owned(), reason }
    }
}

// === impl Pattern ===

impl Pattern {
    fn compile(given: wire::RewritePattern, rule: &str) -> Result<Self, RewriteRefusal> {
        match pattern(&given.pattern, given.ignore_case) {
            Ok(regex) => Ok(Self { regex, negate: given.negate }),
            Err(source) => Err(RewriteRefusal::Pattern {
                rule: rule.to_owned(),
                pattern: given.pattern,
                source: Box::new(source),
            }),
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        self.regex.is_match(value) != self.negate
    }

    /// What each group has matched in a value; empty where it has not. `None`: the pattern does not match.
    fn groups(&self, value: &[u8]) -> Option<Vec<Vec<u8>>> {
        let found = self.regex.captures(value)?;
        let text = |group: Option<holdfast_proto::rewrite::Match<'_>>| {
            group.map_or_else(Vec::new, |group| group.as_bytes().to_vec())
        };
        Some(found.iter().map(text).collect())
    }
}
