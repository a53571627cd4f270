//! Behind another balancer: whom it speaks for is the client, and nobody else can say so.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::harness::{
    Backend, BadBackend, Certificate, Document, Gateway, Misbehaviour, Patience, directory,
    eventually, frame, free_port, kill9, upgrade_request,
};

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
const CLIENT: &str = "192.0.2.7:5000";
const GET: &[u8] = b"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Version 2, of the same client, with a TLV behind the addresses.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f".to_vec();
    header.extend_from_slice(&[192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb, 4, 0, 0]);
    header
}

/// A LOCAL header: a balancer's own check.
fn local() -> Vec<u8> {
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()
}

fn required() -> Value {
    json!({"proxyProtocol": "required", "trustedProxies": ["127.0.0.0/8"]})
}

fn in_front_of(backend: &Backend, port: u16, own: Value) -> Gateway {
    let document =
        Document::simple(port, &[backend.address]).set("httpListeners", "web", "holdfast", own);
    Gateway::start(&document)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// What comes until the connection ends, by a FIN or a reset.
fn rest(stream: &mut impl Read) -> String {
    let mut heard = Vec::new();
    if let Err(error) = stream.read_to_end(&mut heard) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    String::from_utf8_lossy(&heard).into_owned()
}

/// Says something in pieces, each in a segment of its own, and reads what comes of it.
fn say(port: u16, pieces: &[&[u8]]) -> String {
    let mut stream = connect(port);
    for piece in pieces {
        // The gateway may have had enough.
        drop(stream.write_all(piece));
    }
    rest(&mut stream)
}

/// Opens an echo's WebSocket behind a header.
fn open(mut stream: impl Read + Write, header: &str) -> impl Read + Write {
    let request = upgrade_request("/echo", "localhost").replace("\r\n\r\n", header);
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

fn echoes(stream: &mut (impl Read + Write), text: &str) {
    stream.write_all(&frame(text.as_bytes())).unwrap();
    let mut back = vec![0; text.len() + 2];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back[2..], text.as_bytes());
}

fn secured(
    mut stream: TcpStream,
    certificate: &Certificate,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(certificate.host.clone()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream).unwrap();
    }
    StreamOwned::new(session, stream)
}

#[test]
fn both_versions_are_read_and_nothing_behind_them_is_lost() {
    let (backend, port) = (Backend::start("one"), free_port());
    let _gateway = in_front_of(&backend, port, required());
    for header in [LINE.to_vec(), binary(), local(), b"PROXY UNKNOWN\r\n".to_vec()] {
        let whole = [&header[..], GET].concat();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        for pieces in [&[&whole[..]][..], &[&header[..], GET], &bytes] {
            let answer = say(port, pieces);
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("one"),
                "{answer}"
            );
        }
    }
}

