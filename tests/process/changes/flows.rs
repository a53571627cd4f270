//! Downloads and uploads that go on across changes, over HTTP/1.1 and HTTP/2, and tunnels in HTTP/2.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use serde_json::{Value, json};

use super::scene::{
    MAPS, RULES, SETTINGS, addresses, drain, inline, link, policy, remove, rewrite_set,
    strict_profile,
};
use crate::harness::{
    Authority, Bridged, Certificate, Criers, Document, Gateway, Http2, Patience, WebSocket, alive,
    directory, eventually, free_port, piece, read_response, tls,
};

trait Stream: Read + Write {}

impl<Any: Read + Write> Stream for Any {}

type Boxed = BufReader<Box<dyn Stream>>;

/// What goes on over one kind of connection.
struct Flows {
    /// Over HTTP/1.1, by a connection each.
    down: Vec<Download>,
    up: Vec<Boxed>,
    /// Over one connection of HTTP/2.
    client: Http2,
    down2: (RecvStream, Vec<u8>),
    up2: (ResponseFuture, SendStream<Bytes>),
    socket: Bridged,
    pieces: usize,
}

/// An answer in chunks, which need not be those of the backend.
struct Download {
    stream: Boxed,
    left: usize,
}

impl Download {
    fn begin(mut stream: Boxed, host: &str) -> Self {
        write(&mut stream, format!("GET /long HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let first = line(&mut stream);
        assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
        while !line(&mut stream).is_empty() {}
        Self { stream, left: 0 }
    }

    /// So many bytes of the body; fewer only at its end.
    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut found = Vec::new();
        while found.len() < count {
            if self.left == 0 {
                self.left = usize::from_str_radix(&line(&mut self.stream), 16).unwrap();
                if self.left == 0 {
                    break;
                }
            }
            let begin = found.len();
            found.resize(count.min(begin + self.left), 0);
            self.stream.read_exact(&mut found[begin..]).unwrap();
            self.left -= found.len() - begin;
            if self.left == 0 {
                assert_eq!(line(&mut self.stream), "");
            }
        }
        found
    }
}

fn line(stream: &mut Boxed) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.ends_with("\r\n"), "the connection has ended after {line:?}");
    line.trim_end().to_owned()
}

fn write(stream: &mut Boxed, bytes: &[u8]) {
    stream.get_mut().write_all(bytes).unwrap();
    stream.get_mut().flush().unwrap();
}

fn plain(port: u16) -> Boxed {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    BufReader::new(Box::new(socket))
}

fn sealed(port: u16, certificate: &Certificate) -> Boxed {
    BufReader::new(Box::new(tls(port, certificate).unwrap()))
}

impl Flows {
    fn begin(web: u16, secure: u16, certificate: &Certificate) -> Self {
        let both = || [plain(web), sealed(secure, certificate)];
        let host = certificate.host.as_str();
        let upload = |mut stream: Boxed| {
            let head =
                format!("POST /up HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
            write(&mut stream, head.as_bytes());
            stream
        };
        let mut client = Http2::connect(secure, certificate);
        // What the server's settings allow is known once it has answered something.
        assert_eq!(client.get("/").unwrap().status, 200);
        let request = client.request("GET", "/long").body(()).unwrap();
        let (response, _) = client.begin(request, true).unwrap();
        let (status, body) = client.head_of(response);
        assert_eq!(status, 200);
        let request = client.request("POST", "/up").body(()).unwrap();
        let up2 = client.begin(request, false).unwrap();
        let socket = client.open_websocket("/ws/").unwrap();
        Self {
            down: both().map(|stream| Download::begin(stream, host)).into(),
            up: both().map(upload).into(),
            client,
            down2: (body, Vec::new()),
            up2,
            socket,
            pieces: 0,
        }
    }

    /// One more piece of everything.
    fn go_on(&mut self, criers: &Criers) {
        let next = piece(self.pieces);
        self.pieces += 1;
        criers.go_on();
        for download in &mut self.down {
            assert!(download.read(next.len()) == next);
        }
        let (body, ahead) = &mut self.down2;
        let wanted = next.len() - ahead.len();
        ahead.extend(self.client.more_of(body, wanted));
        assert!(ahead.drain(..next.len()).eq(next.iter().copied()));
        let chunk = [format!("{:x}\r\n", next.len()).as_bytes(), next.as_slice(), b"\r\n"].concat();
        for upload in &mut self.up {
            write(upload, &chunk);
        }
        self.up2.1.send_data(next.into(), false).unwrap();
        let text = format!("message {}", self.pieces);
        let answer = format!("socket1 {text}");
        assert!(self.client.is_told(&mut self.socket, &text, &answer), "{answer}");
    }

    /// Everything comes to its end.
    fn finish(self, criers: &Criers) {
        criers.finish();
        let whole = format!("flow1\n{} pieces\n", self.pieces);
        for mut download in self.down {
            assert_eq!(download.read(1), b"");
        }
        for mut upload in self.up {
            write(&mut upload, b"0\r\n\r\n");
            let answer = read_response(&mut upload, false).unwrap();
            assert!(answer.text().starts_with(&whole), "{}", answer.text());
        }
        let Self { client, down2: (mut body, ahead), up2: (response, mut upload), .. } = self;
        assert!(ahead.is_empty() && client.more_of(&mut body, 1).is_empty());
        upload.send_data(Bytes::new(), true).unwrap();
        let answer = client.finish(response).unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        assert!(answer.status == 200 && text.starts_with(&whole), "{} {text}", answer.status);
    }
}

/// A plain and a TLS listener in front of backends that go on for as long as they are wanted.
struct Stage {
    gateway: Gateway,
    criers: Criers,
    document: Document,
    flow: Vec<SocketAddr>,
    web: u16,
    secure: u16,
    certificate: Certificate,
    staff: Authority,
}

impl Stage {
    fn start() -> Self {
        let directory = directory();
        let certificate = Certificate::make(directory.path(), "chat", "chat.test");
        let staff = Authority::make(directory.path(), "staff");
        let criers = Criers::new();
        let flow = criers.group(&["flow1", "flow2"], None);
        let sockets = criers.group(&["socket1"], None);
        let [web, secure] = [(); 2].map(|()| free_port());
        let document = Document::new()
            .pool("flow", &flow[..1])
            .pool("sockets", &sockets)
            .set(SETTINGS, "flow", "connectionDraining", drain(1))
            .set(SETTINGS, "sockets", "connectionDraining", drain(1))
            .path_site("web", web, &[("/ws/*", "sockets")], "flow")
            .tls_site("chat", secure, &certificate, "flow")
            .set(RULES, "chat", "ruleType", "PathBasedRouting")
            .set(RULES, "chat", "urlPathMap", link(MAPS, "web"))
            .set(RULES, "chat", "backendAddressPool", Value::Null)
            .set(RULES, "chat", "backendHttpSettings", Value::Null)
            .holdfast("webSocketsOverHttp2", true);
        let document = with(document, "enableHttp2", true);
        let gateway = Gateway::start_in(directory, &document);
        Self { gateway, criers, document, flow, web, secure, certificate, staff }
    }

