//! Requests explained by tables; what a client sends may be anything.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(clippy::unnecessary_wraps, reason = "messages are optional wherever they stand")]

use holdfast_proto::control as wire;

use super::*;

fn action(binding: u32, rewrite_set: Option<u32>) -> Option<wire::Action> {
    let kind = Some(wire::action::Kind::Forward(wire::Forward { binding }));
    Some(wire::Action { kind, rewrite_set })
}

fn redirect() -> Option<wire::Action> {
    let redirect = wire::Redirect {
        status: 302,
        target_url: "https://elsewhere.test".to_owned(),
        include_path: true,
        ..wire::Redirect::default()
    };
    let kind = Some(wire::action::Kind::Redirect(redirect));
    Some(wire::Action { kind, rewrite_set: None })
}

fn path(name: &str, pattern: &str, action: Option<wire::Action>) -> wire::PathRoute {
    wire::PathRoute { name: name.to_owned(), patterns: vec![pattern.to_owned()], action }
}

fn binding(pool: &str, port: u32) -> wire::PoolBinding {
    let backend = |host: u32| wire::Backend { address: format!("10.0.0.{host}"), port };
    wire::PoolBinding {
        pool: pool.to_owned(),
        settings: "plain".to_owned(),
        backends: vec![backend(1), backend(2)],
        backend_settings: Some(wire::BackendSettings {
            scheme: wire::Scheme::Http.into(),
            host: wire::HostChoice::Client.into(),
            path_prefix: if pool == "files" { "/static/".to_owned() } else { String::new() },
            ..Default::default()
        }),
        distribution: None,
    }
}

fn text(text: &str) -> Option<wire::RewriteValue> {
    let kind = Some(wire::rewrite_part::Kind::Text(text.to_owned()));
    Some(wire::RewriteValue { parts: vec![wire::RewritePart { kind }] })
}

/// One rule that says who it is and sends `/old` to `/files/new`, one that waits for the answer.
fn rewrites() -> wire::RewriteSet {
    let variable = wire::rewrite_source::Kind::Variable(wire::ServerVariable::UriPath.into());
    let on = |kind, pattern: &str| wire::RewriteCondition {
        source: Some(wire::RewriteSource { kind: Some(kind) }),
        pattern: Some(wire::RewritePattern { pattern: pattern.to_owned(), ..Default::default() }),
    };
    let header = |name: &str| wire::HeaderRewrite {
        name: name.to_owned(),
        value: text("yes"),
        matcher: None,
    };
    let moves = wire::RewriteRule {
        name: "moves".to_owned(),
        conditions: vec![on(variable, "^/old$")],
        request_headers: vec![header("x-moved")],
        url: Some(wire::UrlRewrite { path: text("/files/new"), query: None, reroute: true }),
        ..Default::default()
    };
    let answer = wire::rewrite_source::Kind::ResponseHeader("server".to_owned());
    let waits = wire::RewriteRule {
        name: "waits".to_owned(),
        conditions: vec![on(answer, "nginx")],
        response_headers: vec![header("x-seen")],
        ..Default::default()
    };
    wire::RewriteSet { name: "set".to_owned(), rules: vec![moves, waits] }
}

fn snapshot() -> wire::ListenerSnapshot {
    let site = |name: &str, host: &str| wire::Site {
        name: name.to_owned(),
        hosts: vec![host.to_owned()],
        rule: format!("{name}-rule"),
        default_action: action(0, Some(0)),
        ..Default::default()
    };
    let mut chat = site("chat", "chat.test");
    chat.paths =
        vec![path("files", "/files/*", action(1, None)), path("gone", "/gone/*", redirect())];
    wire::ListenerSnapshot {
        revision: 7,
        listener: "0.0.0.0:8080".to_owned(),
        sites: vec![chat, site("wild", "*.test")],
        bindings: vec![binding("chat", 80), binding("files", 81)],
        rewrite_sets: vec![rewrites()],
        limits: Some(wire::Limits { max_body_bytes: 1000, ..Default::default() }),
        ..Default::default()
    }
}

fn ask(target: &str) -> ExplainRequest {
    ExplainRequest {
        target: target.to_owned(),
        host: "chat.test:8080".to_owned(),
        ..ExplainRequest::default()
    }
}

fn with(mut question: ExplainRequest, headers: &[(&str, &str)]) -> ExplainRequest {
    question.headers.extend(headers.iter().map(|(name, value)| ExplainHeader {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    }));
    question
}

fn told(question: &ExplainRequest) -> ExplainResponse {
    explain_offline(snapshot(), question).unwrap()
}

fn header<'a>(forward: &'a ExplainForward, name: &str) -> Option<&'a str> {
    forward.headers.iter().find(|it| it.name == name).map(|it| it.value.as_str())
}

