//! A WebSocket through the gateway: opening, early bytes, ends, and backends that answer an upgrade badly.

use std::time::Duration;

use crate::harness::{
    Backend, BadBackend, Connection, Document, End, Gateway, Misbehaviour, Patience, WebSocket,
    eventually, frame, free_port, scale, stays, upgrade_request,
};

fn in_front_of(misbehaviour: Misbehaviour) -> (Gateway, u16, BadBackend) {
    let backend = BadBackend::start(misbehaviour);
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).set(
        "backendHttpSettingsCollection",
        "chat",
        "requestTimeout",
        2,
    );
    (Gateway::start(&document), port, backend)
}

fn in_front_of_echo() -> (Gateway, u16, Backend) {
    let backend = Backend::start("one");
    let port = free_port();
    (Gateway::start(&Document::simple(port, &[backend.address])), port, backend)
}

fn refusal(port: u16) -> String {
    WebSocket::try_open(port, "/echo", b"").err().unwrap()
}

#[test]
fn bytes_sent_before_the_101_arrive_after_it() {
    let (_gateway, port, _backend) = in_front_of_echo();
    let mut socket = WebSocket::try_open(port, "/echo", &frame(b"early")).unwrap();
    assert_eq!(socket.receive().unwrap(), "early");
    assert!(socket.echoes("later"));
}

#[test]
fn an_upgrade_pipelined_behind_an_unread_response() {
    let backend = BadBackend::start(Misbehaviour::Large);
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let mut connection = Connection::open(port).unwrap();
    connection.write("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    connection.write(upgrade_request("/echo", "localhost")).unwrap();
    stays(Duration::from_millis(500), "no tunnel before its turn", || gateway.tunnels().is_empty());
    assert_eq!(connection.response().unwrap().body.len(), 64 << 20);
    assert_eq!(connection.response().unwrap().status, 101);
    eventually(Patience::USUAL, "the tunnel to be listed", || {
        (gateway.tunnels().len() == 1).then_some(())
    });
}

#[test]
fn a_200_to_an_upgrade_is_an_ordinary_answer() {
    let (gateway, port, _backend) = in_front_of(Misbehaviour::PlainOk);
    assert_eq!(refusal(port), "200");
    assert!(gateway.tunnels().is_empty());
}

#[test]
fn a_wrong_accept_is_a_502() {
    let (gateway, port, _backend) = in_front_of(Misbehaviour::WrongAccept);
    assert_eq!(refusal(port), "502");
    assert!(gateway.tunnels().is_empty());
}

#[test]
fn a_101_without_upgrade_is_a_502() {
    let (_gateway, port, _backend) = in_front_of(Misbehaviour::NoUpgradeHeader);
    assert_eq!(refusal(port), "502");
}

#[test]
fn a_backend_silent_to_an_upgrade_is_a_504() {
    let (_gateway, port, _backend) = in_front_of(Misbehaviour::Silent);
    assert_eq!(refusal(port), "504");
}

#[test]
fn a_backend_that_closes_half_way_is_a_502() {
    let (_gateway, port, _backend) = in_front_of(Misbehaviour::ClosesInHead);
    assert_eq!(refusal(port), "502");
}

#[test]
fn an_upgrade_with_a_body_is_refused() {
    let (_gateway, port, backend) = in_front_of(Misbehaviour::PlainOk);
    let mut connection = Connection::open(port).unwrap();
    let request = upgrade_request("/echo", "localhost")
        .replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc");
    connection.write(request).unwrap();
    assert_eq!(connection.response().unwrap().status, 400);
    assert_eq!(backend.requests(), 0);
}

#[test]
fn a_client_that_finishes_sending_still_hears_the_rest() {
    let (_gateway, port, _backend) = in_front_of_echo();
    let mut socket = WebSocket::open(port, "/echo");
    socket.send("last words");
    socket.finish_sending();
    assert_eq!(socket.receive().unwrap(), "last words");
    assert_eq!(socket.end(), Some(End::Finished));
}

#[test]
fn a_backend_that_finishes_ends_the_client_in_order() {
    let (_gateway, port, _backend) = in_front_of(Misbehaviour::FinishesAtOnce);
    let mut socket = WebSocket::open(port, "/echo");
    assert_eq!(socket.end(), Some(End::Finished));
}

#[test]
fn a_reset_client_leaves_no_tunnel() {
    let (gateway, port, _backend) = in_front_of_echo();
    WebSocket::open(port, "/echo").reset();
    eventually(Patience::USUAL, "the reset tunnel to end", || {
        gateway.tunnels().is_empty().then_some(())
    });
}

#[test]
fn silence_for_the_request_timeout_ends_a_tunnel() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).set(
        "backendHttpSettingsCollection",
        "chat",
        "requestTimeout",
        2,
    );
    let gateway = Gateway::start(&document);
    let [mut quiet, mut busy] = [(); 2].map(|()| WebSocket::open(port, "/echo"));
    stays(Duration::from_secs(4), "a busy tunnel lives", || busy.echoes("ping"));
    assert!(quiet.end().is_some());
    assert_eq!(gateway.tunnels().len(), 1);
}

#[test]
fn a_tunnel_listed_can_be_closed() {
    let (gateway, port, _backend) = in_front_of_echo();
    let mut socket = WebSocket::open(port, "/echo");
    let tunnel = eventually(Patience::USUAL, "the tunnel to be listed", || gateway.tunnels().pop());
    let client = tunnel["client"].as_str().unwrap();
    assert!(client.ends_with(&format!(":{}", socket.local_port())), "{client}");
    gateway.must(&["close", tunnel["id"].as_str().unwrap()]);
    assert!(socket.end().is_some());
    eventually(Patience::USUAL, "the tunnel to be gone", || {
        gateway.tunnels().is_empty().then_some(())
    });
}

#[test]
fn two_thousand_tunnels_echo_at_once() {
    let (backend, port) = (Backend::start("one"), free_port());
    // The first is silent until the last is open: no limit on that.
    let document = Document::simple(port, &[backend.address]).set(
        "backendHttpSettingsCollection",
        "chat",
        "requestTimeout",
        3600,
    );
    let gateway = Gateway::start(&document);
    let count = scale("HOLDFAST_TEST_TUNNELS", 2000);
    let mut sockets: Vec<_> = (0..count).map(|_| WebSocket::open(port, "/echo")).collect();
    for socket in &mut sockets {
        socket.send("one of many");
    }
    assert!(sockets.iter_mut().all(|socket| socket.receive().is_ok_and(|t| t == "one of many")));
    assert_eq!(gateway.tunnels().len(), sockets.len());
    drop(sockets);
    eventually(Patience::LONG, "all tunnels to end", || gateway.tunnels().is_empty().then_some(()));
}
