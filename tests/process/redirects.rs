//! Redirects as browsers follow them, and those that are refused because nobody would ever arrive.

use serde_json::json;

use crate::harness::{
    Backend, Connection, Document, Gateway, WebSocket, free_port, get, get_host, upgrade_request,
};

/// A site that redirects, in front of one that does not.
fn redirecting(port: u16, target: &serde_json::Value, backend: &Backend) -> Document {
    let mut document = Document::new()
        .pool("chat", &[backend.address])
        .host_site("old", port, "old.test", "chat")
        .host_site("new", port, "new.test", "chat");
    let mut redirect = target.clone();
    redirect["name"] = "away".into();
    document.0["properties"]["redirectConfigurations"] = json!([redirect]);
    let rules = document.0["properties"]["requestRoutingRules"].as_array_mut().unwrap();
    let rule = rules[0]["properties"].as_object_mut().unwrap();
    rule.remove("backendAddressPool");
    rule.remove("backendHttpSettings");
    rule.insert("redirectConfiguration".into(), json!({ "id": "/redirectConfigurations/away" }));
    document
}

#[test]
fn each_type_has_its_status_and_the_target_is_reached() {
    let backend = Backend::start("one");
    let (port, other) = (free_port(), free_port());
    let document = |kind: &str| {
        let target = json!({ "redirectType": kind, "includePath": true,
            "targetListener": { "id": "/httpListeners/new" } });
        redirecting(port, &target, &backend).site("web", other, "chat")
    };
    let gateway = Gateway::start(&document("permanent"));
    let mut tunnel = WebSocket::open(other, "/echo");
    for (kind, status) in
        [("PERMANENT", 301), ("Found", 302), ("SeeOther", 303), ("temporary", 307)]
    {
        gateway.apply(&document(kind));
        let answer = get_host(port, "/whoami", "old.test").unwrap();
        assert_eq!(answer.status, status, "{kind}");
        let location = answer.header("location").unwrap().to_owned();
        assert_eq!(location, format!("http://new.test:{port}/whoami"));
        assert_eq!(get_host(port, "/whoami", "new.test").unwrap().text(), "one");
    }
    assert!(tunnel.echoes("four changes later"));
}

#[test]
fn a_websocket_handshake_is_redirected_like_any_request() {
    let backend = Backend::start("one");
    let port = free_port();
    let target = json!({ "targetUrl": "https://chat.example.test", "includePath": true });
    let gateway = Gateway::start(&redirecting(port, &target, &backend));
    let mut client = Connection::open(port).unwrap();
    client.write(upgrade_request("/echo", "old.test")).unwrap();
    let answer = client.response().unwrap();
    let location = Some("https://chat.example.test/echo");
    assert_eq!((answer.status, answer.header("location")), (301, location));
    // It is an ordinary connection still.
    assert_eq!(client.get("/whoami", "new.test").unwrap().text(), "one");
    assert!(gateway.tunnels().is_empty());
}

#[test]
fn redirects_in_a_circle_are_refused_and_what_was_in_force_stays() {
    let backend = Backend::start("one");
    let port = free_port();
    let good = Document::simple(port, &[backend.address]);
    let gateway = Gateway::start(&good);
    for (target, circle) in [
        (json!({ "targetListener": { "id": "/httpListeners/old" } }), "\"old\" → \"old\""),
        (
            json!({ "targetUrl": format!("http://old.test:{port}/"), "includePath": true }),
            "\"old\" → \"old\"",
        ),
        (
            json!({ "targetUrl": format!("http://OLD.test:{port}/app?x"), "includePath": true }),
            "\"old\" → \"old\"",
        ),
    ] {
        let said = gateway.apply_refused(&redirecting(port, &target, &backend).text());
        assert!(said.contains(circle), "{said}");
        assert!(said.contains("requestRoutingRules[0]"), "{said}");
    }
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
}
