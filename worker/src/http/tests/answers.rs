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
