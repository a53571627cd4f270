//! Sets against requests and answers, as tables; hostile values among them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::unnecessary_wraps, reason = "values are optional wherever they stand")]

mod hostile;
mod refusals;
mod variables;

use holdfast_proto::control::{self as wire, ServerVariable, rewrite_part, rewrite_source};
use http::{HeaderMap, Method, Request, StatusCode, request};

use super::facts::{Facts, Session};
use super::{Asked, RewriteSet};

fn part(kind: rewrite_part::Kind) -> wire::RewritePart {
    wire::RewritePart { kind: Some(kind) }
}

fn text(text: &str) -> wire::RewritePart {
    part(rewrite_part::Kind::Text(text.to_owned()))
}

fn capture(condition: u32, group: u32) -> wire::RewritePart {
    part(rewrite_part::Kind::Capture(wire::RewriteCapture { condition, group }))
}

fn matched(group: u32) -> wire::RewritePart {
    part(rewrite_part::Kind::Matched(group))
}

fn of(kind: rewrite_source::Kind) -> wire::RewriteSource {
    wire::RewriteSource { kind: Some(kind) }
}

fn variable(variable: ServerVariable) -> wire::RewriteSource {
    of(rewrite_source::Kind::Variable(variable.into()))
}

fn asks(header: &str) -> wire::RewriteSource {
    of(rewrite_source::Kind::RequestHeader(header.to_owned()))
}

fn answers(header: &str) -> wire::RewriteSource {
    of(rewrite_source::Kind::ResponseHeader(header.to_owned()))
}

fn whole(source: wire::RewriteSource) -> wire::RewritePart {
    part(rewrite_part::Kind::Source(source))
}

fn value(parts: &[wire::RewritePart]) -> Option<wire::RewriteValue> {
    Some(wire::RewriteValue { parts: parts.to_vec() })
}

fn pattern(text: &str) -> wire::RewritePattern {
    wire::RewritePattern { pattern: text.to_owned(), ..Default::default() }
}

fn when(source: wire::RewriteSource, text: &str) -> wire::RewriteCondition {
    wire::RewriteCondition { source: Some(source), pattern: Some(pattern(text)) }
}

fn set_to(name: &str, parts: &[wire::RewritePart]) -> wire::HeaderRewrite {
    wire::HeaderRewrite { name: name.to_owned(), value: value(parts), matcher: None }
}

fn rule() -> wire::RewriteRule {
    wire::RewriteRule { name: "rule".to_owned(), ..Default::default() }
}

fn compiled(rules: Vec<wire::RewriteRule>) -> RewriteSet {
    RewriteSet::compile(wire::RewriteSet { name: "set".to_owned(), rules }).unwrap()
}

fn head(target: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::builder().uri(target);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

static SESSION: Session = Session {
    protocol: "TLSv1.3",
    cipher: "TLS_AES_256_GCM_SHA384",
    fingerprint: None,
    certificate: None,
};

fn facts(head: &request::Parts) -> Facts<'static> {
    Facts::of(head, "192.0.2.7:5000".parse().unwrap(), 8443, Some(&SESSION))
}

/// What becomes of a request.
fn asked(rules: Vec<wire::RewriteRule>, head: &mut request::Parts) -> Result<Asked, &'static str> {
    let facts = facts(head);
    compiled(rules).change_request(&facts, head).map_err(|failure| failure.reason)
}

/// A request's URL after it went through one rule.
fn url(
    conditions: Vec<wire::RewriteCondition>,
    path: Option<wire::RewriteValue>,
    query: Option<wire::RewriteValue>,
    head: &mut request::Parts,
) -> String {
    let url = Some(wire::UrlRewrite { path, query, reroute: false });
    asked(vec![wire::RewriteRule { conditions, url, ..rule() }], head).unwrap();
    head.uri.to_string()
}

fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|it| it.to_str().unwrap().to_owned()).collect()
}

