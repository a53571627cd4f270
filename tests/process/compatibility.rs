//! What Azure documents and no other topic shows: which certificate an unknown name is shown, whose name answers carry,
//! what of a handshake reaches the two ends.

use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::harness::{
    Backend, Certificate, Connection, Document, Gateway, Mirror, Visitor, WebSocket, directory,
    field, free_port, upgrade_request,
};

#[test]
fn an_unknown_server_name_and_none_are_shown_the_basic_listeners_certificate_or_the_first() {
    let backend = Backend::start("one");
    // Who asks for an address names no server.
    for name in ["unknown.test", "127.0.0.1"] {
        let directory = directory();
        let [first, second, basic] =
            ["first", "second", "basic"].map(|it| Certificate::make(directory.path(), it, name));
        let port = free_port();
        let site = |document: Document,
                    site: &str,
                    certificate: &Certificate,
                    host: Value,
                    priority: u32| {
            document
                .tls_site(site, port, certificate, "chat")
                .set("httpListeners", site, "hostName", host)
                .set("requestRoutingRules", site, "priority", priority)
        };
        let document = Document::new().pool("chat", &[backend.address]);
        let document = site(document, "second", &second, json!("second.test"), 20);
        let document = site(document, "first", &first, json!("first.test"), 10);
        let gateway = Gateway::start(&document);
        let shows = |certificate| WebSocket::shown_certificate(port, certificate).is_some();
        assert_eq!([&first, &second].map(shows), [true, false], "{name}: in order of rules");
        let visitor = Visitor::new(&[&first], None, &[&TLS12, &TLS13]);
        let mut visit = visitor.visit(port, name).unwrap();
        // Then the Host decides.
        assert_eq!(visit.get("unknown.test").unwrap().status, 404);
        assert_eq!(visit.get("second.test").unwrap().text(), "one");
        gateway.apply(&site(document, "basic", &basic, Value::Null, 30));
        assert_eq!([&first, &second, &basic].map(shows), [false, false, true], "{name}");
    }
}

#[test]
fn no_answer_names_the_gateway_where_that_is_switched_off() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let mut document =
        Document::new().pool("chat", &[mirror.address]).host_site("web", port, "web.test", "chat");
    let gateway = Gateway::start(&document);
    let answers = || {
        [
            "GET / HTTP/1.1\r\nHost: web.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: web.test\r\n\r\n",
            "GET\r\n\r\n",
        ]
        .map(|request| {
            let mut connection = Connection::open(port).unwrap();
            connection.write(request).unwrap();
            let answer = connection.response().unwrap();
            (answer.status, answer.header("server").map(str::to_owned))
        })
    };
    let all = |server: Option<&str>| {
        [200, 404, 405, 400].map(|status| (status, server.map(str::to_owned)))
    };
    assert_eq!(answers(), all(Some("Holdfast")));
    document.0["properties"]["globalConfiguration"] =
        json!({ "disableDefaultServerHeaderInResponse": "true" });
    gateway.apply(&document);
    assert_eq!(answers(), all(None));
}

#[test]
fn a_websockets_offers_reach_the_backend_and_its_choices_the_client() {
    let mirror = Mirror::start(&[
        "Sec-WebSocket-Protocol: superchat",
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
    ]);
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &[mirror.address]));
    let offers = [
        ("origin", "https://app.example.test"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits, x-other"),
        ("cookie", "session=1"),
    ];
    let lines = offers.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let request =
        upgrade_request("/echo", "web.test").replace("\r\n\r\n", &format!("\r\n{lines}\r\n"));
    let mut client = Connection::open(port).unwrap();
    client.write(request).unwrap();
    let answer = client.response().unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-protocol"), Some("superchat"));
    assert_eq!(
        answer.header("sec-websocket-extensions"),
        Some("permessage-deflate; server_no_context_takeover")
    );
    let head = mirror.heads().pop().unwrap();
    for (name, value) in offers {
        assert_eq!(field(&head, name).as_deref(), Some(value));
    }
    let [key, version] =
        ["sec-websocket-key", "sec-websocket-version"].map(|name| field(&head, name));
    assert_eq!((key.is_some(), version.as_deref()), (true, Some("13")));
    let client = field(&head, "x-forwarded-for").unwrap();
    assert!(client.starts_with("127.0.0.1:"), "{client}");
}
