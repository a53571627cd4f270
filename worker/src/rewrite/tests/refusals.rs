//! Sets that a worker does not take, whatever the supervisor thought of them.

use super::*;

fn refused(rule: wire::RewriteRule) -> String {
    let set = wire::RewriteSet { name: "set".to_owned(), rules: vec![rule] };
    RewriteSet::compile(set).unwrap_err().to_string()
}

#[test]
fn headers_that_hold_a_message_or_a_handshake_together_are_not_taken() {
    let request = |name: &str, parts: &[wire::RewritePart]| {
        refused(wire::RewriteRule { request_headers: vec![set_to(name, parts)], ..rule() })
    };
    for name in ["Connection", "upgrade", "Transfer-Encoding", "Sec-WebSocket-Key", "a b", ""] {
        assert_eq!(request(name, &[]), format!("rule rule cannot change {name:?}"));
    }
    assert!(request("Sec-WebSocket-Protocol", &[text("a")]).contains("cannot change"));
    for name in ["Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Content-Length"] {
        let response_headers = vec![set_to(name, &[])];
        assert!(
            refused(wire::RewriteRule { response_headers, ..rule() }).contains("cannot change")
        );
    }
}

#[test]
fn references_to_nothing_are_not_taken() {
    let with = |part: wire::RewritePart| {
        let request_headers = vec![set_to("x-a", &[part])];
        refused(wire::RewriteRule {
            conditions: vec![when(asks("x-b"), "(a)")],
            request_headers,
            ..rule()
        })
    };
    for part in [capture(1, 0), capture(0, 2)] {
        assert_eq!(with(part), "rule rule: a value refers to a group that is not captured");
    }
    assert!(with(matched(0)).contains("its matcher does not have"));
    assert!(with(wire::RewritePart { kind: None }).contains("empty"));
    assert!(with(whole(wire::RewriteSource { kind: None })).contains("empty"));
    assert!(with(whole(of(rewrite_source::Kind::Variable(0)))).contains("empty"));
    assert!(with(whole(of(rewrite_source::Kind::Variable(999)))).contains("empty"));
}

#[test]
fn conditions_and_matchers_that_cannot_be_are_not_taken() {
    let conditions = vec![wire::RewriteCondition::default()];
    assert!(
        refused(wire::RewriteRule { conditions, ..rule() }).contains("no source or no pattern")
    );
    let conditions = vec![when(asks("x-a"), "(")];
    assert_eq!(refused(wire::RewriteRule { conditions, ..rule() }), "pattern \"(\" of rule rule");
    let matcher = Some(pattern("a"));
    let change = wire::HeaderRewrite { matcher, ..set_to("x-a", &[text("b")]) };
    let refusal = refused(wire::RewriteRule { response_headers: vec![change], ..rule() });
    assert!(refusal.contains("only Set-Cookie"), "{refusal}");
}
