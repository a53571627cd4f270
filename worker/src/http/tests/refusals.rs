//! What is no request at all: hyper refuses it, and the client gets the page that every other fault has.

use super::*;

/// A page of ours, whole and the connection's last; `what` names the case.
fn expect_page(answer: &str, status: &str, what: &str) {
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{what}: {answer}");
    for field in ["server: Holdfast", "content-type: text/html", "connection: close"] {
        assert!(head.lines().any(|line| line == field), "{what}: no `{field}` in {answer}");
    }
    assert!(head.contains("date: "), "{what}: {answer}");
    assert!(head.contains(&format!("content-length: {}", page.len())), "{what}: {answer}");
    assert!(page.contains(&format!("<h1>{status}</h1>")), "{what}: {answer}");
}

/// Sends `bytes` and reads until the gateway ends the connection.
async fn last_words(scene: &mut Scene, bytes: &str) -> String {
    scene.client.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    scene.client.read_to_string(&mut answer).await.unwrap();
    answer
}

fn refused(scene: &Scene) -> Option<wire::sample::Value> {
    let is_4xx = |sample: &wire::Sample| sample.labels.iter().any(|label| label.value == "4xx");
    scene.shared.metrics.samples().into_iter().find(is_4xx).and_then(|sample| sample.value)
}

#[tokio::test]
async fn what_hyper_refuses_has_its_status_and_our_page() {
    const BAD: &str = "400 Bad Request";
    const LARGE: &str = "431 Request Header Fields Too Large";
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = wire::Limits { max_header_bytes: 32 * 1024, ..wire::Limits::default() };
    let lines = "a: b\r\n".repeat(MOST_HEADERS + 1);
    let cases = [
        ("no request line", "\u{1}\r\n\r\n".to_owned(), BAD),
        ("no target", "GET\r\n\r\n".to_owned(), BAD),
        ("bad target", "GET /\u{7f}\u{1} HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), BAD),
        ("bad version", "GET / HTTP/3.7\r\nHost: x\r\n\r\n".to_owned(), BAD),
        ("bad name", "GET / HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(), BAD),
        ("folded", "GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n".to_owned(), BAD),
        ("bad length", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n".to_owned(), BAD),
        (
            "two lengths",
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
                .to_owned(),
            BAD,
        ),
        ("old chunks", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), BAD),
        ("many lines", format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"), LARGE),
        ("large head", format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(120_000)), LARGE),
        ("no end", format!("GET / HTTP/1.1\r\na: {}", "b".repeat(120_000)), LARGE),
        (
            "long target",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(66_000)),
            "414 URI Too Long",
        ),
    ];
    for (what, bytes, status) in cases {
        let mut scene = scene(nobody.local_addr().unwrap(), limits).await;
        expect_page(&last_words(&mut scene, &bytes).await, status, what);
        assert_eq!(refused(&scene), Some(wire::sample::Value::Counter(1)), "{what}");
    }
}

#[tokio::test]
async fn a_refusal_behind_an_answer_leaves_the_answer_whole() {
    let mut tasks = JoinSet::new();
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let address = backend(&mut tasks, &[OTHER]).await;
    let mut proxied = scene(address, wire::Limits::default()).await;
    let answers = last_words(&mut proxied, &format!("{get}GET\r\n\r\n")).await;
    let (first, second) = answers.split_once("\r\n0\r\n\r\n").unwrap();
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with("\r\n2\r\nno"), "{first}");
    expect_page(second, "400 Bad Request", "behind a backend's answer");
    // Answered before hyper has returned from reading it.
    let mut own = scene(address, wire::Limits::default()).await;
    let trace = "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = last_words(&mut own, &format!("{trace}{trace}GET\r\n\r\n")).await;
    assert_eq!(answers.matches("HTTP/1.1 405 Method Not Allowed\r\n").count(), 2, "{answers}");
    let (_, second) = answers.rsplit_once("</html>\r\nHTTP/1.1 ").unwrap();
    expect_page(&format!("HTTP/1.1 {second}"), "400 Bad Request", "behind our own answer");
    assert_eq!(refused(&own), Some(wire::sample::Value::Counter(3)));
}

/// The page that an operator has made.
const OWN: &str = "<p>ours</p>";

#[tokio::test]
async fn an_operators_pages_are_for_the_gateways_own_faults_and_for_nothing_else() {
    let mut tasks = JoinSet::new();
    let page = |status, body: &str, before_site| wire::ErrorPage {
        status,
        body: body.to_owned().into(),
        before_site,
        body_of: None,
    };
    let address =
        backend(&mut tasks, &["HTTP/1.1 502 Bad\r\ncontent-length: 6\r\n\r\ntheirs", "no"]).await;
    let mut scene = scene(address, wire::Limits::default()).await;
    let mut table = table(address, wire::Limits::default());
    let site = wire::Site { name: "all".into(), error_pages: vec![0], ..wire::Site::default() };
    table.pages = crate::snapshot::Pages::compile(
        &[page(502, OWN, false), page(400, "<p>who?</p>", true)],
        &[site],
    )
    .unwrap();
    scene.shared.current.install_table(table);
    scene.shared.current.install_health(healthy(address));
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let theirs = ask(&mut scene.client, get, "theirs").await;
    assert!(theirs.starts_with("HTTP/1.1 502 "), "{theirs}");
    let ours = ask(&mut scene.client, get, OWN).await;
    assert!(ours.starts_with("HTTP/1.1 502 "), "{ours}");
    assert!(ours.contains("content-type: text/html\r\n"), "{ours}");
    // Known only to the listener: it is no HTTP.
    let nobody = last_words(&mut scene, "GET\r\n\r\n").await;
    assert!(nobody.ends_with("\r\n\r\n<p>who?</p>"), "{nobody}");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_408_after_a_minute() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut scene = scene(silent.local_addr().unwrap(), wire::Limits::default()).await;
    let begun = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc";
    scene.client.write_all(begun).await.unwrap();
    let (mut backend, _) = silent.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"abc") {
        assert_ne!(backend.read_buf(&mut seen).await.unwrap(), 0);
    }
    // From here on a minute is over as soon as nobody has anything to do.
    tokio::time::pause();
    let since = tokio::time::Instant::now();
    let mut answer = String::new();
    scene.client.read_to_string(&mut answer).await.unwrap();
    expect_page(&answer, "408 Request Timeout", "a body that stops");
    let waited = since.elapsed().as_secs();
    assert!((50..120).contains(&waited), "{waited}");
}
