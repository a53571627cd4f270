//! How a client connection lives on after an answer or ends with it, and that the client is told which.

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";

fn head(answer: &str) -> &str {
    answer.split("\r\n\r\n").next().unwrap()
}

#[tokio::test]
async fn an_answer_before_the_body_has_come_says_that_it_is_the_last() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK, OK]).await;
    let body = "Host: x\r\nContent-Length: 100000\r\n\r\nabc";
    let own = ("TRACE", address, "405", "</html>\r\n");
    let early = ("POST", early_backend(&mut tasks).await, "200", "ok");
    for (method, backend, status, end) in [own, early] {
        let mut scene = scene(backend, wire::Limits::default()).await;
        let request = format!("{method} / HTTP/1.1\r\n{body}");
        let answer = ask(&mut scene.client, &request, end).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(head(&answer).contains("connection: close"), "{answer}");
    }
    let mut scene = scene(address, wire::Limits::default()).await;
    let whole = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    for request in [whole, GET] {
        let answer = ask(&mut scene.client, request, "ok").await;
        assert!(!head(&answer).contains("connection: close"), "{answer}");
    }
}

/// Answers as soon as there is a head, and takes no body.
async fn early_backend(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
        stream.write_all(OK.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    address
}

#[tokio::test]
async fn an_old_client_is_promised_nothing_with_its_last_answer() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK, OK, OTHER]).await;
    let mut scene_one = scene(address, wire::Limits::default()).await;
    let answer = ask(&mut scene_one.client, OLD, "ok").await;
    assert!(head(&answer).contains("connection: keep-alive"), "{answer}");
    scene_one.shared.drain.begin(Order { tunnel_deadline: None, reason: "test".into() });
    let answer = ask(&mut scene_one.client, OLD, "ok").await;
    assert!(!head(&answer).contains("keep-alive"), "{answer}");
    assert_eq!(scene_one.client.read(&mut [0; 8]).await.unwrap(), 0);
    // Its length is not known, so only the end of the connection is its end.
    let address = backend(&mut tasks, &[OTHER]).await;
    let mut scene_two = scene(address, wire::Limits::default()).await;
    let answer = ask(&mut scene_two.client, OLD, "never").await;
    assert!(!head(&answer).contains("keep-alive") && answer.ends_with("\r\n\r\nno"), "{answer}");
}

#[tokio::test]
async fn two_framings_in_one_request_are_one_for_the_backend_and_end_the_connection() {
    let mut tasks = JoinSet::new();
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ] {
        let (told, tells) = tokio::sync::oneshot::channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            told.send(read_request(&mut stream).await).unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        });
        let mut scene = scene(address, wire::Limits::default()).await;
        let smuggled = format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n0\r\n\r\n{GET}");
        let answer = ask(&mut scene.client, &smuggled, "never").await;
        let seen = String::from_utf8(tells.await.unwrap()).unwrap().to_lowercase();
        assert!(!seen.contains("content-length"), "{seen}");
        assert!(head(&answer).contains("connection: close"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
}
