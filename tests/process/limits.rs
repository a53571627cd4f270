//! Clients that cost more than they should: slow, silent, greedy, many.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{
    Backend, BadBackend, Certificate, Connection, Document, Gateway, Misbehaviour, Patience,
    WebSocket, alive, cpu_time, directory, eventually, free_port, get, resident_kib, scale, stays,
};

/// More handshakes than one thread has places for (`worker/src/accept/admission.rs`).
const CROWD: usize = 400;
/// What a worker says when there is one.
const CROWDED: &str = "TLS handshakes wait";

/// Tunnels whose backend never reads, each with as much queued as the kernel takes.
fn blocked(count: usize) -> (Gateway, Vec<WebSocket>) {
    let backend = BadBackend::start(Misbehaviour::NeverReads);
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).set(
        "backendHttpSettingsCollection",
        "chat",
        "requestTimeout",
        600,
    );
    let gateway = Gateway::start(&document);
    let mut sockets: Vec<_> = (0..count).map(|_| WebSocket::open(port, "/echo")).collect();
    let writers = sockets.iter_mut();
    std::thread::scope(|scope| {
        for socket in writers {
            scope.spawn(|| socket.write_until_full());
        }
    });
    (gateway, sockets)
}

#[test]
fn a_reader_that_stops_costs_no_cpu() {
    let count = usize::try_from(scale("HOLDFAST_TEST_BLOCKED", 50)).unwrap();
    let (gateway, sockets) = blocked(count);
    let worker = gateway.worker_pid();
    let (before, span) = (cpu_time(worker), Duration::from_secs(3));
    // Asking the gateway anything would be work of its own.
    stays(span, "the worker lives", || alive(worker));
    let used = cpu_time(worker).saturating_sub(before);
    assert!(used < span / 20, "{used:?} of CPU in {span:?} for {count} blocked tunnels");
    assert_eq!(gateway.tunnels().len(), count);
    drop(sockets);
}

#[test]
fn a_reader_that_stops_costs_no_memory() {
    let (gateway, sockets) = blocked(30);
    let resident = resident_kib(gateway.worker_pid());
    assert!(resident < 100 * 1024, "{resident} KiB for 30 blocked tunnels");
    drop(sockets);
}

#[test]
fn a_reset_is_noticed_behind_data_that_nobody_reads() {
    let (gateway, sockets) = blocked(20);
    sockets.into_iter().for_each(WebSocket::reset);
    eventually(Patience::USUAL, "reset tunnels to end", || {
        gateway.tunnels().is_empty().then_some(())
    });
}

#[test]
fn headers_without_end_are_refused() {
    let backend = BadBackend::start(Misbehaviour::PlainOk);
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let mut connection = Connection::open(port).unwrap();
    connection.write("GET / HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    let line = format!("X-Long: {}\r\n", "x".repeat(8000));
    // The gateway may close while this still writes; what counts is that it answers nothing good.
    let written = (0..200).all(|_| connection.write(&line).is_ok());
    let refused = connection.response().map_or(true, |answer| answer.status >= 400);
    assert!(refused, "1.6 MB of headers were accepted (all written: {written})");
    assert_eq!(backend.requests(), 0);
}

#[test]
fn a_header_that_never_comes_does_not_hold_a_connection_for_ever() {
    let backend = Backend::start("one");
    let port = free_port();
    let document =
        Document::simple(port, &[backend.address]).holdfast("clientHeaderTimeoutInSec", 1);
    let _gateway = Gateway::start(&document);
    let mut connection = Connection::open(port).unwrap();
    connection.write("GET / HTTP/1.1\r\nHo").unwrap();
    let answer = connection.response();
    assert!(answer.map_or(true, |answer| answer.status == 408));
}

#[test]
fn bytes_that_are_no_http_get_400_and_disturb_nobody() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let worker = gateway.worker_pid();
    for garbage in
        ["\x16\x03\x01\x02\x00", "GET\r\n\r\n", "\0\0\0\0\r\n\r\n", "GET / HTTP/9\r\n\r\n"]
    {
        let mut connection = Connection::open(port).unwrap();
        connection.write(garbage).unwrap();
        let answer = connection.response().unwrap();
        assert_eq!(answer.status, 400, "{garbage:?}");
        assert!(
            answer.text().contains("<h1>400 Bad Request</h1>"),
            "{garbage:?}: {}",
            answer.text()
        );
    }
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    assert_eq!(gateway.worker_pid(), worker);
}

/// A gateway over https whose worker has one thread and gives a handshake so many seconds.
fn one_thread(handshake_seconds: u32) -> (Gateway, u16, Certificate, Backend) {
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "chat.test");
    let (backend, port) = (Backend::start("one"), free_port());
    let document = Document::new()
        .pool("chat", &[backend.address])
        .tls_site("web", port, &certificate, "chat")
        .holdfast("threads", 1)
        .holdfast("handshakeTimeoutInSec", handshake_seconds);
    (Gateway::start_in(directory, &document), port, certificate, backend)
}

/// Many who connect, say this and no more.
fn crowd(port: u16, word: &[u8]) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(word).unwrap();
        stream
    };
    (0..CROWD).map(one).collect()
}

#[test]
fn handshakes_that_stall_end_at_their_deadline_and_disturb_no_tunnel() {
    let (gateway, port, certificate, _backend) = one_thread(3);
    let mut tunnel = WebSocket::open_tls(port, "/echo", &certificate);
    let stalled = crowd(port, b"\x16\x03\x01");
    gateway.says(&["WARN", CROWDED]);
    assert!(tunnel.echoes("in a crowd"));
    // Who wants no handshake waits for none.
    assert_eq!(get(port, "/").unwrap().status, 400);
    let newcomer = eventually(Patience::LONG, "a newcomer's turn", || {
        WebSocket::shown_certificate(port, &certificate)
    });
    assert_eq!(newcomer, certificate.der);
    // Their clients are still there; it is the gateway that ends them.
    eventually(Patience::LONG, "the stalled ones to be gone", || {
        (gateway.metric("holdfast_connections_active") == 0.0).then_some(())
    });
    drop(stalled);
    assert!(tunnel.echoes("and after it"));
    assert!(WebSocket::open_tls(port, "/echo", &certificate).echoes("as ever"));
    // The next crowd is news again.
    let stalled = crowd(port, b"\x16\x03\x01");
    eventually(Patience::USUAL, "to be told of it", || {
        (gateway.has_said(CROWDED) == 2).then_some(())
    });
    drop(stalled);
    assert!(tunnel.echoes("to the end"));
}

#[test]
fn clients_that_say_nothing_keep_nobody_from_a_handshake() {
    let (gateway, port, certificate, _backend) = one_thread(3600);
    let silent = crowd(port, b"");
    eventually(Patience::USUAL, "all of them to be accepted", || {
        (gateway.count("holdfast_connections_active") >= CROWD as u64).then_some(())
    });
    assert!(WebSocket::open_tls(port, "/echo", &certificate).echoes("hello"));
    assert_eq!(gateway.has_said(CROWDED), 0);
    drop(silent);
}