#[test]
fn what_begins_without_a_header_or_with_a_broken_one_is_closed() {
    let (backend, port) = (BadBackend::start(Misbehaviour::PlainOk), free_port());
    let document = Document::simple(port, &[backend.address])
        .set("httpListeners", "web", "holdfast", required())
        .holdfast("handshakeTimeoutInSec", 1);
    let _gateway = Gateway::start(&document);
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat();
    let huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
    let version = b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c            ".to_vec();
    for header in [
        &b""[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000\r\n",
        b"proxy unknown\r\n",
        &long,
        &huge,
        &version,
    ] {
        assert_eq!(say(port, &[header, GET]), "");
    }
    // One that does not come to its end has the time of a handshake.
    for begun in [&b""[..], &LINE[..20], &binary()[..20]] {
        assert_eq!(say(port, &[begun]), "");
    }
    assert_eq!(backend.requests(), 0);
}

#[test]
fn nobody_who_is_not_trusted_can_be_somebody_else() {
    let backend = BadBackend::start(Misbehaviour::PlainOk);
    let (port, plain) = (free_port(), free_port());
    let own = json!({"proxyProtocol": "required", "trustedProxies": ["10.0.0.0/8", "::1"]});
    let document = Document::simple(port, &[backend.address])
        .set("httpListeners", "web", "holdfast", own)
        .site("plain", plain, "chat");
    let gateway = Gateway::start(&document);
    for header in [LINE, &binary(), &local(), b""] {
        assert_eq!(say(port, &[header, GET]), "");
    }
    assert_eq!(backend.requests(), 0);
    eventually(Patience::USUAL, "the log to say so", || {
        gateway.log().contains("not among trustedProxies").then_some(())
    });
    // Where no header is expected, one is no request.
    assert!(say(plain, &[LINE, GET]).starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_tunnel_shows_its_real_client_also_after_its_worker_was_killed() {
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "localhost");
    let log = directory.path().join("access.log");
    let backend = Backend::start("one");
    let (port, secure) = (free_port(), free_port());
    let document = Document::simple(port, &[backend.address])
        .tls_site("secure", secure, &certificate, "chat")
        .set("httpListeners", "web", "holdfast", required())
        .set("httpListeners", "secure", "holdfast", required())
        .holdfast("accessLog", json!({"file": log}));
    let gateway = Gateway::start(&document);
    let mut plain = connect(port);
    plain.write_all(LINE).unwrap();
    let mut plain = open(plain, "\r\n\r\n");
    let mut sealed = connect(secure);
    // In the segment of the first TLS record, or not.
    sealed.write_all(&binary()).unwrap();
    let mut sealed = open(secured(sealed, &certificate), "\r\n\r\n");
    let clients = || -> Vec<String> {
        let tunnels = gateway.tunnels();
        tunnels.iter().map(|tunnel| tunnel["client"].as_str().unwrap().to_owned()).collect()
    };
    for turn in ["hello", "still here"] {
        echoes(&mut plain, turn);
        echoes(&mut sealed, turn);
        assert_eq!(clients(), [CLIENT, CLIENT]);
        let workers = gateway.worker_pids();
        for pid in &workers {
            kill9(*pid);
        }
        eventually(Patience::USUAL, "the tunnels to be taken over", || {
            let now = gateway.worker_pids();
            let moved = now.len() == 2 && now.iter().all(|pid| !workers.contains(pid));
            (moved && clients().len() == 2).then_some(())
        });
    }
    drop((plain, sealed));
    eventually(Patience::USUAL, "the lines of both tunnels' ends", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let ends = text.lines().filter(|line| line.contains("tunnelEndCause"));
        let ours =
            ends.filter(|line| line.contains("\"clientIP\":\"192.0.2.7\",\"clientPort\":5000"));
        (ours.count() == 2).then_some(())
    });
    eventually(Patience::USUAL, "the log to name the client", || {
        gateway.log().contains(&format!("client={CLIENT}")).then_some(())
    });
}

#[test]
fn forwarded_headers_name_the_client_where_their_sender_is_trusted() {
    let (backend, port) = (Backend::start("one"), free_port());
    let own =
        json!({"trustForwardedHeaders": true, "trustedProxies": ["127.0.0.0/8", "10.0.0.0/8"]});
    let gateway = in_front_of(&backend, port, own.clone());
    let said = "\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.7:5000, 10.0.0.4\r\n\r\n";
    let mut trusted = open(connect(port), said);
    echoes(&mut trusted, "hello");
    let shown = |gateway: &Gateway| gateway.tunnels()[0]["client"].as_str().unwrap().to_owned();
    assert_eq!(shown(&gateway), CLIENT);
    // The same words of somebody else say nothing.
    let other = free_port();
    let own = json!({"trustForwardedHeaders": true, "trustedProxies": ["10.0.0.0/8"]});
    let gateway = in_front_of(&backend, other, own);
    let mut stranger = open(connect(other), said);
    echoes(&mut stranger, "hello");
    assert!(shown(&gateway).starts_with("127.0.0.1:"));
}

#[test]
fn a_backend_is_told_of_the_real_client() {
    let backend = Heard::start();
    let (port, plain) = (free_port(), free_port());
    let own = json!({"proxyProtocol": "required", "trustForwardedHeaders": true,
        "trustedProxies": ["127.0.0.1", "192.0.2.0/24"]});
    let document = Document::simple(port, &[backend.address])
        .set("httpListeners", "web", "holdfast", own)
        .site("plain", plain, "chat");
    let _gateway = Gateway::start(&document);
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Host: www.test\r\n\
        Connection: close\r\n\r\n";
    say(port, &[LINE, request]);
    let heard = backend.last();
    for field in [
        "x-forwarded-for: 203.0.113.9, 192.0.2.7:5000",
        "x-forwarded-proto: https",
        "x-forwarded-port: 443",
        "x-forwarded-host: www.test",
    ] {
        assert!(heard.contains(&format!("\r\n{field}\r\n")), "no {field} in {heard}");
    }
    // Of a listener that trusts nobody, scheme and port are the gateway's own.
    say(plain, &[request]);
    let heard = backend.last();
    for field in ["x-forwarded-proto: http", &format!("x-forwarded-port: {plain}")] {
        assert!(heard.contains(&format!("\r\n{field}\r\n")), "no {field} in {heard}");
    }
}

#[test]
fn listeners_of_one_address_that_do_not_agree_are_refused_and_nothing_changes() {
    let (backend, port) = (Backend::start("one"), free_port());
    let gateway = in_front_of(&backend, port, required());
    let document = Document::new()
        .pool("chat", &[backend.address])
        .host_site("a", port, "a.test", "chat")
        .host_site("b", port, "b.test", "chat")
        .set("httpListeners", "a", "holdfast", required());
    let said = gateway.apply_refused(&document.text());
    assert!(said.contains("do not agree on proxyProtocol"), "{said}");
    assert!(say(port, &[LINE, GET]).ends_with("one"));
}

/// A backend that tells the test what it was asked, probes aside. Its threads end with the test's process.
struct Heard {
    address: SocketAddr,
    heads: Receiver<String>,
}

impl Heard {
    fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (tell, heads) = channel();
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let tell = tell.clone();
                thread::spawn(move || answer(&stream, &tell));
            }
        });
        Self { address, heads }
    }

    /// The next request's head, in lower case.
    fn last(&self) -> String {
        self.heads.recv_timeout(Duration::from_secs(20)).unwrap()
    }
}

fn answer(mut stream: &TcpStream, tell: &Sender<String>) {
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        if !head.contains(" /healthz ") {
            drop(tell.send(head.to_lowercase()));
        }
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    }
}
