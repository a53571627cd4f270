//! A real client connection over loopback, a real backend behind it, and everything in between as in the process.
#![allow(clippy::unwrap_used, reason = "tests")]

mod answers;
mod last;
mod log;
mod refusals;

use super::*;
use crate::drain::Order;
use crate::snapshot::Table;
use holdfast_proto::control as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A gateway with one site, one pool and one backend; tasks end with it.
struct Scene {
    shared: Arc<Shared>,
    client: TcpStream,
    tasks: JoinSet<()>,
}

fn table(backend: SocketAddr, limits: wire::Limits) -> Table {
    let settings = wire::BackendSettings {
        scheme: wire::Scheme::Http.into(),
        host: wire::HostChoice::Client.into(),
        request_timeout_ms: 300,
        ..wire::BackendSettings::default()
    };
    let binding = wire::PoolBinding {
        pool: "chat".into(),
        settings: "plain".into(),
        backends: vec![wire::Backend {
            address: backend.ip().to_string(),
            port: backend.port().into(),
        }],
        backend_settings: Some(settings),
        distribution: None,
    };
    let forward = wire::action::Kind::Forward(wire::Forward { binding: 0 });
    let site = wire::Site {
        name: "all".into(),
        rule: "all".into(),
        default_action: Some(wire::Action { kind: Some(forward), ..Default::default() }),
        ..wire::Site::default()
    };
    let snapshot = wire::ListenerSnapshot {
        revision: 1,
        sites: vec![site],
        bindings: vec![binding],
        limits: Some(limits),
        ..wire::ListenerSnapshot::default()
    };
    Table::compile(snapshot, None).unwrap()
}

fn healthy(backend: SocketAddr) -> wire::HealthSnapshot {
    let key = wire::TargetKey {
        pool: "chat".into(),
        settings: "plain".into(),
        address: backend.ip().to_string(),
        port: backend.port().into(),
    };
    let target =
        wire::TargetHealth { key: Some(key), in_rotation: true, ..wire::TargetHealth::default() };
    wire::HealthSnapshot { version: 1, targets: vec![target], drained: None }
}

/// Serves one client connection in front of `backend`.
async fn scene(backend: SocketAddr, limits: wire::Limits) -> Scene {
    let current = Current::new();
    current.install_table(table(backend, limits));
    current.install_health(healthy(backend));
    let shared = Arc::new(Shared {
        current: Arc::new(current),
        drain: Drain::default(),
        metrics: Arc::default(),
        idle: Arc::default(),
        access_log: Arc::default(),
        revocation: Revocation::default(),
        tunnels: Tunnels::start(1, 1).unwrap(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(local), listener.accept());
    let (stream, client_address) = accepted.unwrap();
    let peer = Peer { client: client_address, local, tls: false };
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(Link::Plain(stream), peer, shared.clone()));
    Scene { shared, client: client.unwrap(), tasks }
}

/// A backend that gives each connection the answers of `script`, one a request, in turn.
async fn backend(tasks: &mut JoinSet<()>, script: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in script {
                let seen = read_request(&mut stream).await;
                if seen.is_empty() {
                    break;
                }
                let answer = answer.replace("{seen}", &format!("{:05}", seen.len()));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    address
}

/// Reads one request, body included, as far as its framing tells.
async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    while stream.read_buf(&mut seen).await.unwrap_or(0) != 0 {
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let whole = if head.contains("transfer-encoding: chunked") {
            body.ends_with("0\r\n\r\n")
        } else {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= length.map_or(0, |length| length.parse().unwrap())
        };
        if whole {
            break;
        }
    }
    seen
}

/// Sends `request` and reads until the answer ends with `end`.
async fn ask(client: &mut TcpStream, request: &str, end: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while client.read_buf(&mut answer).await.unwrap() != 0 {
        if answer.ends_with(end.as_bytes()) {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const TWO_LENGTHS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
const OTHER: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";

const BAD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAALMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly";
const HALF: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n";

#[tokio::test]
async fn a_kept_connection_serves_get_and_a_chunked_post() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK, OTHER]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    let first = ask(&mut scene.client, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "ok").await;
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    let post =
        "POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let second = ask(&mut scene.client, post, "0\r\n\r\n").await;
    assert!(second.contains("transfer-encoding: chunked\r\n"), "{second}");
    assert!(second.ends_with("2\r\nno\r\n0\r\n\r\n"), "{second}");
    assert_eq!(scene.tasks.len(), 1);
}

#[tokio::test]
async fn two_pipelined_requests_are_answered_in_order() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK, OTHER]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    let both = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = ask(&mut scene.client, both, "0\r\n\r\n").await;
    assert!(answers.find("ok").unwrap() < answers.find("no").unwrap());
}

