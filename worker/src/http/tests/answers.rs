//! Answers of backends that are not of the plain kind, from the backend's bytes to the client's.

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const MUST_UPGRADE: &str = "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: websocket\r\ncontent-length: 2\r\n\r\nno";
const OFFERS: &str =
    "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_426_says_to_what_and_no_other_answer_offers_anything() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[MUST_UPGRADE, OFFERS, MUST_UPGRADE]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    let answer = ask(&mut scene.client, GET, "no").await;
    assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"), "{answer}");
    let answer = ask(&mut scene.client, GET, "ok").await;
    assert!(!answer.to_lowercase().contains("upgrade"), "{answer}");
    scene.shared.drain.begin(Order { tunnel_deadline: None, reason: "test".into() });
    let answer = ask(&mut scene.client, GET, "no").await;
    assert!(
        answer.contains("\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn interim_answers_are_passed_over_and_the_final_one_arrives() {
    const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-Hint: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[INTERIM, INTERIM, OK]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    for request in [GET, post, GET] {
        let answer = ask(&mut scene.client, request, "ok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(!answer.contains("x-hint"), "an interim field in {answer}");
    }
}

#[tokio::test]
async fn an_interim_answer_in_pieces_is_passed_over_too() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.set_nodelay(true).unwrap();
        for piece in ["HTTP/1.1 103 Early Hints\r\nLink: </a", ".css>\r\n\r", "\n", OK] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            // The gateway reads in the meantime: both run on this thread.
            tokio::task::yield_now().await;
        }
        read_request(&mut stream).await;
    });
    let mut scene = scene(address, wire::Limits::default()).await;
    let answer = ask(&mut scene.client, GET, "ok").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn only_interim_answers_are_a_504_and_a_101_that_nobody_asked_for_a_502() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &["HTTP/1.1 103 Early Hints\r\n\r\n", ""]).await;
    let mut hinted = scene(address, wire::Limits::default()).await;
    let answer = ask(&mut hinted.client, GET, "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let address = backend(&mut tasks, &[GOOD, OK]).await;
    let mut switched = scene(address, wire::Limits::default()).await;
    let answer = ask(&mut switched.client, GET, "</html>\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(!answer.to_lowercase().contains("upgrade"), "{answer}");
    assert_eq!(switched.shared.tunnels.active(), 0);
    assert_eq!(switched.shared.idle.len(), 0);
}

#[tokio::test]
async fn an_old_backends_answer_is_spoken_in_our_version() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &["HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    for _ in 0..2 {
        let answer = ask(&mut scene.client, GET, "ok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn an_old_backends_answer_that_stops_is_no_whole_one() {
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &["HTTP/1.0 200 OK\r\n\r\nhalf", "more"]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    scene.client.write_all(GET.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let ended = scene.client.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    let chunked = text.contains("transfer-encoding: chunked");
    assert!(ended.is_err() || (chunked && !text.ends_with("0\r\n\r\n")), "{text}");
}

#[tokio::test]
async fn one_length_twice_from_a_backend_is_one() {
    let mut tasks = JoinSet::new();
    let address = backend(
        &mut tasks,
        &["HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", OK],
    )
    .await;
    let mut scene = scene(address, wire::Limits::default()).await;
    for _ in 0..2 {
        let answer = ask(&mut scene.client, GET, "ok").await;
        assert_eq!(answer.matches("content-length").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_reset_under_a_get_is_replaced() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            read_request(&mut stream).await;
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    });
    let mut scene = scene(address, wire::Limits::default()).await;
    for _ in 0..2 {
        scene.client.write_all(GET.as_bytes()).await.unwrap();
        let mut status = [0; 15];
        scene.client.read_exact(&mut status).await.unwrap();
        assert_eq!(status, *b"HTTP/1.1 200 OK");
        ask(&mut scene.client, "", "ok").await;
    }
}
