//! Rewrite sets as they are meant: references found, captures counted. What a person wrote is kept beside it, for the
//! effective configuration; nothing here is ever parsed again.

use holdfast_proto::control::ServerVariable;

/// One Azure `rewriteRuleSet`.
#[derive(Clone, Debug, PartialEq)]
pub struct RewriteSet {
    /// Name as spelled.
    pub name: String,
    /// By ascending sequence.
    pub rules: Vec<RewriteRule>,
}

/// One rule of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct RewriteRule {
    /// Name as spelled.
    pub name: String,
    /// Unique in its set.
    pub sequence: u32,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Changes of the request's headers, in order.
    pub request_headers: Vec<HeaderRewrite>,
    /// Changes of the answer's headers, in order.
    pub response_headers: Vec<HeaderRewrite>,
    /// Change of the request's URL.
    pub url: Option<UrlRewrite>,
}

/// When a rule applies.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// As spelled.
    pub variable: String,
    /// What it means.
    pub source: Source,
    /// What the value must match.
    pub pattern: Pattern,
}

/// A regular expression that has been seen to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// As spelled.
    pub text: String,
    /// Without regard to case.
    pub ignore_case: bool,
    /// Holds where it does not match.
    pub negate: bool,
    /// Groups that it captures.
    pub groups: u32,
}

/// Change of one header.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderRewrite {
    /// Name as spelled.
    pub name: String,
    /// Its new value; without parts it goes.
    pub value: Template,
    /// Of `Set-Cookie`: the lines that are meant.
    pub matcher: Option<Pattern>,
}

/// Change of a URL.
#[derive(Clone, Debug, PartialEq)]
pub struct UrlRewrite {
    /// New path.
    pub path: Option<Template>,
    /// New query; without parts it goes.
    pub query: Option<Template>,
    /// Whether the path map decides again.
    pub reroute: bool,
}

/// Text with references in braces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    /// As spelled.
    pub text: String,
    /// What it means.
    pub parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// A whole value.
    Value(Source),
    /// What a group of a condition has matched.
    Capture {
        /// Index among the rule's conditions.
        condition: usize,
        /// 0: the whole match.
        group: u32,
    },
    /// What a group of the header's own matcher has matched; 0: the whole line.
    Matched(u32),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A server variable.
    Variable(ServerVariable),
    /// A cookie of the request.
    Cookie(String),
    /// A header of the request, in lower case.
    RequestHeader(String),
    /// A header of the answer, in lower case.
    ResponseHeader(String),
}

// === impl Source ===

impl Source {
    /// Whether it is known only once a backend has answered.
    pub fn is_of_answer(&self) -> bool {
        matches!(self, Self::ResponseHeader(_) | Self::Variable(ServerVariable::HttpStatus))
    }
}

// === impl RewriteRule ===

impl RewriteRule {
    /// Whether it changes the request in any way.
    pub fn changes_request(&self) -> bool {
        !self.request_headers.is_empty() || self.url.is_some()
    }

    /// Changes that it makes, as Azure counts them.
    pub fn changes(&self) -> usize {
        self.request_headers.len() + self.response_headers.len() + usize::from(self.url.is_some())
    }
}
