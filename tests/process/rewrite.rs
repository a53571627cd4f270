//! Rewrite sets: what backends and clients see of them, in requests, in opening handshakes, and where clients are hostile.
#![allow(clippy::needless_pass_by_value, reason = "documents are written where they are used")]

mod reroute;

use serde_json::{Value, json};

use crate::harness::{
    Certificate, Connection, Document, Gateway, Mirror, Patience, WebSocket, directory, eventually,
    field, free_port, get, upgrade_request,
};

/// Adds a set.
fn with_set(mut document: Document, name: &str, rules: Value) -> Document {
    let sets = &mut document.0["properties"]["rewriteRuleSets"];
    if sets.is_null() {
        *sets = json!([]);
    }
    sets.as_array_mut().unwrap().push(json!({"name": name, "properties": {"rewriteRules": rules}}));
    document
}

fn link(collection: &str, name: &str) -> Value {
    json!({"id": format!("/{collection}/{name}")})
}

/// The site "web" in front of a mirror, with a set of these rules.
fn rewritten(port: u16, mirror: &Mirror, rules: Value) -> Document {
    let document = Document::simple(port, &[mirror.address]).set(
        "requestRoutingRules",
        "web",
        "rewriteRuleSet",
        link("rewriteRuleSets", "set"),
    );
    with_set(document, "set", rules)
}

fn rule(sequence: u32, conditions: Value, actions: Value) -> Value {
    json!({"name": format!("rule{sequence}"), "ruleSequence": sequence, "conditions": conditions,
        "actionSet": actions})
}

fn header(name: &str, value: &str) -> Value {
    json!({"headerName": name, "headerValue": value})
}

/// A request with more header lines, on a connection of its own.
fn ask(port: u16, target: &str, lines: &str) -> (u16, String) {
    let mut connection = Connection::open(port).unwrap();
    connection
        .write(format!("GET {target} HTTP/1.1\r\nHost: web.test:{port}\r\n{lines}\r\n"))
        .unwrap();
    let response = connection.response().unwrap();
    (response.status, response.text())
}

fn first_line(head: &str) -> &str {
    head.lines().next().unwrap()
}

#[test]
fn a_backend_and_a_client_see_what_the_rules_have_made() {
    let mirror = Mirror::start(&["Server: secret/1.0", "X-Powered-By: secret", "Date: then"]);
    let port = free_port();
    let rules = json!([
        rule(
            200,
            json!([{"variable": "http_req_X-Tenant", "pattern": "^t-(.*)$"}]),
            json!({
            "requestHeaderConfigurations": [header("X-Tenant-Id", "{http_req_X-Tenant_1}")],
            "responseHeaderConfigurations": [header("X-For", "{http_req_X-Tenant_1}/{var_http_status}")]})
        ),
        rule(
            100,
            json!([{"variable": "var_query_string", "pattern": "tenant=([a-z]+)"}]),
            json!({
            "requestHeaderConfigurations": [
                header("X-Tenant", "t-{var_query_string_1}"), header("X-Unwanted", ""),
                header("X-Forwarded-For", "{var_add_x_forwarded_for_proxy}")],
            "responseHeaderConfigurations": [
                header("Strict-Transport-Security", "max-age=31536000"),
                header("Server", ""), header("X-Powered-By", "")]})
        ),
    ]);
    let _gateway = Gateway::start(&rewritten(port, &mirror, rules));
    let mut connection = Connection::open(port).unwrap();
    let request = format!(
        "GET /a?tenant=blue HTTP/1.1\r\nHost: web.test:{port}\r\nX-Unwanted: 1\r\nX-Unwanted: 2\r\n\
         X-Forwarded-For: 198.51.100.9\r\n\r\n"
    );
    connection.write(request).unwrap();
    let response = connection.response().unwrap();
    let head = response.text();
    assert_eq!(first_line(&head), "GET /a?tenant=blue HTTP/1.1");
    assert_eq!(field(&head, "x-tenant").as_deref(), Some("t-blue"));
    assert_eq!(
        field(&head, "x-tenant-id").as_deref(),
        Some("blue"),
        "later rules see earlier ones"
    );
    assert_eq!(field(&head, "x-unwanted"), None);
    assert_eq!(field(&head, "x-forwarded-for").as_deref(), Some("198.51.100.9, 127.0.0.1"));
    assert_eq!(field(&head, "x-original-host"), Some(format!("web.test:{port}")));
    assert_eq!(response.header("strict-transport-security"), Some("max-age=31536000"));
    assert_eq!(response.header("x-for"), Some("blue/200"));
    assert_eq!((response.header("server"), response.header("x-powered-by")), (None, None));

    // Without the parameter no condition holds, and nothing is changed.
    let plain = connection.get("/a", "web.test").unwrap();
    assert_eq!(plain.header("server"), Some("secret/1.0"));
    assert!(field(&plain.text(), "x-forwarded-for").unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn cookies_of_a_backend_are_changed_one_by_one() {
    let mirror = Mirror::start(&["Set-Cookie: id=1; Path=/", "Set-Cookie: theme=dark"]);
    let port = free_port();
    let mut cookie = header("Set-Cookie", "{capt_header_value_matcher_1}; Secure; HttpOnly");
    cookie["headerValueMatcher"] = json!({"pattern": "^(id=.*)$"});
    let rules = json!([rule(1, json!([]), json!({"responseHeaderConfigurations": [cookie]}))]);
    let _gateway = Gateway::start(&rewritten(port, &mirror, rules));
    let response = get(port, "/").unwrap();
    let cookies: Vec<_> =
        response.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, v)| v).collect();
    assert_eq!(cookies, ["id=1; Path=/; Secure; HttpOnly", "theme=dark"]);
}

