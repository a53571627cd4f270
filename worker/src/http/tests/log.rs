//! What the access log says of requests, however they end.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::access_log::Settings;

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\n\r\n";

fn log_into(shared: &Shared, path: &Path) {
    let log = wire::AccessLog {
        destination: wire::AccessLogDestination::File.into(),
        path: path.to_str().unwrap().to_owned(),
        sampled_per_million: 1_000_000,
    };
    shared.access_log.configure(Some(&Settings::compile(log).unwrap()));
}

/// Waits for so many lines. hyper is done with a request a moment after its client is.
async fn lines(shared: &Shared, path: &Path, count: usize) -> Vec<serde_json::Value> {
    loop {
        let log = shared.access_log.clone();
        tokio::task::spawn_blocking(move || log.flush(Duration::from_secs(60))).await.unwrap();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if lines.len() >= count {
            assert_eq!(lines.len(), count, "{text}");
            return lines;
        }
        tokio::task::yield_now().await;
    }
}

/// Status and error of one line.
fn outcome(line: &serde_json::Value) -> (u64, &str) {
    let properties = &line["properties"];
    (properties["httpStatus"].as_u64().unwrap(), properties["error_info"].as_str().unwrap())
}

#[tokio::test]
async fn an_answer_and_a_refusal_have_a_line_each() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK, OK]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    log_into(&scene.shared, &path);
    ask(&mut scene.client, GET, "ok").await;
    let post =
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    ask(&mut scene.client, post, "ok").await;
    ask(&mut scene.client, "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", "</html>\r\n").await;
    let lines = lines(&scene.shared, &path, 3).await;
    assert_eq!(outcome(&lines[0]), (200, "ERRORINFO_NO_ERROR"));
    assert_eq!(outcome(&lines[2]), (405, "ERRORINFO_INVALID_METHOD_TRACE"));
    assert_eq!(lines[0]["listenerName"], "all");
    assert_eq!(lines[0]["backendPoolName"], "chat");
    let properties = &lines[0]["properties"];
    assert_eq!(properties["originalRequestUriWithArgs"], "/a?b=c");
    assert_eq!(properties["userAgent"], "test");
    assert_eq!(properties["serverStatus"], "200");
    assert_eq!(properties["serverRouted"], address.to_string());
    assert_eq!(properties["originalHost"], "x");
    assert_eq!(properties["receivedBytes"], GET.len());
    let headers = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(lines[1]["properties"]["receivedBytes"], headers.len() + 3);
    assert!(properties["sentBytes"].as_u64().unwrap() > 40);
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_a_499() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, mut was_asked) = tokio::sync::mpsc::channel::<()>(1);
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        asked.send(()).await.unwrap();
        // Never an answer.
        read_request(&mut stream).await;
    });
    let Scene { shared, mut client, tasks: _serving } =
        scene(address, wire::Limits::default()).await;
    log_into(&shared, &path);
    client.write_all(GET.as_bytes()).await.unwrap();
    was_asked.recv().await.unwrap();
    drop(client);
    let lines = lines(&shared, &path, 1).await;
    assert_eq!(outcome(&lines[0]), (499, "ERRORINFO_CLIENT_CLOSED_REQUEST"));
    assert_eq!(lines[0]["backendPoolName"], "chat");
    assert!(lines[0]["properties"].get("serverStatus").is_none());
}

#[tokio::test]
async fn answers_that_break_off_say_whose_doing_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[HALF]).await;
    let mut broken = scene(address, wire::Limits::default()).await;
    log_into(&broken.shared, &path);
    broken.client.write_all(GET.as_bytes()).await.unwrap();
    drop(broken.client.read_to_end(&mut Vec::new()).await);
    let first = lines(&broken.shared, &path, 1).await;
    assert_eq!(outcome(&first[0]), (200, "ERRORINFO_UPSTREAM_CLOSED_CONNECTION"));
}

#[tokio::test]
async fn what_is_no_request_has_a_line_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    log_into(&scene.shared, &path);
    scene.client.write_all(b"no \"HTTP\" at all\r\n\r\n").await.unwrap();
    drop(scene.client.read_to_end(&mut Vec::new()).await);
    let lines = lines(&scene.shared, &path, 1).await;
    assert_eq!(outcome(&lines[0]), (400, "ERRORINFO_INVALID_REQUEST"));
    let client = scene.client.local_addr().unwrap();
    assert_eq!(lines[0]["properties"]["clientPort"], client.port());
    assert!(lines[0]["properties"].get("httpMethod").is_none());
}

#[tokio::test]
async fn refusals_have_azures_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut tasks = JoinSet::new();
    let address = backend(&mut tasks, &[OK]).await;
    let requests = [
        ("GET / HTTP/1.1\r\n\r\n", 400, "ERRORINFO_HTTP_NO_HOST_HEADER"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "ERRORINFO_INVALID_HOST"),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            413,
            "ERRORINFO_INVALID_CONTENT_LENGTH",
        ),
    ];
    for (number, (request, status, error)) in requests.into_iter().enumerate() {
        let limits = wire::Limits { max_body_bytes: 8, ..wire::Limits::default() };
        let mut scene = scene(address, limits).await;
        log_into(&scene.shared, &path);
        ask(&mut scene.client, request, "</html>\r\n").await;
        let lines = lines(&scene.shared, &path, number + 1).await;
        assert_eq!(outcome(&lines[number]), (status, error));
    }
}
