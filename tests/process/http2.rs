//! HTTP/2 towards clients: what differs from HTTP/1.1, what a hostile client may cost, and `WebSockets` over it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{
    Backend, Certificate, Document, Frames, Gateway, Http2, Patience, Peer, WebSocket, directory,
    eventually, free_port, tools,
};

mod clients;
mod ends;
mod refusals;

/// A gateway with one TLS site that offers HTTP/2, and its certificate.
struct Stage {
    gateway: Gateway,
    port: u16,
    certificate: Certificate,
    document: Document,
    _directory: TempDir,
}

impl Stage {
    fn before(backend: SocketAddr, change: impl FnOnce(Document) -> Document) -> Self {
        let directory = directory();
        let certificate = Certificate::make(directory.path(), "site", "chat.test");
        let port = free_port();
        let mut document = change(Document::new().pool("chat", &[backend]).tls_site(
            "secure",
            port,
            &certificate,
            "chat",
        ));
        document.0["properties"]["enableHttp2"] = json!(true);
        let gateway = Gateway::start(&document);
        Self { gateway, port, certificate, document, _directory: directory }
    }

    fn connect(&self) -> Http2 {
        Http2::connect(self.port, &self.certificate)
    }

    fn frames(&self) -> Frames {
        Frames::connect(self.port, &self.certificate)
    }
}

/// A backend that tells what it was asked and answers with the body that it got.
fn telling_backend() -> (SocketAddr, Receiver<String>) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let length = head
                        .lines()
                        .find_map(|line| {
                            line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
                        })
                        .unwrap_or(0);
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    if !head.contains(" /healthz ") {
                        tell.send(head).unwrap();
                    }
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                         Keep-Alive: timeout=5\r\n\r\n"
                    );
                    let stream = reader.get_mut();
                    stream
                        .write_all(answer.as_bytes())
                        .and_then(|()| stream.write_all(&body))
                        .unwrap();
                }
            });
        }
    });
    (address, told)
}

#[test]
fn http2_is_spoken_where_it_is_asked_for_and_not_elsewhere() {
    let backend = Backend::start("one");
    let stage = Stage::before(backend.address, |document| document);
    let curl = |version: &str, options: &[&str]| {
        let to = format!("chat.test:{}:127.0.0.1", stage.port);
        let url = format!("https://chat.test:{}/whoami", stage.port);
        let output = Command::new("curl")
            .args(["--silent", version, "--resolve", &to, "--write-out", " %{http_version}"])
            .arg("--cacert")
            .arg(&stage.certificate.root_file)
            .args(options)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl("--http2", &[]), "one 2");
    assert_eq!(curl("--http1.1", &[]), "one 1.1");
    assert!(WebSocket::open_tls(stage.port, "/echo", &stage.certificate).echoes("as ever"));

    let mut open = stage.connect();
    let mut without = stage.document.clone();
    without.0["properties"]["enableHttp2"] = json!(false);
    stage.gateway.apply(&without);
    assert_eq!(curl("--http2", &[]), "one 1.1");
    assert_eq!(open.get("/whoami").unwrap().body, b"one", "an open connection stays what it is");
}

#[test]
fn a_request_over_http2_is_like_any_other_for_the_backend() {
    let (backend, told) = telling_backend();
    let stage = Stage::before(backend, |document| document);
    let mut client = stage.connect();
    let request = client
        .request("POST", "/a/b?c=d")
        .header("cookie", "one=1")
        .header("cookie", "two=2")
        .header("content-length", "100000")
        .header("x-forwarded-proto", "gopher")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = client.begin(request, false).unwrap();
    body.send_data(vec![b'x'; 100_000].into(), true).unwrap();
    let answer = client.finish(response).unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 100_000));
    for name in ["connection", "keep-alive", "x-hop", "transfer-encoding"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    let head = told.recv().unwrap().to_lowercase();
    for line in [
        "post /a/b?c=d http/1.1",
        "host: chat.test",
        "cookie: one=1; two=2",
        "x-forwarded-proto: https",
        "x-original-url: /a/b?c=d",
        "content-length: 100000",
    ] {
        assert!(head.lines().any(|found| found == line), "{line}: {head}");
    }
    let unannounced = client.request("PUT", "/").body(()).unwrap();
    let (_response, mut body) = client.begin(unannounced, false).unwrap();
    body.send_data("abc".into(), true).unwrap();
    let head = told.recv().unwrap().to_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
}