/// Rooms in the path become a parameter; the rest of a handshake is left to the two ends.
fn room_rules() -> Value {
    json!([
        rule(
            1,
            json!([{"variable": "var_uri_path", "pattern": "^/chat/([^/]+)$"}]),
            json!({
        "requestHeaderConfigurations": [
            header("X-Room", "{var_uri_path_1}"), header("Sec-WebSocket-Extensions", "")],
        "responseHeaderConfigurations": [header("X-Room", "{var_uri_path_1}"), header("Server", "")],
        "urlConfiguration": {"modifiedPath": "/ws", "modifiedQueryString": "room={var_uri_path_1}"}})
        ),
        rule(2, json!([]), json!({"responseHeaderConfigurations": [header("X-Always", "yes")]}))
    ])
}

#[test]
fn a_websocket_opens_where_its_handshake_is_rewritten_to() {
    let mirror = Mirror::start(&["Server: secret/1.0"]);
    let port = free_port();
    let gateway = Gateway::start(&rewritten(port, &mirror, room_rules()));
    let mut connection = Connection::open(port).unwrap();
    let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let request = upgrade_request("/chat/blue?x=1", "web.test").replace("\r\n\r\n", offer);
    connection.write(request).unwrap();
    let answer = connection.response().unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("x-room"), Some("blue"));
    assert_eq!(answer.header("x-always"), Some("yes"));
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(
        answer.header("connection").map(str::to_ascii_lowercase).as_deref(),
        Some("upgrade")
    );
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let head = mirror.heads().pop().unwrap();
    assert_eq!(first_line(&head), "GET /ws?room=blue HTTP/1.1");
    assert_eq!(field(&head, "x-room").as_deref(), Some("blue"));
    assert_eq!(field(&head, "sec-websocket-extensions"), None);
    assert_eq!(field(&head, "x-original-url").as_deref(), Some("/chat/blue?x=1"));
    // Nothing after the 101 is anybody's to change, whatever it looks like.
    let mut socket = WebSocket::open(port, "/chat/blue");
    assert!(socket.echoes("GET /chat/blue HTTP/1.1\r\nX-Room: blue\r\n\r\n"));
    assert_eq!(gateway.tunnels().len(), 2);
}