/// What becomes of an answer to a request.
fn answer(
    rules: Vec<wire::RewriteRule>,
    request: &[(&str, &str)],
    fields: &[(&str, &str)],
) -> HeaderMap {
    let set = compiled(rules);
    let mut head = head("/p", request);
    let facts = facts(&head);
    let asked = set.change_request(&facts, &mut head).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers
            .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let about = (&facts, &Method::GET, &head.headers);
    set.change_answer(about, &asked.decided, StatusCode::OK, &mut headers).unwrap();
    headers
}

#[test]
fn headers_are_set_replaced_and_deleted() {
    let mut head = head("/", &[("x-old", "a"), ("x-old", "b"), ("x-gone", "c")]);
    let request_headers = vec![
        set_to("X-Old", &[text("new")]),
        set_to("x-gone", &[]),
        set_to("x-empty", &[whole(asks("x-none")), text(" ")]),
        set_to("x-more", &[text("<"), whole(asks("x-old")), text(">")]),
    ];
    asked(vec![wire::RewriteRule { request_headers, ..rule() }], &mut head).unwrap();
    assert_eq!(lines(&head.headers, "x-old"), ["new"]);
    assert_eq!(lines(&head.headers, "x-more"), ["<new>"], "each change sees those before it");
    assert_eq!(head.headers.len(), 2, "what is empty is not sent: {:?}", head.headers);
}

#[test]
fn rules_see_what_those_before_them_have_made_of_headers() {
    let mut head = head("/", &[]);
    let first = wire::RewriteRule { request_headers: vec![set_to("x-a", &[text("1")])], ..rule() };
    let second = wire::RewriteRule {
        conditions: vec![when(asks("x-a"), "^(1)$")],
        request_headers: vec![set_to("x-b", &[capture(0, 1), text("2")])],
        ..rule()
    };
    asked(vec![first, second], &mut head).unwrap();
    assert_eq!(lines(&head.headers, "x-b"), ["12"]);
}

#[test]
fn every_condition_must_hold() {
    let applied = |fields: &[(&str, &str)]| {
        let negated = wire::RewriteCondition {
            source: Some(asks("x-not")),
            pattern: Some(wire::RewritePattern { negate: true, ..pattern("no") }),
        };
        let folded = wire::RewriteCondition {
            source: Some(asks("x-case")),
            pattern: Some(wire::RewritePattern { ignore_case: true, ..pattern("YES") }),
        };
        let rule = wire::RewriteRule {
            conditions: vec![when(asks("x-yes"), "y"), negated, folded],
            request_headers: vec![set_to("x-applied", &[text("1")])],
            ..rule()
        };
        let mut head = head("/", fields);
        asked(vec![rule], &mut head).unwrap();
        head.headers.contains_key("x-applied")
    };
    assert!(applied(&[("x-yes", "any"), ("x-case", "yes")]));
    assert!(!applied(&[("x-case", "yes")]), "an absent header is empty");
    assert!(!applied(&[("x-yes", "any"), ("x-case", "yes"), ("x-not", "no")]));
    assert!(!applied(&[("x-yes", "any"), ("x-case", "nay")]));
}

#[test]
fn a_url_is_made_of_what_conditions_have_captured() {
    let mut shop = head("/fashion/shirts?page=2", &[]);
    let captured = || vec![when(variable(ServerVariable::UriPath), "/(.+)/(.+)")];
    let query = value(&[text("category="), capture(0, 1), text("&product="), capture(0, 2)]);
    let made = url(captured(), value(&[text("buy.aspx")]), query, &mut shop);
    assert_eq!(made, "/buy.aspx?category=fashion&product=shirts");
    let made =
        url(captured(), value(&[text("/x/"), capture(0, 2)]), None, &mut head("/a/b?q=1", &[]));
    assert_eq!(made, "/x/b?q=1", "the query stays");
    let made = url(captured(), None, value(&[]), &mut head("/a/b?q=1", &[]));
    assert_eq!(made, "/a/b", "an empty query goes");
    let made = url(captured(), None, value(&[text("?x=1")]), &mut head("/a/b", &[]));
    assert_eq!(made, "/a/b?x=1");
}

