//! Which backend a request reaches, and what it and the client see.

use std::collections::BTreeSet;

use crate::harness::{
    Backend, BadBackend, Connection, Document, Gateway, Misbehaviour, WebSocket, free_port, get,
    get_host,
};

/// What a client sees of a backend that misbehaves, asked plainly.
fn status_of(misbehaviour: Misbehaviour) -> u16 {
    let backend = BadBackend::start(misbehaviour);
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).set(
        "backendHttpSettingsCollection",
        "chat",
        "requestTimeout",
        1,
    );
    let _gateway = Gateway::start(&document);
    get(port, "/anything").unwrap().status
}

#[test]
fn hosts_choose_sites() {
    let [one, two] = ["one", "two"].map(Backend::start);
    let port = free_port();
    let document = Document::new()
        .pool("one", &[one.address])
        .pool("two", &[two.address])
        .host_site("exact", port, "one.test", "one")
        .host_site("wild", port, "*.two.test", "two");
    let _gateway = Gateway::start(&document);
    assert_eq!(get_host(port, "/whoami", "ONE.test").unwrap().text(), "one");
    assert_eq!(get_host(port, "/whoami", "a.two.test").unwrap().text(), "two");
    assert_eq!(get_host(port, "/whoami", "a.two.test:8080").unwrap().text(), "two");
    assert_eq!(get_host(port, "/whoami", "three.test").unwrap().status, 404);
}

#[test]
fn paths_choose_pools() {
    let [one, two] = ["one", "two"].map(Backend::start);
    let port = free_port();
    let document = Document::new()
        .pool("one", &[one.address])
        .pool("two", &[two.address])
        .path_site("web", port, &[("/whoami*", "two")], "one");
    let _gateway = Gateway::start(&document);
    assert_eq!(get(port, "/whoami").unwrap().text(), "two");
    assert_eq!(get(port, "/healthz").unwrap().status, 200);
}

#[test]
fn backends_of_a_pool_take_turns() {
    let backends = Backend::group(&["one", "two", "three"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &addresses));
    let names: BTreeSet<_> = (0..12).map(|_| get(port, "/whoami").unwrap().text()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn an_empty_pool_answers_502() {
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &[]));
    assert_eq!(get(port, "/").unwrap().status, 502);
    assert_eq!(WebSocket::try_open(port, "/echo", b"").err().as_deref(), Some("502"));
}

#[test]
fn a_keep_alive_connection_carries_many_requests() {
    let backend = Backend::start("one");
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let mut connection = Connection::open(port).unwrap();
    for _ in 0..50 {
        assert_eq!(connection.get("/whoami", "localhost").unwrap().text(), "one");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::start("one");
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let mut connection = Connection::open(port).unwrap();
    let known = "GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let unknown = "GET /no-such-page HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.write(format!("{known}{unknown}{known}")).unwrap();
    let statuses = [(); 3].map(|()| connection.response().unwrap().status);
    assert_eq!(statuses, [200, 404, 200]);
}

#[test]
fn a_silent_backend_answers_504() {
    assert_eq!(status_of(Misbehaviour::Silent), 504);
}

#[test]
fn garbage_from_a_backend_answers_502() {
    assert_eq!(status_of(Misbehaviour::Garbage), 502);
}

#[test]
fn a_backend_that_closes_in_its_head_answers_502() {
    assert_eq!(status_of(Misbehaviour::ClosesInHead), 502);
}

#[test]
fn a_backend_that_closes_in_its_body_never_looks_complete() {
    let backend = BadBackend::start(Misbehaviour::ClosesInBody);
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    assert!(get(port, "/").is_err());
}

#[test]
fn two_content_lengths_or_a_length_beside_chunks_reach_no_backend() {
    let backend = BadBackend::start(Misbehaviour::PlainOk);
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    for smuggled in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: +1",
        "Transfer-Encoding: chunked, identity",
    ] {
        let mut connection = Connection::open(port).unwrap();
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{smuggled}\r\n\r\nx");
        connection.write(request).unwrap();
        assert_eq!(connection.response().unwrap().status, 400, "{smuggled}");
    }
    assert_eq!(backend.requests(), 0);
}
