//! Starting: what a gateway accepts, what it refuses and says, what it leaves on disk.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::harness::{
    Backend, Certificate, Document, Gateway, HOLDFAST, Patience, WebSocket, directory, eventually,
    free_port, get, gets_huge_pages, words,
};

/// What `holdfast validate` says of a text, and whether it accepts it.
fn validate(text: &str) -> (bool, String) {
    let directory = directory();
    let file = directory.path().join("document.json");
    fs::write(&file, text).unwrap();
    let output = Command::new(HOLDFAST).arg("validate").arg(&file).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", words(&output));
    (output.status.success(), words(&output))
}

#[test]
fn a_gateway_document_becomes_a_proxied_websocket() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    let mut socket = WebSocket::open(port, "/echo");
    assert!(socket.echoes("hello"));
    assert_eq!(gateway.revision(), 1);
    assert_eq!(gateway.tunnels().len(), 1);
}

#[test]
fn children_do_without_huge_pages() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&Document::simple(free_port(), &[backend.address]));
    for child in [gateway.worker_pid(), gateway.prober_pid()] {
        assert!(!gets_huge_pages(child), "process {child}");
    }
}

/// Whoever starts a gateway may hold a lock, or wait for the end of a pipe.
#[test]
fn children_hold_nothing_open_that_was_open_where_the_gateway_is_started() {
    let (home, backend) = (directory(), Backend::start("one"));
    let (script, held) = (home.path().join("holdfast"), home.path().join("held"));
    let text = format!("#!/bin/sh\nexec 7>'{}'\nexec '{HOLDFAST}' \"$@\"\n", held.display());
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let gateway = Gateway::start_in(home, &Document::simple(free_port(), &[backend.address]));
    for child in [gateway.worker_pid(), gateway.prober_pid()] {
        let mut open = fs::read_dir(format!("/proc/{child}/fd")).unwrap().flatten();
        let is_it = |it: fs::DirEntry| fs::read_link(it.path()).is_ok_and(|open| open == held);
        assert!(!open.any(is_it), "process {child}");
    }
}

#[test]
fn status_names_every_process() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let status = gateway.status();
    assert_eq!(status["supervisor"]["pid"], gateway.supervisor_pid());
    let listener = &status["listeners"][0];
    assert_eq!(listener["address"], format!("127.0.0.1:{port}"));
    assert_eq!(listener["sites"][0], "web");
    assert_eq!(listener["workers"][0]["state"], "serving");
    assert_eq!(listener["workers"][0]["revision"], 1);
    assert_ne!(gateway.worker_pid(), gateway.prober_pid());
}

#[test]
fn a_second_gateway_on_the_same_directories_is_refused_and_names_the_first() {
    let backend = Backend::start("one");
    let gateway = Gateway::start(&Document::simple(free_port(), &[backend.address]));
    let path = |name: &str| gateway.path().join(name).into_os_string();
    let second = Command::new(HOLDFAST)
        .args(["run".into(), "--config".into(), path("gateway.json")])
        .args(["--runtime-dir".into(), path("r"), "--state-dir".into(), path("s")])
        .args(["--status-listen", &format!("127.0.0.1:{}", free_port())])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(words(&second).contains(&gateway.supervisor_pid().to_string()), "{}", words(&second));
    assert!(get(gateway_port(&gateway), "/whoami").is_ok());
}

fn gateway_port(gateway: &Gateway) -> u16 {
    let status = gateway.status();
    let address = status["listeners"][0]["address"].as_str().unwrap();
    address.rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn a_first_document_that_is_refused_starts_nothing() {
    let said = words(&Gateway::start_refused("{ \"httpListeners\": [] }"));
    assert!(said.contains("there are no httpListeners"), "{said}");
    assert!(!said.contains("prober started"), "{said}");
}

#[test]
fn status_answers_while_the_gateway_is_still_starting() {
    // It takes connections and says nothing, so the start waits for its first verdict.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let document = Document::simple(free_port(), &[silent.local_addr().unwrap()]);
    let gateway = Gateway::begin(&document);
    let early = eventually(Patience::USUAL, "status before the start is over", || {
        let output = gateway.cli(&["status", "--json"]);
        output.status.success().then(|| words(&output))
    });
    assert!(early.contains("\"ready\": false"), "{early}");
    // A change waits for the end of the start instead of being refused or lost.
    gateway.apply(&document);
    assert_eq!(gateway.revision(), 1);
}

#[test]
fn a_start_on_a_port_in_use_says_so_and_exits() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let backend = Backend::start("one");
    let said = words(&Gateway::start_refused(&Document::simple(port, &[backend.address]).text()));
    assert!(said.contains(&port.to_string()), "{said}");
}