#[test]
fn a_path_is_asked_for_again_only_where_a_rule_that_applies_says_so() {
    let moves = |pattern: &str, reroute| wire::RewriteRule {
        conditions: vec![when(variable(ServerVariable::UriPath), pattern)],
        url: Some(wire::UrlRewrite { path: value(&[text("/b")]), query: None, reroute }),
        ..rule()
    };
    let outcome = |rules| {
        let asked = asked(rules, &mut head("/a", &[])).unwrap();
        (asked.moved, asked.reroute)
    };
    assert_eq!(outcome(vec![moves("^/a", true)]), (true, true));
    assert_eq!(outcome(vec![moves("^/a", false)]), (true, false));
    assert_eq!(outcome(vec![moves("^/c", true)]), (false, false));
    // The URL is told as it was sent, so the second rule applies, too.
    assert_eq!(outcome(vec![moves("^/a", false), moves("^/a", true)]), (true, true));
    let star = asked(vec![moves("", true)], &mut head("*", &[])).unwrap();
    assert!(!star.moved, "`OPTIONS *` has no path");
}

#[test]
fn conditions_on_the_request_hold_for_the_answer_as_they_were() {
    let rules = vec![wire::RewriteRule {
        conditions: vec![when(asks("origin"), "^https://(.*)$")],
        request_headers: vec![set_to("origin", &[])],
        response_headers: vec![set_to("x-origin", &[capture(0, 1)])],
        ..rule()
    }];
    let headers = answer(rules.clone(), &[("origin", "https://a.test")], &[]);
    assert_eq!(lines(&headers, "x-origin"), ["a.test"]);
    assert!(answer(rules, &[("origin", "null")], &[]).is_empty());
}

#[test]
fn conditions_on_the_answer_change_the_answer_alone() {
    let rules = vec![wire::RewriteRule {
        conditions: vec![when(answers("location"), r"(https?):\/\/.*azurewebsites\.net(.*)$")],
        request_headers: vec![set_to("x-early", &[text("never")])],
        response_headers: vec![
            set_to("location", &[capture(0, 1), text("://contoso.com"), capture(0, 2)]),
            set_to("x-early", &[whole(asks("x-early"))]),
            set_to("x-status", &[whole(variable(ServerVariable::HttpStatus))]),
        ],
        ..rule()
    }];
    let headers = answer(rules, &[], &[("location", "https://a.azurewebsites.net/path2")]);
    assert_eq!(lines(&headers, "location"), ["https://contoso.com/path2"]);
    assert_eq!(lines(&headers, "x-status"), ["200"]);
    assert!(!headers.contains_key("x-early"));
}

#[test]
fn a_matcher_changes_the_cookies_that_are_meant_and_no_other() {
    let cookies = [("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2"), ("set-cookie", "A=3")];
    let change = |matcher: wire::RewritePattern, parts: &[wire::RewritePart]| {
        let change = wire::HeaderRewrite { matcher: Some(matcher), ..set_to("Set-Cookie", parts) };
        let rules = vec![wire::RewriteRule { response_headers: vec![change], ..rule() }];
        lines(&answer(rules, &[], &cookies), "set-cookie")
    };
    assert_eq!(
        change(pattern("^a=([^;]*)"), &[text("a="), matched(1), text("; Secure")]),
        ["a=1; Secure", "b=2", "A=3"]
    );
    assert_eq!(change(pattern("^a="), &[]), ["b=2", "A=3"], "an empty value deletes the line");
    let folded = wire::RewritePattern { ignore_case: true, ..pattern("^a=") };
    assert_eq!(change(folded, &[matched(0), text("!")]), ["a=1; Path=/!", "b=2", "A=3!"]);
    let others = wire::RewritePattern { negate: true, ..pattern("^a=") };
    assert_eq!(change(others, &[matched(0), text("; X")]), ["a=1; Path=/", "b=2; X", "A=3; X"]);
    assert_eq!(change(pattern("^zz"), &[text("zz=1")]), ["a=1; Path=/", "b=2", "A=3"]);
    let all = vec![wire::RewriteRule {
        response_headers: vec![set_to("Set-Cookie", &[text("only=1")])],
        ..rule()
    }];
    assert_eq!(lines(&answer(all, &[], &cookies), "set-cookie"), ["only=1"]);
}