#[test]
fn a_backends_refusal_of_a_websocket_is_rewritten_and_the_gateways_own_is_not() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let gateway = Gateway::start(&rewritten(port, &mirror, room_rules()));
    let refusal = || {
        let mut connection = Connection::open(port).unwrap();
        connection.write(upgrade_request("/refuse", "web.test")).unwrap();
        connection.response().unwrap()
    };
    let backends = refusal();
    assert_eq!((backends.status, backends.header("x-always")), (403, Some("yes")));
    let empty = rewritten(port, &mirror, room_rules()).set(
        "backendAddressPools",
        "chat",
        "backendAddresses",
        json!([]),
    );
    gateway.apply(&empty);
    let own = refusal();
    assert_eq!((own.status, own.header("x-always")), (502, None));
    let page = get(port, "/chat/blue").unwrap();
    assert_eq!((page.status, page.header("x-always")), (502, None));
}

#[test]
fn another_set_is_for_new_requests_and_leaves_open_websockets_alone() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let gateway = Gateway::start(&rewritten(port, &mirror, room_rules()));
    let mut socket = WebSocket::open(port, "/chat/blue");
    let other =
        json!([rule(1, json!([]), json!({"urlConfiguration": {"modifiedPath": "/other"}}))]);
    let file = gateway.write("other.json", &rewritten(port, &mirror, other.clone()).text());
    let told = gateway.must(&["apply", "--dry-run", file.to_str().unwrap()]);
    assert!(told.contains("rewrites"), "{told}");
    gateway.apply(&rewritten(port, &mirror, other));
    assert_eq!(first_line(&ask(port, "/chat/red?x=1", "").1), "GET /other?x=1 HTTP/1.1");
    assert!(socket.echoes("still here"));
    assert_eq!(gateway.tunnels().len(), 1);
}

#[test]
fn hostile_values_become_no_second_request_and_no_other_parameter() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let rules = json!([rule(
        1,
        json!([{"variable": "http_req_X-Name", "pattern": "(.+)"}]),
        json!({
        "requestHeaderConfigurations": [header("X-Copy", "<{http_req_X-Name_1}>")],
        "responseHeaderConfigurations": [header("X-Copy", "<{http_req_X-Name_1}>")],
        "urlConfiguration": {"modifiedPath": "/u/{http_req_X-Name_1}",
            "modifiedQueryString": "name={http_req_X-Name_1}&path={var_uri_path}"}})
    )]);
    let _gateway = Gateway::start(&rewritten(port, &mirror, rules));
    for (value, path, query) in [
        ("a b HTTP/1.1", "/u/a%20b%20HTTP/1.1", "a%20b%20HTTP/1.1"),
        ("x?admin=1#&y", "/u/x%3Fadmin=1%23&y", "x?admin%3D1%23%26y"),
        ("%0d%0aHost: evil", "/u/%0d%0aHost:%20evil", "%0d%0aHost:%20evil"),
        ("//evil.test/", "/u///evil.test/", "//evil.test/"),
        ("\u{e9}\"<>", "/u/%C3%A9%22%3C%3E", "%C3%A9%22%3C%3E"),
    ] {
        let (status, head) = ask(port, "/p%20q", &format!("X-Name: {value}\r\n"));
        assert_eq!(status, 200, "{value}");
        assert_eq!(first_line(&head), format!("GET {path}?name={query}&path=/p%20q HTTP/1.1"));
        assert_eq!(field(&head, "x-copy"), Some(format!("<{value}>")));
    }
    // Bytes that no header may hold do not get as far as a rewrite.
    for bytes in ["a\rb", "a\0b", "a\u{7f}b"] {
        let (status, _) = ask(port, "/", &format!("X-Name: {bytes}\r\n"));
        assert_eq!(status, 400, "{bytes:?}");
    }
    assert_eq!(mirror.heads().len(), 5, "{:#?}", mirror.heads());
    for head in mirror.heads() {
        assert_eq!(head.lines().filter(|line| line.starts_with("GET ")).count(), 1, "{head}");
        assert_eq!(field(&head, "host"), Some(format!("web.test:{port}")));
    }
}

