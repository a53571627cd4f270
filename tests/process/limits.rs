//! Clients that cost more than they should: slow, silent, greedy, many.

use std::time::Duration;

use crate::harness::{
    Backend, BadBackend, Connection, Document, Gateway, Misbehaviour, Patience, WebSocket, alive,
    cpu_time, eventually, free_port, get, resident_kib, scale, stays,
};

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