#[test]
fn a_request_is_told_its_site_rule_pool_and_what_its_backends_get() {
    let told = told(&ask("/files/a%20b?c=d"));
    assert_eq!((told.revision, told.site.as_str()), (7, "chat"));
    let step = &told.steps[0];
    assert_eq!((step.rule.as_str(), step.path_rule.as_str()), ("chat-rule", "files"));
    let forward = told.forward.unwrap();
    assert_eq!((forward.pool.as_str(), forward.settings.as_str()), ("files", "plain"));
    assert_eq!(forward.target, "/static/a%20b?c=d");
    assert_eq!(header(&forward, "x-original-host"), Some("chat.test:8080"));
    assert_eq!(header(&forward, "x-forwarded-for"), Some("127.0.0.1:0"));
    assert_eq!(header(&forward, "host"), None, "each backend has its own");
    let backends: Vec<_> = forward.backends.iter().map(|it| (&*it.address, it.port)).collect();
    assert_eq!(backends, [("10.0.0.1", 81), ("10.0.0.2", 81)]);
    assert_eq!(forward.backends[0].host, "chat.test:8080");
    assert!(told.refusal.is_none(), "nothing is known of health, and nothing claimed");
}

#[test]
fn rewrites_are_followed_through_the_path_map_again() {
    let told = told(&ask("/old"));
    let ways: Vec<_> = told.steps.iter().map(|it| it.path_rule.as_str()).collect();
    assert_eq!(ways, ["", "files"]);
    let effects: Vec<_> =
        told.steps[0].rewrites.iter().map(|it| (it.rule.as_str(), it.effect())).collect();
    assert_eq!(effects, [("moves", Told::Applies), ("waits", Told::Waits)]);
    let forward = told.forward.unwrap();
    assert_eq!((forward.pool.as_str(), forward.target.as_str()), ("files", "/static/new"));
    assert_eq!(header(&forward, "x-moved"), Some("yes"));
}

#[test]
fn a_rule_whose_conditions_do_not_hold_is_told_too() {
    let told = told(&ask("/other"));
    assert_eq!(told.steps[0].rewrites[0].effect(), Told::DoesNotApply);
    assert_eq!(told.forward.unwrap().target, "/other");
}

#[test]
fn a_redirect_is_told_with_its_location() {
    let told = told(&ask("/gone/x"));
    let redirect = told.redirect.unwrap();
    assert_eq!(redirect.status, 302);
    assert_eq!(redirect.location, "https://elsewhere.test/gone/x");
    assert!(told.forward.is_none());
}

#[test]
fn what_the_gateway_refuses_is_told_with_its_status() {
    let wild = |host: &str| ExplainRequest { host: host.to_owned(), ..ask("/") };
    assert_eq!(told(&wild("other.test")).site, "wild");
    let post = ExplainRequest { method: "POST".to_owned(), ..ask("/") };
    for (question, status, word) in [
        (wild("elsewhere.example"), 404, "no_site"),
        (wild(""), 400, "bad_request"),
        (wild("a b"), 400, "bad_request"),
        (with(ask("/"), &[("bad name", "x")]), 400, "bad_request"),
        (with(ask("/"), &[("x", "a\r\nb: c")]), 400, "bad_request"),
        (with(ask("/"), &[("host", "second.test")]), 400, "bad_request"),
        (ask("no path"), 400, "bad_request"),
        (ExplainRequest { method: "TRACE".to_owned(), ..ask("/") }, 405, "method_not_allowed"),
        (ExplainRequest { method: "G ET".to_owned(), ..ask("/") }, 400, "bad_request"),
        (with(post, &[("content-length", "1001")]), 413, "body_too_large"),
    ] {
        let refusal = told(&question).refusal.unwrap_or_else(|| panic!("{question:?}"));
        assert_eq!((refusal.status, refusal.word.as_str()), (status, word), "{question:?}");
    }
}

#[test]
fn an_opening_handshake_is_one_only_if_it_is_whole() {
    let handshake = [("connection", "upgrade"), ("upgrade", "websocket")];
    let whole = with(ask("/"), &handshake);
    let whole = with(whole, &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
    let answer = told(&whole);
    assert!(answer.websocket);
    assert_eq!(header(&answer.forward.unwrap(), "upgrade"), Some("websocket"));
    assert_eq!(told(&with(ask("/"), &handshake)).refusal.unwrap().status, 400);
    assert!(!told(&ask("/")).websocket);
}

#[test]
fn health_says_who_is_in_rotation_and_no_turn_is_used_up() {
    let current = Current::new();
    current.install_table(Table::compile(snapshot(), None).unwrap());
    let health = |version, in_rotation: bool| wire::HealthSnapshot {
        version,
        targets: ["10.0.0.1", "10.0.0.2"]
            .map(|address| wire::TargetHealth {
                key: Some(wire::TargetKey {
                    pool: "chat".to_owned(),
                    settings: "plain".to_owned(),
                    address: address.to_owned(),
                    port: 80,
                }),
                in_rotation,
                ..Default::default()
            })
            .into(),
        drained: None,
    };
    current.install_health(health(1, true));
    let turn = || {
        let client = NOBODY.ip();
        let serving = current.load();
        let preference = Preference { client, cookie: None, own: None };
        serving.candidates(0, &preference).next().unwrap().address.to_string()
    };
    assert_eq!(turn(), "10.0.0.1");
    let answer = explain(&current.load(), &ask("/"));
    assert!(answer.forward.unwrap().backends.iter().all(|it| it.in_rotation));
    assert_eq!(turn(), "10.0.0.2", "nobody's turn was taken");
    current.install_health(health(2, false));
    let answer = explain(&current.load(), &ask("/"));
    assert_eq!(answer.refusal.unwrap().word, "no_backend");
    assert_eq!(answer.forward.unwrap().pool, "chat", "and where it would have gone");
}