#[test]
fn what_is_wrong_with_a_request_is_answered_on_its_own_stream() {
    let backend = Backend::start("one");
    let stage = Stage::before(backend.address, |document| document);
    let mut client = stage.connect();
    let long = "v".repeat(9000);
    for (request, status) in [
        (client.request("GET", "/whoami").header("host", "other.test"), 400),
        (client.request("GET", "/whoami").header("x-long", &long), 431),
        (client.request("TRACE", "/whoami"), 405),
        (client.request("GET", "/whoami").uri("https://nobody.test/"), 404),
        (client.request("GET", "/nothing"), 404),
    ] {
        let request = request.body(()).unwrap();
        assert_eq!(client.ask(request).unwrap().status, status);
        assert_eq!(client.get("/whoami").unwrap().body, b"one");
    }
    // More fields than hyper reads.
    let mut request = client.request("GET", "/whoami");
    for index in 0..10 {
        request = request.header(format!("x-{index}"), "v".repeat(4000));
    }
    let refused = client.ask(request.body(()).unwrap());
    assert!(refused.map_or(true, |answer| answer.status == 431));
    assert_eq!(client.get("/whoami").unwrap().body, b"one");
}

#[test]
fn many_requests_share_a_connection_and_the_thousandth_is_its_last() {
    let backend = Backend::start("one");
    let stage = Stage::before(backend.address, |document| document);
    let mut client = stage.connect();
    let mut answered = 0;
    while answered < 1000 {
        let batch: Vec<_> = (0..50)
            .map(|_| {
                let request = client.request("GET", "/whoami").body(()).unwrap();
                client.begin(request, true).unwrap().0
            })
            .collect();
        for response in batch {
            assert_eq!(client.finish(response).unwrap().body, b"one");
            answered += 1;
        }
    }
    assert!(client.is_ended_by_the_server());
    assert_eq!(stage.connect().get("/whoami").unwrap().body, b"one");
}

#[test]
fn a_restart_ends_no_stream_and_the_next_connection_is_the_successors() {
    let (backend, told) = telling_backend();
    let stage = Stage::before(backend, |document| document);
    let mut client = stage.connect();
    let request = client.request("POST", "/").header("content-length", "6").body(()).unwrap();
    let (response, mut body) = client.begin(request, false).unwrap();
    body.send_data("abc".into(), false).unwrap();
    let worker = stage.gateway.worker_pid();
    // The backend reads the head at once, the body later.
    let _ = &told;
    stage.gateway.must(&["restart"]);
    assert_ne!(stage.gateway.worker_pid(), worker);
    body.send_data("def".into(), true).unwrap();
    assert_eq!(client.finish(response).unwrap().body, b"abcdef");
    assert!(client.is_ended_by_the_server());
    assert_eq!(stage.connect().get("/").unwrap().status, 200);
}

#[test]
fn a_client_that_takes_its_requests_back_is_cut_off_and_others_are_not() {
    let backend = Backend::start("one");
    let stage = Stage::before(backend.address, |document| document);
    let mut witness = WebSocket::open_tls(stage.port, "/echo", &stage.certificate);
    let mut other = stage.connect();
    let mut hostile = stage.frames();
    let get = Frames::get("chat.test");
    let mut stream = 1;
    // END_HEADERS and END_STREAM, then RST_STREAM with CANCEL; in pieces, so that each is accepted before it is reset.
    while hostile.write(1, 5, stream, &get).is_ok() {
        if hostile.write(3, 0, stream, &[0, 0, 0, 8]).is_err() {
            break;
        }
        stream += 2;
        assert!(stream < 200_000, "it goes on and on");
    }
    hostile.end();
    assert!(witness.echoes("still here"));
    assert_eq!(other.get("/whoami").unwrap().body, b"one");
}