    /// Puts a document in force; everything goes on.
    fn apply(&mut self, flows: &mut Flows, document: Document) {
        let before = self.gateway.revision();
        self.gateway.apply(&document);
        assert_eq!(self.gateway.revision(), before + 1, "nothing was changed");
        self.document = document;
        flows.go_on(&self.criers);
    }
}

/// Sets a property of the gateway itself.
fn with(mut document: Document, key: &str, value: impl Into<Value>) -> Document {
    document.0["properties"][key] = value.into();
    document
}

#[test]
fn downloads_uploads_and_pinned_tunnels_go_on_across_every_change() {
    let mut stage = Stage::start();
    let mut flows = Flows::begin(stage.web, stage.secure, &stage.certificate);
    let mut doomed = WebSocket::open(stage.web, "/");
    let mut pinned = flows.client.open_websocket("/").unwrap();
    assert!(flows.client.is_told(&mut pinned, "hello", "flow1 hello"));
    flows.go_on(&stage.criers);
    let worker = stage.gateway.worker_pids();
    let first = stage.document.clone();

    let new = Certificate::make(stage.gateway.path(), "new", "chat.test");
    stage.apply(&mut flows, inline(first.clone(), "chat", &new));
    let newest = json!({"policyType": "CustomV2", "minProtocolVersion": "TLSv1_3"});
    stage.apply(&mut flows, with(first.clone(), "sslPolicy", newest));
    let strict = strict_profile(first.clone(), "chat", &stage.staff);
    stage.apply(&mut flows, strict);
    stage.apply(&mut flows, rewrite_set(first.clone(), "changed"));
    let settings = first
        .clone()
        .set(SETTINGS, "flow", "requestTimeout", 1)
        .set(SETTINGS, "flow", "path", "/v2/")
        .set(SETTINGS, "flow", "cookieBasedAffinity", "Enabled")
        .set("probes", "flow", "path", "/other");
    stage.apply(&mut flows, settings);
    let dedicated = first.clone().set(SETTINGS, "flow", "dedicatedBackendConnection", true);
    stage.apply(&mut flows, with(dedicated, "enableHttp2", false));
    stage.apply(&mut flows, policy(first.clone(), &["flow"]));
    stage.apply(&mut flows, first.clone().holdfast("maxBodyBytes", 1));

    let flow = stage.flow.clone();
    stage.apply(&mut flows, addresses(first.clone(), "flow", &flow));
    stage.apply(&mut flows, addresses(first.clone(), "flow", &flow[1..]));
    // Of the backend that has left only tunnels end, of its own connection or a stream of one.
    assert!(doomed.end().is_some());
    assert!(flows.client.end_of(&mut pinned));
    flows.go_on(&stage.criers);

    // The sites go, and then the listeners.
    let elsewhere = first.clone().set("httpListeners", "web", "hostName", "nobody.test").set(
        "httpListeners",
        "chat",
        "hostName",
        "nobody.test",
    );
    stage.apply(&mut flows, elsewhere);
    assert_eq!(stage.gateway.worker_pids(), worker, "a worker was replaced");
    let rest = first.site("rest", free_port(), "flow");
    let rest =
        remove(remove(rest, &["httpListeners", RULES], "chat"), &["sslCertificates"], "chat");
    stage.apply(&mut flows, remove(rest, &["httpListeners", RULES], "web"));
    flows.finish(&stage.criers);
    eventually(Patience::LONG, "the removed listeners' workers to leave", || {
        worker.iter().all(|pid| !alive(*pid)).then_some(())
    });
}

/// No change of the configuration replaces a worker; this does.
#[test]
fn what_a_worker_has_in_hand_goes_on_when_it_is_replaced() {
    let stage = Stage::start();
    let mut flows = Flows::begin(stage.web, stage.secure, &stage.certificate);
    let workers = stage.gateway.worker_pids();
    for _ in 0..2 {
        flows.go_on(&stage.criers);
        stage.gateway.must(&["restart"]);
    }
    assert!(stage.gateway.worker_pids().iter().all(|pid| !workers.contains(pid)));
    flows.go_on(&stage.criers);
    flows.finish(&stage.criers);
    eventually(Patience::LONG, "the workers that were replaced to leave", || {
        workers.iter().all(|pid| !alive(*pid)).then_some(())
    });
}
