//! Rewritten paths that go through the path map again, and those that never come out of it.

use serde_json::{Value, json};

use super::{first_line, header, link, rule, with_set};
use crate::harness::{
    Connection, Document, Gateway, Mirror, Patience, WebSocket, eventually, free_port, get,
    upgrade_request,
};

/// A site with paths: /one and /two go to pools of their own, /gone is redirected, the rest goes to "rest" by the set.
fn by_path(port: u16, mirrors: &[Mirror; 3], rules: Value) -> Document {
    let [one, two, rest] = mirrors;
    let mut document = Document::new()
        .pool("one", &[one.address])
        .pool("two", &[two.address])
        .pool("rest", &[rest.address])
        .path_site("web", port, &[("/one*", "one"), ("/two*", "two")], "rest");
    let properties = &mut document.0["properties"];
    properties["redirectConfigurations"] = json!([{"name": "moved", "properties":
        {"redirectType": "Found", "targetUrl": "https://new.test", "includePath": true}}]);
    let map = &mut properties["urlPathMaps"][0]["properties"];
    map["defaultRewriteRuleSet"] = link("rewriteRuleSets", "set");
    map["pathRules"][1]["properties"]["rewriteRuleSet"] = link("rewriteRuleSets", "set");
    let gone = json!({"name": "gone", "properties": {"paths": ["/gone*"],
        "redirectConfiguration": link("redirectConfigurations", "moved")}});
    map["pathRules"].as_array_mut().unwrap().push(gone);
    with_set(document, "set", rules)
}

fn go(sequence: u32, query: &str, path: &str, reroute: bool) -> Value {
    rule(
        sequence,
        json!([{"variable": "var_query_string", "pattern": format!("to={query}$")}]),
        json!({"urlConfiguration": {"modifiedPath": path, "reroute": reroute},
            "responseHeaderConfigurations": [header("X-Set", "yes")]}),
    )
}

fn mirrors() -> [Mirror; 3] {
    [
        Mirror::start(&["X-Pool: one"]),
        Mirror::start(&["X-Pool: two"]),
        Mirror::start(&["X-Pool: rest"]),
    ]
}

#[test]
fn a_rewritten_path_chooses_the_pool_where_the_path_map_is_asked_again() {
    let mirrors = mirrors();
    let port = free_port();
    let rules = json!([
        go(1, "one", "/one/x", true),
        go(2, "stay", "/one/x", false),
        go(3, "gone", "/gone/x", true)
    ]);
    let _gateway = Gateway::start(&by_path(port, &mirrors, rules));
    let pool = |target: &str| {
        let response = get(port, target).unwrap();
        (response.header("x-pool").map(str::to_owned), first_line(&response.text()).to_owned())
    };
    let line = |path: &str| format!("GET {path} HTTP/1.1");
    assert_eq!(pool("/any?to=one"), (Some("one".to_owned()), line("/one/x?to=one")));
    assert_eq!(pool("/any?to=stay"), (Some("rest".to_owned()), line("/one/x?to=stay")));
    assert_eq!(pool("/any?to=none"), (Some("rest".to_owned()), line("/any?to=none")));
    assert_eq!(pool("/two?to=one"), (Some("one".to_owned()), line("/one/x?to=one")));
    // The answer is for the set of the route that was taken in the end: /one has none.
    assert_eq!(get(port, "/any?to=one").unwrap().header("x-set"), None);
    assert_eq!(get(port, "/any?to=stay").unwrap().header("x-set"), Some("yes"));
    let redirect = get(port, "/any?to=gone").unwrap();
    assert_eq!((redirect.status, redirect.header("x-set")), (302, None));
    assert_eq!(redirect.header("location"), Some("https://new.test/gone/x"));
    let mut connection = Connection::open(port).unwrap();
    connection.write(upgrade_request("/any?to=one", "web.test")).unwrap();
    let opened = connection.response().unwrap();
    assert_eq!((opened.status, opened.header("x-pool")), (101, Some("one")));
}

#[test]
fn a_request_that_goes_in_circles_is_a_500_and_costs_nobody_else() {
    let mirrors = mirrors();
    let port = free_port();
    let rules = json!([go(1, "circle", "/two/x", true)]);
    let gateway = Gateway::start(&by_path(port, &mirrors, rules));
    let mut connection = Connection::open(port).unwrap();
    assert_eq!(connection.get("/any?to=circle", "web.test").unwrap().status, 500);
    assert_eq!(connection.get("/any?to=none", "web.test").unwrap().status, 200);
    assert_eq!(WebSocket::try_open(port, "/any?to=circle", b"").err().as_deref(), Some("500"));
    assert!(WebSocket::open(port, "/two").echoes("hello"));
    assert!(mirrors.iter().all(|it| it.heads().iter().all(|head| !head.contains("circle"))));
    eventually(Patience::USUAL, "the log to say why", || {
        let log = gateway.log();
        (log.contains("in circles") && log.contains("set=\"set\"")).then_some(())
    });
}