#[test]
fn a_document_cut_anywhere_is_refused_with_a_place() {
    let whole = Document::simple(8080, &["127.0.0.2:9000".parse().unwrap()]).text();
    assert!(validate(&whole).0, "{}", validate(&whole).1);
    for part in 1..12 {
        let (accepted, said) = validate(&whole[..whole.len() * part / 12]);
        assert!(!accepted);
        assert!(said.contains("line") || said.contains(':'), "no place in: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn ten_megabytes_of_brackets_are_refused() {
    for bracket in ["[", "{\"a\":", "[{\"a\":["] {
        let (accepted, said) = validate(&bracket.repeat((10 << 20) / bracket.len()));
        assert!(!accepted);
        assert!(!said.contains("panicked") && !said.contains("overflow"), "{said:.400}");
    }
}

#[test]
fn all_faults_of_a_document_are_named_at_once() {
    let backend = "127.0.0.2:9000".parse().unwrap();
    let document = Document::simple(8080, &[backend])
        .site("twice", 8080, "nowhere")
        .set("httpListeners", "twice", "protocol", "Gopher")
        .set("probes", "chat", "interval", 0);
    let (accepted, said) = validate(&document.text());
    assert!(!accepted);
    for fault in ["nowhere", "Gopher", "interval"] {
        assert!(said.contains(fault), "{fault} is not named in: {said}");
    }
}

#[test]
fn two_sites_with_the_same_host_on_one_listener_are_refused() {
    let backend = "127.0.0.2:9000".parse().unwrap();
    let document = Document::new()
        .pool("chat", &[backend])
        .host_site("first", 8080, "chat.test", "chat")
        .host_site("second", 8080, "CHAT.test", "chat");
    let (accepted, said) = validate(&document.text());
    assert!(!accepted && said.contains("second"), "{said}");
}

#[test]
fn a_duplicate_name_is_refused() {
    let backend = "127.0.0.2:9000".parse().unwrap();
    let document = Document::simple(8080, &[backend]).pool("chat", &[backend]);
    let (accepted, said) = validate(&document.text());
    assert!(!accepted && said.contains("chat"), "{said}");
}

#[test]
fn an_unreadable_key_is_refused_and_named() {
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "chat.test");
    fs::write(&certificate.key_file, "no key").unwrap();
    let document = Document::new().pool("chat", &["127.0.0.2:9000".parse().unwrap()]).tls_site(
        "secure",
        8443,
        &certificate,
        "chat",
    );
    let (accepted, said) = validate(&document.text());
    assert!(!accepted && said.contains("site.key"), "{said}");
}

#[test]
fn a_bad_file_leaves_the_last_good_revision_in_force() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    gateway.kill_everything();
    gateway.write("gateway.json", "{ nothing");
    gateway.start_again();
    assert_eq!(gateway.revision(), 1);
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    eventually(Patience::USUAL, "the bad file to be told of", || {
        gateway.log().contains("gateway.json").then_some(())
    });
}

#[test]
fn a_runtime_path_too_long_for_a_socket_is_a_clear_error() {
    let directory = directory();
    let long = directory.path().join("x".repeat(120));
    let file = directory.path().join("gateway.json");
    let document = Document::simple(free_port(), &["127.0.0.2:9000".parse().unwrap()]);
    fs::write(&file, document.text()).unwrap();
    let output = Command::new(HOLDFAST)
        .args(["run".as_ref(), "--config".as_ref(), file.as_os_str()])
        .args(["--runtime-dir".as_ref(), long.as_os_str()])
        .args(["--state-dir".as_ref(), directory.path().join("s").as_os_str()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("long"), "{}", words(&output));
}

#[test]
fn every_example_is_valid() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    for file in fs::read_dir(examples).unwrap().flatten() {
        if file.path().extension().is_some_and(|extension| extension == "json") {
            let output = Command::new(HOLDFAST).arg("validate").arg(file.path()).output().unwrap();
            assert!(output.status.success(), "{}: {}", file.path().display(), words(&output));
        }
    }
}

#[test]
fn a_document_with_every_known_oddity_carries_plain_and_secure_websockets() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/article-oddities.jsonc");
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "chat.test");
    let backend = Backend::start("one");
    let (port, secure) = (free_port(), free_port());
    let replaced = [
        ("certs/rsa.pem", "site.crt".to_owned()),
        ("certs/rsa-pkcs1.key", "site.key".to_owned()),
        ("\"8080\"", format!("\"{port}\"")),
        ("8443", secure.to_string()),
        ("9000", backend.address.port().to_string()),
    ];
    let text = fs::read_to_string(fixture).unwrap();
    let text = replaced.iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "the fixture no longer says {old}");
        text.replace(old, new)
    });
    let _gateway = Gateway::start_text(directory, &text);
    assert!(WebSocket::open(port, "/echo").echoes("plain"));
    assert!(WebSocket::open_tls(secure, "/echo", &certificate).echoes("secure"));
}