#[test]
fn a_written_host_goes_before_that_of_the_settings_and_a_bad_one_is_a_500() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let rules = json!([rule(
        1,
        json!([{"variable": "http_req_X-Host", "pattern": "."}]),
        json!({
        "requestHeaderConfigurations": [header("Host", "{http_req_X-Host}")]})
    )]);
    let document = rewritten(port, &mirror, rules).set(
        "backendHttpSettingsCollection",
        "chat",
        "hostName",
        "settings.test",
    );
    let gateway = Gateway::start(&document);
    let host = |lines: &str| field(&ask(port, "/", lines).1, "host");
    assert_eq!(host("").as_deref(), Some("settings.test"));
    assert_eq!(host("X-Host: written.test:81\r\n").as_deref(), Some("written.test:81"));
    assert_eq!(ask(port, "/", "X-Host: a b\r\n").0, 500);
    assert_eq!(ask(port, "/", "X-Host: a.test/x\r\n").0, 500);
    assert_eq!(mirror.heads().len(), 2);
    eventually(Patience::USUAL, "the log to say why", || {
        gateway.log().contains("the value for Host is not one").then_some(())
    });
}

#[test]
fn a_path_override_goes_before_a_rewritten_path() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let rules = json!([rule(
        1,
        json!([{"variable": "var_uri_path", "pattern": "^/old"}]),
        json!({
        "urlConfiguration": {"modifiedPath": "/new/page"}})
    )]);
    let document = rewritten(port, &mirror, rules).set(
        "backendHttpSettingsCollection",
        "chat",
        "path",
        "/base/",
    );
    let _gateway = Gateway::start(&document);
    assert_eq!(first_line(&ask(port, "/old", "").1), "GET /base/new/page HTTP/1.1");
    assert_eq!(first_line(&ask(port, "/other", "").1), "GET /base/other HTTP/1.1");
}

#[test]
fn a_backend_is_told_of_the_tls_session_by_rewrites() {
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "chat.test");
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let rules = json!([rule(
        1,
        json!([{"variable": "var_ssl_enabled", "pattern": "^On$"}]),
        json!({
        "requestHeaderConfigurations": [
            header("X-Tls", "{var_ssl_connection_protocol} {var_ciphers_used} {var_request_scheme}"),
            header("X-Verified", "{var_client_certificate_verification}")]})
    )]);
    let document = Document::new().pool("chat", &[mirror.address]).tls_site(
        "secure",
        port,
        &certificate,
        "chat",
    );
    let document = with_set(document, "set", rules).set(
        "requestRoutingRules",
        "secure",
        "rewriteRuleSet",
        link("rewriteRuleSets", "set"),
    );
    let _gateway = Gateway::start(&document);
    assert!(WebSocket::open_tls(port, "/echo", &certificate).echoes("hello"));
    let head = mirror.heads().pop().unwrap();
    let told = field(&head, "x-tls").unwrap();
    assert!(told.starts_with("TLSv1.3 TLS_") && told.ends_with(" https"), "{told}");
    assert_eq!(field(&head, "x-verified").as_deref(), Some("NONE"));
}

#[test]
fn a_bad_set_is_refused_and_what_runs_goes_on() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let gateway = Gateway::start(&rewritten(port, &mirror, room_rules()));
    let bad = json!([rule(
        1,
        json!([{"variable": "var_uripath", "pattern": "("}]),
        json!({
        "requestHeaderConfigurations": [header("Connection", "close")]})
    )]);
    let said = gateway.apply_refused(&rewritten(port, &mirror, bad).text());
    for told in ["did you mean var_uri_path?", "is not a pattern", "Connection cannot be rewritten"]
    {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert!(WebSocket::open(port, "/chat/blue").echoes("hello"));
    let config = gateway.must(&["config"]);
    assert!(config.contains("\"modifiedQueryString\": \"room={var_uri_path_1}\""), "{config}");
}