#[tokio::test]
async fn a_draining_connection_ends_after_the_answer_that_says_so() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK, OK]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(!ask(&mut scene.client, get, "ok").await.contains("connection: close"));
    scene.shared.drain.begin(Order { tunnel_deadline: None, reason: "test".into() });
    let last = ask(&mut scene.client, get, "ok").await;
    assert!(last.contains("connection: close\r\n"), "{last}");
    assert_eq!(scene.client.read(&mut [0; 8]).await.unwrap(), 0);
    drop(scene.client);
    scene.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_backend_is_a_504_and_a_broken_one_a_502() {
    let mut tasks = JoinSet::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gone = scene(silent.local_addr().unwrap(), wire::Limits::default()).await;
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(ask(&mut gone.client, get, "</html>\r\n").await.starts_with("HTTP/1.1 504 "));
    let garbage = backend(&mut tasks, &["garbage\r\n\r\n"]).await;
    let mut broken = scene(garbage, wire::Limits::default()).await;
    assert!(ask(&mut broken.client, get, "</html>\r\n").await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_a_whole_answer() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[HALF, "broken\r\n\r\n"]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    scene.client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    drop(scene.client.read_to_end(&mut answer).await);
    assert!(answer.windows(2).any(|two| two == b"no"));
    assert!(!answer.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_broken_body_that_only_the_end_delimits_ends_in_a_reset() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[HALF]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    scene.client.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").await.unwrap();
    let ended = scene.client.read_to_end(&mut Vec::new()).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_request_that_never_ends_is_a_408_and_an_idle_connection_just_ends() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = wire::Limits { header_timeout_ms: 100, ..wire::Limits::default() };
    let mut slow = scene(nobody.local_addr().unwrap(), limits).await;
    let answer = ask(&mut slow.client, "GET / HT", "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let mut idle = scene(nobody.local_addr().unwrap(), limits).await;
    assert_eq!(idle.client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413_that_a_sending_client_can_read() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK]).await;
    let limits = wire::Limits { max_body_bytes: 10, ..wire::Limits::default() };
    let announced = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world";
    let mut scene_one = scene(address, limits).await;
    let answer = ask(&mut scene_one.client, announced, "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n";
    let mut scene_two = scene(address, limits).await;
    let answer = ask(&mut scene_two.client, chunked, "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_verified_101_becomes_a_tunnel_and_a_wrong_one_a_502() {
    let mut tasks = JoinSet::new();
    let handshake = "GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let good = backend(&mut tasks, &[GOOD, "echo"]).await;
    let mut opened = scene(good, wire::Limits::default()).await;
    let answer = ask(&mut opened.client, handshake, "early").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(opened.shared.tunnels.active(), 1);
    assert_eq!(ask(&mut opened.client, "x\r\n\r\n", "echo").await, "echo");
    let bad = backend(&mut tasks, &[BAD]).await;
    let mut refused = scene(bad, wire::Limits::default()).await;
    let answer = ask(&mut refused.client, handshake, "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(refused.shared.tunnels.active(), 0);
}

#[tokio::test]
async fn a_target_and_a_header_over_the_limit_get_their_own_pages() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    let limits = wire::Limits { max_header_bytes: 1000, ..wire::Limits::default() };
    let long = "a".repeat(1000);
    let target = format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut scene_one = scene(address, limits).await;
    let answer = ask(&mut scene_one.client, &target, "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");
    let field = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n");
    let mut scene_two = scene(address, limits).await;
    let answer = ask(&mut scene_two.client, &field, "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_a_502() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[TWO_LENGTHS]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = ask(&mut scene.client, get, "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn http_2_without_its_negotiation_is_told_so() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut scene = scene(nobody.local_addr().unwrap(), wire::Limits::default()).await;
    let answer = ask(&mut scene.client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_refused_upgrade_leaves_its_answer_readable() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scene = scene(nobody.local_addr().unwrap(), wire::Limits::default()).await;
    let head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 4000000\r\n\r\n";
    let (mut reader, mut writer) = scene.client.into_split();
    let sent = async {
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(&vec![b'x'; 4_000_000]).await?;
        writer.shutdown().await
    };
    let mut answer = Vec::new();
    let (sent, read) = tokio::join!(sent, reader.read_to_end(&mut answer));
    sent.unwrap();
    read.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
}

/// What a future of it takes while it waits.
fn waits_in<T, A>(_: impl Fn(A) -> T) -> usize {
    size_of::<T>()
}

fn answering(
    (request, conversation, in_flight): (http::Request<Incoming>, &Conversation, RequestInFlight),
) -> impl Future + use<'_> {
    service::answer(request, conversation, in_flight)
}

#[test]
fn a_request_that_waits_for_its_backend_is_small() {
    // hyper copies it for each request, and what many connections have at once has to fit a processor's cache.
    let size = waits_in(answering);
    assert!(size < 3584, "{size} bytes");
}
