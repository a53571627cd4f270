//! The backend over real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::client_async;

use super::*;

type Client = WebSocketStream<TcpStream>;

async fn start(name: &str) -> (SocketAddr, Arc<Backend>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let backend = Arc::new(Backend::new(name));
    tokio::spawn(accept(listener, Arc::clone(&backend)));
    (address, backend)
}

async fn dial(address: SocketAddr, path: &str) -> Client {
    let stream = TcpStream::connect(address).await.unwrap();
    let (socket, _) = client_async(format!("ws://{address}{path}"), stream).await.unwrap();
    socket
}

async fn next_json(client: &mut Client) -> Value {
    let message = client.next().await.unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn plain_paths_answer() {
    let (address, _) = start("alpha").await;
    for (path, status, part) in [
        ("/", "200", "<!doctype html>"),
        ("/healthz", "200", "ok"),
        ("/whoami", "200", "alpha"),
        ("/absent", "404", "nothing here"),
        ("/echo", "426", "a WebSocket lives here"),
    ] {
        let answer = get(address, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains(part), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_echo_returns_text_and_binary_unchanged() {
    let (address, _) = start("alpha").await;
    let mut client = dial(address, "/echo").await;
    let large: Vec<u8> = (0..LONGEST_ECHO).map(|i| u8::try_from(i % 251).unwrap()).collect();
    for message in [Message::text("grüße"), Message::binary(vec![0, 255, 7]), Message::text("")] {
        client.send(message.clone()).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), message);
    }
    client.send(Message::binary(large.clone())).await.unwrap();
    assert!(client.next().await.unwrap().unwrap() == Message::binary(large), "16 MiB changed");
    client.close(None).await.unwrap();
    assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn the_room_greets_then_passes_on_what_is_said() {
    let (address, _) = start("alpha").await;
    let (mut ann, mut bob) = (dial(address, "/chat").await, dial(address, "/chat").await);
    for client in [&mut ann, &mut bob] {
        let hello = next_json(client).await;
        assert_eq!((&hello["type"], &hello["backend"]), (&json!("hello"), &json!("alpha")));
    }
    ann.send(Message::text(r#"{"type":"chat","name":"Ann","text":"hi"}"#)).await.unwrap();
    for client in [&mut ann, &mut bob] {
        assert_eq!(
            next_json(client).await,
            json!({"type": "chat", "name": "Ann", "text": "hi", "backend": "alpha"})
        );
    }
    bob.send(Message::text(r#"{"type":"ping","n":7}"#)).await.unwrap();
    assert_eq!(next_json(&mut bob).await, json!({"type": "pong", "n": 7, "backend": "alpha"}));
    bob.send(Message::text("nonsense")).await.unwrap();
    assert_eq!(next_json(&mut bob).await["type"], "error");
}

#[tokio::test]
async fn the_chat_crosses_both_backends_once() {
    let ((alpha, _), (bravo, follower)) = (start("alpha").await, start("bravo").await);
    let (sender, orders) = mpsc::channel(1);
    tokio::spawn(async move { obey(orders, &follower).await });
    sender.send(format!("{PEER_ORDER}{alpha}")).await.unwrap();

    let (mut ann, mut bob) = (dial(alpha, "/chat").await, dial(bravo, "/chat").await);
    next_json(&mut ann).await;
    next_json(&mut bob).await;
    // The peer may dial any time from now: repeat until it passes the first one on.
    let heard = async {
        let mut said = 0_u64;
        loop {
            let line = json!({"type": "chat", "name": "Ann", "text": said.to_string()});
            ann.send(Message::text(line.to_string())).await.unwrap();
            assert_eq!(next_json(&mut ann).await["text"], said.to_string());
            said += 1;
            if let Ok(told) =
                tokio::time::timeout(Duration::from_millis(20), next_json(&mut bob)).await
            {
                return told;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap();
    assert_eq!((&told["backend"], &told["name"]), (&json!("alpha"), &json!("Ann")));
}

#[tokio::test]
async fn a_bad_opening_handshake_is_refused() {
    let (address, _) = start("alpha").await;
    for (headers, status) in [
        ("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", "400"),
        ("Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 8\r\n", "426"),
        ("Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n", "400"),
        ("Upgrade: h2c\r\nConnection: upgrade\r\n", "426"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /echo HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer[9..], status.as_bytes(), "{headers}");
    }
}

#[tokio::test]
async fn who_cannot_keep_up_is_told_so() {
    let room = Room::new("alpha");
    let (near, far) = tokio::io::duplex(64);
    let served = async {
        let socket = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        room.serve(socket).await
    };
    let client = async {
        let mut slow = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        slow.next().await.unwrap().unwrap();
        for n in 0..1000 {
            room.overhear(&format!("{n}"));
        }
        loop {
            if let Message::Close(frame) = slow.next().await.unwrap().unwrap() {
                return frame.unwrap();
            }
        }
    };
    let (_, frame) = tokio::join!(served, client);
    assert!(frame.reason.as_str().starts_with("too slow"), "{frame:?}");
}
