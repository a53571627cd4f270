//! Requests that go too far: each is refused with its status, on a real socket, and counted by its reason.

use crate::harness::{
    Backend, BadBackend, Connection, Document, Gateway, Misbehaviour, Patience, eventually,
    free_port, get,
};

/// How often requests were refused for a reason.
fn refused(gateway: &Gateway, reason: &str) -> u64 {
    let text = gateway.status_page("/metrics").text();
    let begin = format!("holdfast_requests_refused_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&begin)?.parse().ok()).unwrap_or(0)
}

/// The status of one answer to these bytes.
fn status(port: u16, bytes: &str) -> u16 {
    let mut connection = Connection::open(port).unwrap();
    connection.write(bytes).unwrap();
    connection.response().unwrap().status
}

#[test]
fn refusals_are_counted_by_reason() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::new()
        .pool("chat", &[backend.address])
        .pool("nobody", &[])
        .host_site("web", port, "web.test", "chat")
        .host_site("empty", port, "empty.test", "nobody");
    let gateway = Gateway::start(&document);
    let web = "HTTP/1.1\r\nHost: web.test\r\n";
    let cases = [
        ("no_site", "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n".to_owned(), 404),
        ("no_backend", "GET / HTTP/1.1\r\nHost: empty.test\r\n\r\n".to_owned(), 502),
        ("host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("host", "GET / HTTP/1.1\r\nHost: a:b:c\r\n\r\n".to_owned(), 400),
        ("not_http", "GET\r\n\r\n".to_owned(), 400),
        ("target", format!("GET web.test:80 {web}\r\n"), 400),
        ("duplicate_field", format!("GET / {web}If-Range: a\r\nIf-Range: a\r\n\r\n"), 400),
        ("framing", format!("POST / {web}\r\n"), 400),
        ("websocket", format!("GET / {web}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 400),
        ("method_not_allowed", format!("TRACE / {web}\r\n"), 405),
        ("uri_too_long", format!("GET /{} {web}\r\n", "a".repeat(32 * 1024)), 414),
        ("header_too_large", format!("GET / {web}A: {}\r\n\r\n", "a".repeat(32 * 1024)), 431),
        ("body_too_large", format!("PUT / {web}Content-Length: 4294967297\r\n\r\n"), 413),
    ];
    for (reason, bytes, code) in &cases {
        assert_eq!(status(port, bytes), *code, "{reason}");
    }
    for (reason, ..) in &cases {
        let wanted = cases.iter().filter(|case| case.0 == *reason).count() as u64;
        eventually(Patience::USUAL, reason, || (refused(&gateway, reason) == wanted).then_some(()));
    }
    // What was answered well is no refusal.
    let before = gateway.metric("holdfast_requests_refused_total");
    let mut connection = Connection::open(port).unwrap();
    assert_eq!(connection.get("/whoami", "web.test").unwrap().text(), "one");
    let answered = || gateway.metric("holdfast_requests_total") > before;
    eventually(Patience::USUAL, "the good one to be counted", || answered().then_some(()));
    assert_eq!(gateway.metric("holdfast_requests_refused_total"), before);
    assert_eq!(cases.len() as f64, before);
}

#[test]
fn a_head_that_does_not_come_is_a_408_and_a_connection_that_idles_just_ends() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address])
        .holdfast("clientHeaderTimeoutInSec", 1)
        .holdfast("keepAliveTimeoutInSec", 1);
    let gateway = Gateway::start(&document);
    let mut slow = Connection::open(port).unwrap();
    slow.write("GET / HTTP/1.1\r\nHost: loc").unwrap();
    let answer = slow.response().unwrap();
    assert_eq!(answer.status, 408);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(slow.read_byte().unwrap(), 0);
    eventually(Patience::USUAL, "it to be counted", || {
        (refused(&gateway, "request_timeout") == 1).then_some(())
    });
    let mut idle = Connection::open(port).unwrap();
    assert_eq!(idle.get("/whoami", "localhost").unwrap().text(), "one");
    assert_eq!(idle.read_byte().unwrap(), 0, "an end without a word");
    assert_eq!(refused(&gateway, "request_timeout"), 1);
}

#[test]
fn a_body_that_is_too_large_is_refused_before_and_while_it_comes() {
    let backend = BadBackend::start(Misbehaviour::Silent);
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).holdfast("maxBodyBytes", 10);
    let gateway = Gateway::start(&document);
    let head = "PUT / HTTP/1.1\r\nHost: localhost\r\n";
    // Before a byte of it, and before a backend has heard of it.
    assert_eq!(status(port, &format!("{head}Content-Length: 11\r\n\r\n")), 413);
    assert_eq!(backend.requests(), 0);
    let chunks =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n");
    assert_eq!(status(port, &chunks), 413);
    eventually(Patience::USUAL, "both to be counted", || {
        (refused(&gateway, "body_too_large") == 2).then_some(())
    });
}

#[test]
fn plain_http_on_an_https_port_is_told_so_and_counted() {
    let directory = crate::harness::directory();
    let certificate = crate::harness::Certificate::make(directory.path(), "site", "chat.test");
    let (backend, port) = (Backend::start("one"), free_port());
    let document = Document::new().pool("chat", &[backend.address]).tls_site(
        "web",
        port,
        &certificate,
        "chat",
    );
    let gateway = Gateway::start_in(directory, &document);
    let answer = get(port, "/").unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("HTTPS port"), "{}", answer.text());
    eventually(Patience::USUAL, "it to be counted", || {
        (refused(&gateway, "http_to_https") == 1).then_some(())
    });
}
