//! The gate against real hyper connections.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::tunnel::{TunnelFacts, Tunnels};
use crate::websocket::{Opening, begin};

const BIG: usize = 8 << 20;
const REQUEST: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly from backend";

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (active, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (active.unwrap(), accepted.unwrap().0)
}

fn facts() -> TunnelFacts {
    TunnelFacts {
        site: "s".into(),
        pool: "p".into(),
        settings: "b".into(),
        backend: "127.0.0.1".into(),
        backend_port: 1,
        client: ([127, 0, 0, 1], 2).into(),
        trace_id: "".into(),
        logged: false,
        idle_timeout: Duration::ZERO,
        opened: SystemTime::now(),
    }
}

/// Reads a request's head and answers it with [`ANSWER`], then echoes.
async fn backend(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(ANSWER).await.unwrap();
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.unwrap();
    to.shutdown().await.unwrap();
}

/// What the worker's service does with an upgrade: ask the backend, close the gate, begin, answer.
async fn upgrade(
    mut request: Request<Incoming>,
    gate: GateHandle,
    near: TcpStream,
    tunnels: Arc<Tunnels>,
    tasks: Arc<Mutex<JoinSet<()>>>,
) -> Response<Full<Bytes>> {
    let client = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let opening = Opening::from_request(&parts).unwrap().unwrap();
    let io = TokioIo::new(Link::Plain(near));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tasks.lock().unwrap().spawn(async move { connection.with_upgrades().await.unwrap() });
    let onward = Request::from_parts(parts, Empty::<Bytes>::new());
    let mut response = sender.send_request(onward).await.unwrap();
    let backend = hyper::upgrade::on(&mut response);
    let (parts, _) = response.into_parts();
    opening.verify(&parts).unwrap();
    gate.capture();
    tasks.lock().unwrap().spawn(async move {
        begin(client, gate, backend, facts(), crate::load::of("gate.test", 1).hold(), &tunnels)
            .await
            .unwrap();
    });
    Response::from_parts(parts, Full::default())
}

#[tokio::test]
async fn an_upgrade_behind_an_unread_response_comes_after_it_and_whole() {
    let (mut far, accepted) = pair().await;
    let (near, backend_stream) = pair().await;
    let tunnels = Tunnels::start(1, 1).unwrap();
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    tasks.lock().unwrap().spawn(backend(backend_stream));
    let (gate, handle) = Gate::new(Link::Plain(accepted));
    let (counts, near) = (handle.clone(), Mutex::new(Some(near)));
    let (engine, spawner) = (Arc::clone(&tunnels), Arc::clone(&tasks));
    let service = service_fn(move |request: Request<Incoming>| {
        handle.begin_answer();
        let (handle, tunnels, tasks) = (handle.clone(), Arc::clone(&engine), Arc::clone(&spawner));
        let near = (request.uri() == "/ws").then(|| near.lock().unwrap().take().unwrap());
        async move {
            Ok::<_, Infallible>(match near {
                Some(near) => upgrade(request, handle, near, tunnels, tasks).await,
                None => Response::new(Full::new(Bytes::from(vec![7; BIG]))),
            })
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(gate), service)
        .with_upgrades();
    tasks.lock().unwrap().spawn(async move { connection.await.unwrap() });

    let requests =
        [b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n", REQUEST, b"early from client"].concat();
    far.write_all(&requests).await.unwrap();
    // Nothing is read until the gateway's and our own queues are full.
    tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.ok();
    let whole = tokio::time::timeout(Duration::from_secs(30), async {
        far.shutdown().await.unwrap();
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        heard
    });
    let heard = whole.await.unwrap();
    let body = heard.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(heard[body..body + BIG].iter().all(|byte| *byte == 7));
    let tail = String::from_utf8(heard[body + BIG..].to_vec()).unwrap();
    let (head, rest) = tail.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(rest, "early from backendearly from client");
    assert!(counts.is_capturing() && counts.read() >= requests.len() as u64);
    assert!(counts.written() > BIG as u64 && counts.written() < (BIG + 400) as u64);
    tunnels.emptied().await;
    assert_eq!(tunnels.totals().opened, 1);
}

#[tokio::test]
async fn an_open_gate_passes_everything_and_a_closed_one_nothing() {
    let (mut far, near) = pair().await;
    let (mut gate, handle) = Gate::new(Link::Plain(near));
    handle.begin_answer();
    gate.write_all(b"before").await.unwrap();
    handle.capture();
    gate.write_all(b"after").await.unwrap();
    assert_eq!(gate.write_vectored(&[IoSlice::new(b"wa"), IoSlice::new(b"rds")]).await.unwrap(), 5);
    gate.flush().await.unwrap();
    let (io, captured) = gate.into_parts();
    drop(io);
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!((heard.as_slice(), captured.as_slice()), (&b"before"[..], &b"afterwards"[..]));
    assert_eq!(handle.written(), 6);
}

#[tokio::test]
async fn what_is_written_while_no_answer_is_due_is_kept_back() {
    let (mut far, near) = pair().await;
    let (mut gate, handle) = Gate::new(Link::Plain(near));
    handle.begin_answer();
    gate.flush().await.unwrap();
    gate.write_all(b"head").await.unwrap();
    handle.end_answer();
    gate.write_all(b" and end").await.unwrap();
    gate.flush().await.unwrap();
    assert!(!handle.is_answering());
    gate.write_all(b"refusal").await.unwrap();
    gate.shutdown().await.unwrap();
    let (mut io, kept_back) = gate.into_parts();
    assert_eq!(kept_back, b"refusal");
    // hyper's end is not the connection's.
    io.write_all(b", page").await.unwrap();
    drop(io);
    let mut heard = String::new();
    far.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "head and end, page");
    assert_eq!(handle.written(), 12);
}