#[test]
fn a_flood_of_frames_that_carry_nothing_is_cut_off() {
    let backend = Backend::start("one");
    let stage = Stage::before(backend.address, |document| document);
    let mut witness = WebSocket::open_tls(stage.port, "/echo", &stage.certificate);
    // PING, SETTINGS, an empty DATA's worth of PRIORITY, WINDOW_UPDATE.
    for (kind, payload) in [
        (6, &[0; 8][..]),
        (4, &[0, 3, 0, 0, 0, 100][..]),
        (2, &[0, 0, 0, 0, 1][..]),
        (8, &[0, 0, 0, 1][..]),
    ] {
        let mut hostile = stage.frames();
        let stream = u32::from(kind == 2) * 3;
        let mut sent = 0;
        while hostile.write(kind, 0, stream, payload).is_ok() {
            sent += 1;
            assert!(sent < 2_000_000, "frames of kind {kind} go on and on");
        }
        hostile.end();
        assert!(witness.echoes("still here"), "kind {kind}");
    }
}

#[test]
fn a_head_without_end_is_cut_off() {
    let backend = Backend::start("one");
    let stage =
        Stage::before(backend.address, |document| document.holdfast("clientHeaderTimeoutInSec", 1));
    let mut witness = WebSocket::open_tls(stage.port, "/echo", &stage.certificate);
    // CONTINUATION after CONTINUATION (CVE-2024-27316).
    let mut hostile = stage.frames();
    hostile.write(1, 1, 1, &Frames::get("chat.test")).unwrap();
    let mut sent = 0;
    // A literal field without indexing, `a: b`.
    while hostile.write(9, 0, 1, &[0, 1, b'a', 1, b'b'].repeat(100)).is_ok() {
        sent += 1;
        assert!(sent < 100_000, "it goes on and on");
    }
    hostile.end();
    // One that begins and says no more.
    let mut slow = stage.frames();
    slow.write(1, 1, 1, &Frames::get("chat.test")).unwrap();
    slow.end();
    // And one that says nothing at all.
    stage.frames().end();
    assert!(witness.echoes("still here"));
}

#[test]
fn a_websocket_over_http2_is_refused_unless_it_is_asked_for() {
    let backend = Backend::start("one");
    let stage = Stage::before(backend.address, |document| document);
    let mut client = stage.connect();
    let plain = client.request("CONNECT", "/echo").body(()).unwrap();
    assert!(client.ask(plain).map_or(true, |answer| answer.status >= 400));
    assert_eq!(stage.connect().get("/whoami").unwrap().body, b"one");
}

#[test]
fn a_websocket_over_http2_echoes_is_listed_and_drains() {
    let backend = Backend::start("one");
    let stage =
        Stage::before(backend.address, |document| document.holdfast("webSocketsOverHttp2", true));
    let mut client = stage.connect();
    // The server's settings say that it may.
    assert_eq!(client.get("/whoami").unwrap().body, b"one");
    let mut socket = client.open_websocket("/echo").unwrap();
    assert!(client.echoes(&mut socket, "hello"));
    assert_eq!(client.open_websocket("/nothing").map(|_| ()), Err(404));
    let listed = eventually(Patience::USUAL, "the tunnel", || stage.gateway.tunnels().pop());
    assert_eq!(listed["pinned"], "not_tcp");

    let worker = stage.gateway.worker_pid();
    stage.gateway.must(&["restart"]);
    assert_ne!(stage.gateway.worker_pid(), worker);
    assert!(client.echoes(&mut socket, "over a restart"), "it drains, it does not end");
    assert_eq!(stage.gateway.tunnels().len(), 1);

    let id = listed["id"].as_str().unwrap();
    stage.gateway.must(&["close", id]);
    assert!(client.end_of(&mut socket));
    assert!(client.is_ended_by_the_server());
    stage.gateway.says(&["tunnel ended", "cause=\"admin\""]);
}

#[test]
fn a_websocket_over_http2_reaches_a_backend_that_speaks_tls() {
    let directory = directory();
    let own = Certificate::make(directory.path(), "own", "backend.test");
    let Some(tools) = tools("HTTP/2 to an https backend") else { return };
    let backend = Backend::start_peer(&tools, "ws_server.py", Some(&own), Peer::default());
    let stage = Stage::before(backend.address, |document| {
        document.with_https_backends("chat").holdfast("webSocketsOverHttp2", true)
    });
    let mut client = stage.connect();
    assert_eq!(client.get("/healthz").unwrap().status, 200);
    let mut socket = client.open_websocket("/").unwrap();
    assert!(client.echoes(&mut socket, "sealed"));
    assert!(client.echoes(&mut socket, "and again"));
}
