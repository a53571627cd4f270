//! Changing the configuration of a running gateway: nothing closes, nothing is stale, nothing bad gets in.

use std::io::ErrorKind;
use std::net::TcpListener;

use nix::sys::signal::Signal;

use crate::harness::{
    Backend, Certificate, Document, Gateway, Patience, WebSocket, eventually, free_port, get, scale,
};

#[test]
fn a_change_by_apply_closes_none_of_500_websockets() {
    let backends = Backend::group(&["one", "two"]);
    let (port, secure) = (free_port(), free_port());
    let document = Document::simple(port, &[backends[0].address]);
    let gateway = Gateway::start(&document);
    let (worker, prober) = (gateway.worker_pid(), gateway.prober_pid());
    let mut sockets: Vec<_> = (0..500).map(|_| WebSocket::open(port, "/echo")).collect();
    let certificate = Certificate::make(gateway.path(), "site", "chat.test");
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let bigger = Document::simple(port, &addresses).host_site("named", port, "chat.test", "chat");
    gateway.apply(&bigger);
    gateway.apply(&bigger.tls_site("secure", secure, &certificate, "chat"));
    assert!(WebSocket::open_tls(secure, "/echo", &certificate).echoes("new site"));
    assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
    assert!(gateway.worker_pids().contains(&worker), "the worker was replaced");
    assert_eq!(gateway.prober_pid(), prober);
    assert_eq!(gateway.revision(), 3);
}

#[test]
fn a_thousand_applies_give_no_stale_answer() {
    let [one, two] = ["one", "two"].map(Backend::start);
    let port = free_port();
    let to = |pool: &str| {
        Document::new()
            .pool("one", &[one.address])
            .pool("two", &[two.address])
            .site("web", port, pool)
    };
    let documents = [("two", to("two")), ("one", to("one"))];
    let gateway = Gateway::start(&documents[1].1);
    let applies = usize::try_from(scale("HOLDFAST_TEST_APPLIES", 200)).unwrap();
    for (name, document) in documents.iter().cycle().take(applies) {
        gateway.apply(document);
        assert_eq!(get(port, "/whoami").unwrap().text(), *name);
    }
}

#[test]
fn a_reload_during_an_apply_takes_nothing_back() {
    let [one, two] = ["one", "two"].map(Backend::start);
    let port = free_port();
    let documents = [&two, &one].map(|it| Document::simple(port, &[it.address]));
    let gateway = Gateway::start(&documents[1]);
    for document in documents.iter().cycle().take(40) {
        // The file never changes, so none of these may make a revision.
        gateway.signal(Signal::SIGHUP);
        gateway.apply(document);
    }
    gateway.must(&["reload"]);
    assert_eq!(gateway.revision(), 41);
}

#[test]
fn a_refused_document_changes_nothing_and_says_why() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]);
    let gateway = Gateway::start(&document);
    let mut socket = WebSocket::open(port, "/echo");
    let said = gateway.apply_refused(&document.site("other", port, "nowhere").text());
    assert!(said.contains("nowhere"), "{said}");
    let said = gateway.apply_refused("{ nothing");
    assert!(!said.is_empty());
    assert_eq!(gateway.revision(), 1);
    assert!(socket.echoes("still here"));
}

#[test]
fn a_port_in_use_is_refused_and_changes_nothing() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let document = Document::simple(port, &[backend.address]).site("more", taken_port, "chat");
    let said = gateway.apply_refused(&document.text());
    assert!(said.contains(&taken_port.to_string()), "{said}");
    assert_eq!(gateway.revision(), 1);
    assert_eq!(gateway.worker_pids().len(), 1);
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
}

#[test]
fn a_listener_added_serves_when_apply_returns_and_one_removed_serves_no_more() {
    let backend = Backend::start("one");
    let (port, added) = (free_port(), free_port());
    let small = Document::simple(port, &[backend.address]);
    let gateway = Gateway::start(&small);
    gateway.apply(&small.clone().site("more", added, "chat"));
    assert_eq!(get(added, "/whoami").unwrap().text(), "one");
    let mut socket = WebSocket::open(added, "/echo");
    gateway.apply(&small);
    let refused = get(added, "/whoami").map_err(|error| error.kind()).err();
    assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "the removed listener's address");
    assert!(socket.echoes("still here"), "the removed listener's tunnel closed");
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
}

#[test]
fn a_hangup_signal_reads_the_file_again() {
    let [one, two] = ["one", "two"].map(Backend::start);
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[one.address]));
    gateway.write("gateway.json", &Document::simple(port, &[two.address]).text());
    gateway.signal(Signal::SIGHUP);
    eventually(Patience::USUAL, "the file's change to be served", || {
        (get(port, "/whoami").unwrap().text() == "two").then_some(())
    });
    gateway.write("gateway.json", "{ nothing");
    assert_eq!(gateway.cli(&["reload"]).status.code(), Some(1));
    assert_eq!(gateway.revision(), 2);
    assert_eq!(get(port, "/whoami").unwrap().text(), "two");
}

#[test]
fn a_revision_that_cannot_be_written_is_refused_and_disturbs_nothing() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]);
    let gateway = Gateway::start(&document);
    let mut socket = WebSocket::open(port, "/echo");
    let revisions = gateway.path().join("s/revisions");
    let aside = gateway.path().join("aside");
    std::fs::rename(&revisions, &aside).unwrap();
    let more = document.host_site("more", port, "more.test", "chat");
    let said = gateway.apply_refused(&more.text());
    assert!(said.contains("refused: cannot write the revision"), "{said}");
    assert!(said.contains("No such file or directory"), "{said}");
    assert_eq!(gateway.revision(), 1);
    assert!(socket.echoes("still here"));
    std::fs::rename(&aside, &revisions).unwrap();
    gateway.apply(&more);
    assert_eq!(gateway.revision(), 2);
}
