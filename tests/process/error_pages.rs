//! Pages that answer for the gateway: from files and from the web, of all sites or of one, and after a restart.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::harness::{
    Backend, Certificate, Connection, Document, Gateway, HOLDFAST, Patience, WebSocket, directory,
    eventually, free_port, get, words,
};

/// A web server that answers every GET alike, until it is told another answer.
struct Web {
    address: SocketAddr,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicU32>,
}

impl Web {
    fn start(page: &str) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let web = Self {
            address: socket.local_addr().unwrap(),
            answer: Arc::default(),
            asked: Arc::default(),
        };
        web.says("200 OK", page);
        let (answer, asked) = (Arc::clone(&web.answer), Arc::clone(&web.asked));
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                thread::spawn(move || {
                    asked.fetch_add(1, Ordering::SeqCst);
                    drop(serve(&stream, &answer));
                });
            }
        });
        web
    }

    fn says(&self, status: &str, page: &str) {
        let length = page.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{page}");
        *self.answer.lock().unwrap() = Some(answer);
    }

    /// Every connection ends without an answer.
    fn is_gone(&self) {
        *self.answer.lock().unwrap() = None;
    }

    fn url(&self) -> String {
        format!("http://{}/page.html", self.address)
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(stream: impl Read + Write, answer: &Mutex<Option<String>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    match answer.lock().unwrap().as_deref() {
        Some(answer) => stream.get_mut().write_all(answer.as_bytes()),
        None => Ok(()),
    }
}

/// One site without a backend, and pages of the whole gateway.
fn deserted(port: u16, pages: &Value) -> Document {
    let mut document = Document::new().pool("chat", &[]).site("web", port, "chat");
    document.0["properties"]["customErrorConfigurations"] = pages.clone();
    document
}

fn from_web(status: u16, web: &Web) -> Value {
    json!({ "statusCode": format!("HttpStatus{status}"), "customErrorPageUrl": web.url() })
}

fn from_file(status: u16, file: &str) -> Value {
    json!({ "statusCode": format!("HttpStatus{status}"), "holdfast": { "file": file } })
}

#[test]
fn a_page_is_fetched_once_and_answers_under_the_old_status() {
    let web = Web::start("<p>come back later</p>");
    let port = free_port();
    let gateway = Gateway::start(&deserted(port, &json!([from_web(502, &web)])));
    for _ in 0..3 {
        let answer = get(port, "/").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (502, "<p>come back later</p>"));
        assert_eq!(answer.header("content-type"), Some("text/html"));
    }
    assert_eq!(web.asked(), 1);
    // The effective configuration names it, and is taken as it is.
    let printed = gateway.must(&["config"]);
    assert!(printed.contains(&web.url()), "{printed}");
    let file = gateway.write("printed.json", &printed);
    let said = words(&gateway.cli(&["apply", file.to_str().unwrap()]));
    assert!(said.contains("is in force") || said.contains("nothing to change"), "{said}");
}

