//! Connections kept, shared, dropped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::pool::Context;
use crate::pool::tests::wire_binding;

type Sender = crate::pool::sender::Sender<Empty<Bytes>>;

async fn pair() -> (Binding, Sender, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let binding =
        Binding::compile(wire_binding(&[("127.0.0.1", port)]), None, Context::default()).unwrap();
    let patience = Duration::from_secs(10);
    let mut sender = dial_http(&binding, &binding.backends[0], "h", patience).await.unwrap();
    sender.ready().await.unwrap();
    (binding, sender, listener.accept().await.unwrap().0)
}

fn key(binding: &Binding) -> Key {
    Key::new(binding, &binding.backends[0], "h")
}

#[tokio::test]
async fn a_connection_comes_back_when_its_answer_is_over() {
    let (binding, mut sender, mut peer) = pair().await;
    let idle = Arc::new(Idle::default());
    let request = Request::builder().uri("/").header("host", "h").body(Empty::new()).unwrap();
    let answering = tokio::spawn(async move {
        let mut heard = [0; 1024];
        assert!(peer.read(&mut heard).await.unwrap() > 0);
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
        peer
    });
    let response = sender.send_request(request).await.unwrap();
    let mut peer = answering.await.unwrap();
    idle.put(key(&binding), sender);
    assert!(idle.take(&key(&binding), Instant::now()).is_none(), "its answer is not over");
    peer.write_all(b"ok").await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    while idle.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(idle.take(&key(&binding), Instant::now()).is_some());
    assert!(idle.is_empty());
}

#[tokio::test]
async fn a_closed_connection_is_never_handed_out() {
    let (binding, sender, peer) = pair().await;
    let idle = Arc::new(Idle::default());
    idle.put(key(&binding), sender);
    assert_eq!(idle.len(), 1);
    drop(peer);
    while !idle.lock()[&key(&binding)][0].sender.is_closed() {
        tokio::task::yield_now().await;
    }
    assert!(idle.take(&key(&binding), Instant::now()).is_none());
    assert!(idle.is_empty());
}

#[tokio::test]
async fn a_connection_is_let_go_after_a_minute() {
    let (binding, sender, _peer) = pair().await;
    let idle = Arc::new(Idle::default());
    idle.put(key(&binding), sender);
    tokio::time::pause();
    tokio::time::advance(IDLE_FOR.mul_f32(0.9)).await;
    idle.sweep();
    assert_eq!(idle.len(), 1);
    tokio::time::advance(IDLE_FOR.mul_f32(0.1)).await;
    idle.sweep();
    assert!(idle.is_empty());
}

#[tokio::test]
async fn connections_of_removed_backends_are_dropped() {
    let (binding, sender, _peer) = pair().await;
    let idle = Arc::new(Idle::default());
    idle.put(key(&binding), sender);
    idle.keep_only(&[Arc::new(binding)]);
    assert_eq!(idle.len(), 1);
    idle.keep_only(&[]);
    assert!(idle.is_empty());
}

#[tokio::test]
async fn connections_are_not_shared_across_backends() {
    let (one, sender, _peer) = pair().await;
    let (other, _sender, _other_peer) = pair().await;
    let idle = Arc::new(Idle::default());
    idle.put(key(&one), sender);
    assert!(idle.take(&key(&other), Instant::now()).is_none());
    assert!(idle.take(&key(&one), Instant::now()).is_some());
}
