//! Opening handshakes that a backend does not accept, acceptances that nobody asked for, and tunnels that do not come
//! about: what the client, the access log and the counters say is the same, over HTTP/1.1 and over HTTP/2.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Stage;
use crate::harness::{
    Backend, Patience, directory, eventually, first_free_descriptor, limit_descriptors,
    read_response, tls, upgrade_request,
};

/// What a backend says, its status as the log has it, and what a client of either version gets for it.
struct Row {
    answer: &'static str,
    handshake: bool,
    backend: &'static str,
    clients: [u16; 2],
}

const fn row(
    answer: &'static str,
    handshake: bool,
    backend: &'static str,
    clients: [u16; 2],
) -> Row {
    Row { answer, handshake, backend, clients }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain";
const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone";
const ELSEWHERE: &str =
    "HTTP/1.1 302 Found\r\nLocation: https://else.test/\r\nContent-Length: 0\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";
const SWITCH_WITH_LENGTH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nContent-Length: 7\r\n\r\n";
const WRONG_ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
const NO_ACCEPT: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const TWO_ACCEPTS: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";
const OTHER_PROTOCOL: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";
const NO_PROTOCOL: &str =
    "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";

const ROWS: [Row; 12] = [
    row(OK, true, "200", [200, 502]),
    row(EMPTY, true, "204", [204, 502]),
    row(NOT_FOUND, true, "404", [404, 404]),
    row(ELSEWHERE, true, "302", [302, 302]),
    row(WRONG_ACCEPT, true, "101", [502, 502]),
    row(NO_ACCEPT, true, "101", [502, 502]),
    row(TWO_ACCEPTS, true, "101", [502, 502]),
    row(OTHER_PROTOCOL, true, "101", [502, 502]),
    row(NO_PROTOCOL, true, "101", [502, 502]),
    row(SWITCH, false, "101", [502, 502]),
    // These are acceptances. A length is none of a 101's, and does not go on.
    row(SWITCH, true, "101", [101, 200]),
    row(SWITCH_WITH_LENGTH, true, "101", [101, 200]),
];

/// A backend that answers `/N` as row N says.
fn rows_backend() -> SocketAddr {
    fn serve(mut stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if lines.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let path = head.split([' ', '?']).nth(1).unwrap_or_default();
            let row = path[1..].parse().ok().and_then(|number: usize| ROWS.get(number));
            let key = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
            });
            let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
            let answer = row.map_or(EMPTY, |row| row.answer).replace("{accept}", &accept);
            stream.write_all(answer.as_bytes())?;
        }
    }
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            std::thread::spawn(move || drop(serve(&stream)));
        }
    });
    address
}

fn logging(backend: SocketAddr, log: &Path) -> Stage {
    Stage::before(backend, |document| {
        document
            .holdfast("webSocketsOverHttp2", true)
            .holdfast("accessLog", json!({"destination": "file", "file": log}))
    })
}

/// The line of the request for a target.
fn line_of(log: &Path, target: &str) -> Value {
    eventually(Patience::USUAL, "its line", || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["properties"]["originalRequestUriWithArgs"] == target)
    })
}

/// Asks over HTTP/1.1, and over HTTP/2.
fn ask(stage: &Stage, target: &str, row: &Row, multiplexed: bool) -> u16 {
    if multiplexed {
        let mut client = stage.connect();
        // What it may do, it learns from the gateway's settings.
        assert_eq!(client.get("/ready").unwrap().status, 204);
        return if row.handshake {
            client.open_websocket(target).map_or_else(|status| status, |_| 200)
        } else {
            client.get(target).unwrap().status
        };
    }
    let mut stream = BufReader::new(tls(stage.port, &stage.certificate).unwrap());
    let request = if row.handshake {
        upgrade_request(target, "chat.test")
    } else {
        format!("GET {target} HTTP/1.1\r\nHost: chat.test\r\n\r\n")
    };
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let answer = read_response(&mut stream, false).unwrap();
    assert!(answer.status != 101 || answer.header("content-length").is_none());
    answer.status
}

/// Requests by class of their answers, as the counters have them.
fn counted(stage: &Stage) -> BTreeMap<String, u64> {
    let page = stage.gateway.status_page("/metrics").text();
    let rows = page.lines().filter(|line| line.starts_with("holdfast_requests_total{"));
    let rows = rows.map(|line| {
        let (_, class) = line.split_once("code_class=\"").unwrap();
        (class[..3].to_owned(), line.rsplit(' ').next().unwrap().parse().unwrap())
    });
    rows.filter(|(_, count)| *count != 0).collect()
}

#[test]
fn a_handshake_that_fails_is_the_same_to_the_client_the_log_and_the_counters() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let stage = logging(rows_backend(), &log);
    let mut classes = BTreeMap::<String, u64>::new();
    let mut refused = 0.0;
    for (number, row) in ROWS.iter().enumerate() {
        for (wanted, multiplexed) in row.clients.into_iter().zip([false, true]) {
            let target = format!("/{number}?multiplexed={multiplexed}");
            let story = format!("{target}: {}", row.answer);
            let status = ask(&stage, &target, row, multiplexed);
            assert_eq!(status, wanted, "{story}");
            // An open tunnel is a 101 to everybody but a client of HTTP/2, which knows none.
            let is_open = row.clients[0] == 101;
            let told = if is_open { 101 } else { status };
            let line = line_of(&log, &target);
            assert_eq!(line["properties"]["httpStatus"], told, "{story}");
            assert_eq!(line["properties"]["serverStatus"], row.backend, "{story}");
            assert_eq!(
                line["properties"].get("error_info").unwrap() != "ERRORINFO_NO_ERROR",
                told == 502
            );
            *classes.entry(format!("{}xx", told / 100)).or_default() += 1;
            if multiplexed {
                // Whether it was ready.
                *classes.entry("2xx".to_owned()).or_default() += 1;
            }
            refused += f64::from(u8::from(told == 502));
        }
    }
    eventually(Patience::USUAL, "the same in the counters", || {
        let reason = "holdfast_requests_refused_total";
        (counted(&stage) == classes && stage.gateway.metric(reason) == refused).then_some(())
    });
}

#[test]
fn a_websocket_over_http2_for_which_there_is_no_descriptor_is_refused_and_said_to_be() {
    let directory = directory();
    let log = directory.path().join("access.log");
    let backend = Backend::start("one");
    let stage = logging(backend.address, &log);
    let mut client = stage.connect();
    assert_eq!(client.get("/whoami").unwrap().body, b"one");
    let worker = stage.gateway.worker_pid();
    // One for the backend, none for the two ends between the stream and the engine.
    limit_descriptors(worker, first_free_descriptor(worker) + 1);
    assert_eq!(client.open_websocket("/echo").map(|_| ()), Err(503));
    limit_descriptors(worker, 4096);
    let line = line_of(&log, "/echo");
    assert_eq!(line["properties"]["httpStatus"], 503);
    assert_eq!(line["properties"]["serverStatus"], "101");
    assert_eq!(line["properties"]["error_info"], "ERRORINFO_GATEWAY_BUSY");
    let mut socket = client.open_websocket("/echo").unwrap();
    assert!(client.echoes(&mut socket, "now there is one"));
    eventually(Patience::USUAL, "the same in the counters", || {
        let wanted = [("1xx", 1), ("2xx", 1), ("5xx", 1)];
        let wanted = wanted.map(|(class, count)| (class.to_owned(), count));
        (counted(&stage) == BTreeMap::from(wanted)).then_some(())
    });
}