#[test]
fn a_change_fetches_pages_again_and_keeps_those_that_do_not_come() {
    let web = Web::start("<p>old</p>");
    let backend = Backend::start("one");
    let port = free_port();
    let document = |pages: &Value| {
        let mut document = Document::new()
            .pool("chat", &[backend.address])
            .pool("nobody", &[])
            .path_site("web", port, &[("/empty", "nobody")], "chat");
        document.0["properties"]["customErrorConfigurations"] = pages.clone();
        document
    };
    let pages = json!([from_web(502, &web)]);
    let gateway = Gateway::start(&document(&pages));
    let page = || get(port, "/empty").unwrap().text();
    let mut tunnel = WebSocket::open(port, "/echo");
    assert_eq!(page(), "<p>old</p>");
    web.says("200 OK", "<p>new</p>");
    gateway.must(&["reload"]);
    assert_eq!(page(), "<p>new</p>");
    web.is_gone();
    let more = json!([from_web(502, &web), from_file(405, "page.html")]);
    gateway.write("page.html", "<p>not so</p>");
    let file = gateway.write("applied.json", &document(&more).text());
    let said = words(&gateway.cli(&["apply", file.to_str().unwrap()]));
    assert!(said.contains("the page that it had is kept"), "{said}");
    assert_eq!(page(), "<p>new</p>");
    let mut trace = Connection::open(port).unwrap();
    trace.write("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(trace.response().unwrap().text(), "<p>not so</p>");
    assert!(tunnel.echoes("none of this was mine"));
}

#[test]
fn a_page_that_is_not_there_refuses_the_change_and_says_where() {
    let (web, fine) = (Web::start(""), Web::start("<p>fine</p>"));
    let port = free_port();
    let gateway = Gateway::start(&deserted(port, &json!([from_web(502, &fine)])));
    for (status, page, reason) in [
        ("404 Not Found", "", "the answer is 404 Not Found, and must be 200"),
        ("302 Found", "", "the answer is 302 Found, and must be 200"),
        ("200 OK", &"x".repeat(1024 * 1024), "it has 1 MiB or more"),
    ] {
        web.says(status, page);
        let text = deserted(port, &json!([from_web(502, &fine), from_web(504, &web)])).text();
        let said = gateway.apply_refused(&text);
        assert!(said.contains(reason) && said.contains(&web.url()), "{said}");
        assert!(said.contains("customErrorConfigurations[1].customErrorPageUrl"), "{said}");
        assert!(said.contains("name a file"), "{said}");
    }
    assert_eq!(gateway.revision(), 1);
    assert_eq!(get(port, "/").unwrap().text(), "<p>fine</p>");
    web.is_gone();
    let nobody = deserted(free_port(), &json!([from_web(502, &web)])).text();
    let said = words(&Gateway::start_refused(&nobody));
    assert!(said.contains("cannot be fetched") && said.contains("gateway.json:"), "{said}");
}

#[test]
fn a_restart_and_a_rollback_need_no_network() {
    let web = Web::start("<p>as it was</p>");
    let port = free_port();
    let gateway = Gateway::start(&deserted(port, &json!([from_web(502, &web)])));
    gateway.apply(&deserted(port, &json!([])));
    assert!(get(port, "/").unwrap().text().contains("<h1>502 Bad Gateway</h1>"));
    web.is_gone();
    let asked = web.asked();
    gateway.must(&["rollback", "1"]);
    assert_eq!(get(port, "/").unwrap().text(), "<p>as it was</p>");
    gateway.kill_everything();
    gateway.start_again();
    assert_eq!(get(port, "/").unwrap().text(), "<p>as it was</p>");
    // Also where the workers live on, and the supervisor alone has to know it again.
    gateway.signal(Signal::SIGKILL);
    gateway.start_again();
    assert_eq!(get(port, "/").unwrap().text(), "<p>as it was</p>");
    assert_eq!(web.asked(), asked);
    assert_eq!(gateway.revision(), 3);
}

#[test]
fn a_sighup_for_the_logs_fetches_nothing_and_undoes_no_rollback() {
    let web = Web::start("<p>as it was</p>");
    let port = free_port();
    let gateway = Gateway::start(&deserted(port, &json!([from_web(502, &web)])));
    web.says("200 OK", "<p>new</p>");
    gateway.must(&["reload"]);
    assert_eq!(get(port, "/").unwrap().text(), "<p>new</p>");
    gateway.must(&["rollback", "1"]);
    assert_eq!(get(port, "/").unwrap().text(), "<p>as it was</p>");
    let (asked, revision) = (web.asked(), gateway.revision());
    gateway.signal(Signal::SIGHUP);
    let stays =
        format!("has not changed since it was last read; revision {revision} stays in force");
    gateway.says(&[&stays]);
    assert_eq!((web.asked(), gateway.revision()), (asked, revision));
    assert_eq!(get(port, "/").unwrap().text(), "<p>as it was</p>");
    // Who asks gets the page as it is now.
    gateway.must(&["reload"]);
    assert_eq!((web.asked(), gateway.revision()), (asked + 1, revision + 1));
    assert_eq!(get(port, "/").unwrap().text(), "<p>new</p>");
    // And a file that has changed is new, whoever says so.
    web.says("200 OK", "<p>newest</p>");
    let text = deserted(port, &json!([from_web(502, &web), from_web(504, &web)])).text();
    gateway.write("gateway.json", &text);
    gateway.signal(Signal::SIGHUP);
    eventually(Patience::USUAL, "the newest page", || {
        (get(port, "/").unwrap().text() == "<p>newest</p>").then_some(())
    });
}

#[test]
fn a_site_with_pages_has_those_and_no_others() {
    let port = free_port();
    let directory = directory();
    for (file, page) in [("all.html", "<p>all</p>"), ("one.html", "<p>one</p>")] {
        std::fs::write(directory.path().join(file), page).unwrap();
    }
    let pool = |document: Document| document.pool("chat", &[]);
    let mut document = pool(Document::new())
        .host_site("own", port, "own.test", "chat")
        .host_site("other", port, "other.test", "chat")
        .set(
            "httpListeners",
            "own",
            "customErrorConfigurations",
            json!([from_file(400, "one.html")]),
        );
    let all = [400, 404, 405, 408, 502].map(|status| from_file(status, "all.html"));
    document.0["properties"]["customErrorConfigurations"] = all.to_vec().into();
    let document = document.holdfast("clientHeaderTimeoutInSec", 1);
    let _gateway = Gateway::start_in(directory, &document);
    for (request, page) in [
        ("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", "<p>all</p>"),
        ("GET / HTTP/1.1\r\nHost: own.test\r\n\r\n", "<h1>502 Bad Gateway</h1>"),
        ("GET / HTTP/1.1\r\nHost: own.test\r\nIf-Range: a\r\nIf-Range: a\r\n\r\n", "<p>one</p>"),
        ("TRACE / HTTP/1.1\r\nHost: own.test\r\n\r\n", "<h1>405 Method Not Allowed</h1>"),
        // No site is known yet, or there is none.
        ("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n", "<p>all</p>"),
        ("GET / HTTP/1.1\r\n\r\n", "<p>all</p>"),
        ("GET\r\n\r\n", "<p>all</p>"),
        ("GET / HTTP/1.1\r\nHost: own.te", "<p>all</p>"),
    ] {
        let mut connection = Connection::open(port).unwrap();
        connection.write(request).unwrap();
        let answer = connection.response().unwrap();
        assert!(answer.text().contains(page), "{request:?}: {} {}", answer.status, answer.text());
    }
}

#[test]
fn an_edited_page_file_is_read_by_a_reload() {
    let port = free_port();
    let directory = directory();
    std::fs::write(directory.path().join("page.html"), "<p>first</p>").unwrap();
    let gateway =
        Gateway::start_in(directory, &deserted(port, &json!([from_file(502, "page.html")])));
    assert_eq!(get(port, "/").unwrap().text(), "<p>first</p>");
    gateway.write("page.html", "<p>second</p>");
    gateway.must(&["reload"]);
    assert_eq!(get(port, "/").unwrap().text(), "<p>second</p>");
    std::fs::remove_file(gateway.path().join("page.html")).unwrap();
    let said = words(&gateway.cli(&["reload"]));
    assert!(said.contains("page.html cannot be used"), "{said}");
    assert_eq!(get(port, "/").unwrap().text(), "<p>second</p>");
}

#[test]
fn a_page_file_that_is_gone_stops_no_start() {
    let port = free_port();
    let directory = directory();
    std::fs::write(directory.path().join("page.html"), "<p>first</p>").unwrap();
    let gateway =
        Gateway::start_in(directory, &deserted(port, &json!([from_file(502, "page.html")])));
    std::fs::remove_file(gateway.path().join("page.html")).unwrap();
    gateway.kill_everything();
    gateway.start_again();
    assert!(get(port, "/").unwrap().text().contains("<h1>502 Bad Gateway</h1>"));
    gateway.says(&["page.html cannot be used"]);
    gateway.write("page.html", "<p>second</p>");
    gateway.must(&["reload"]);
    assert_eq!(get(port, "/").unwrap().text(), "<p>second</p>");
}

#[test]
fn a_dry_run_says_that_pages_change_and_changes_none() {
    let web = Web::start("<p>old</p>");
    let port = free_port();
    let document = deserted(port, &json!([from_web(502, &web)]));
    let gateway = Gateway::start(&document);
    web.says("200 OK", "<p>new</p>");
    let file = gateway.write("same.json", &document.text());
    let said = words(&gateway.cli(&["apply", "--dry-run", file.to_str().unwrap()]));
    assert!(said.contains("site web: error pages"), "{said}");
    assert_eq!(get(port, "/").unwrap().text(), "<p>old</p>");
    gateway.apply(&document);
    assert_eq!(get(port, "/").unwrap().text(), "<p>new</p>");
}

#[test]
fn a_page_comes_over_https_from_whom_the_system_trusts() {
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "web", "localhost");
    let key = PrivateKeyDer::from_pem_file(&certificate.key_file).unwrap();
    let chain = vec![CertificateDer::from(certificate.der.to_vec())];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (config, socket) = (Arc::new(config), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let url = format!("https://localhost:{}/page.html", socket.local_addr().unwrap().port());
    thread::spawn(move || {
        let page = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<p>hi</p>";
        let answer = Mutex::new(Some(page.to_owned()));
        for stream in socket.incoming().flatten() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            drop(serve(StreamOwned::new(session, stream), &answer));
        }
    });
    let fetch = |roots: &std::path::Path| {
        // As the gateway does; where the system's roots are is told by the environment.
        let mut command = Command::new(HOLDFAST);
        command.args(["fetch-page", &url]).env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        command.output().unwrap()
    };
    let fetched = fetch(&certificate.root_file);
    assert!(fetched.status.success(), "{}", words(&fetched));
    assert_eq!(fetched.stdout, b"<p>hi</p>");
    let other = Certificate::make(directory.path(), "other", "localhost");
    let refused = fetch(&other.root_file);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert!(words(&refused).contains("the TLS handshake failed"), "{}", words(&refused));
}

#[test]
fn a_stop_does_not_wait_for_a_page_that_never_comes() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let port = free_port();
    let gateway = Gateway::start(&deserted(port, &json!([])));
    let page = json!([{ "statusCode": "HttpStatus502", "customErrorPageUrl": url }]);
    let file = gateway.write("silent.json", &deserted(port, &page).text());
    let mut apply = gateway.begin_cli(&["apply", file.to_str().unwrap()]);
    // It hangs at the page.
    let (_page, _) = silent.accept().unwrap();
    gateway.must(&["stop"]);
    eventually(Patience::USUAL, "the end", || gateway.has_ended().then_some(()));
    assert!(!apply.wait().unwrap().success());
}

#[test]
fn a_stop_while_the_first_start_fetches_a_page_is_no_failure() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let page = json!([{ "statusCode": "HttpStatus502", "customErrorPageUrl": url }]);
    for _ in 0..5 {
        let gateway = Gateway::begin(&deserted(free_port(), &page));
        let (_page, _) = silent.accept().unwrap();
        gateway.signal(Signal::SIGTERM);
        let status = gateway.ended();
        assert!(status.success(), "{status}:\n{}", gateway.log());
    }
}
