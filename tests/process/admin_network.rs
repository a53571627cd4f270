//! Operators over the network: who is let in, what each may do, what the audit log says, and that a change of it disturbs nobody.

mod foreign;
mod office;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use self::office::Office;
use crate::harness::{
    Authority, Backend, Certificate, Document, Patience, Visitor, WebSocket, eventually, free_port,
    get, kill9, words,
};

const CLIENTS: [(&str, &str); 2] = [("dashboard", "read"), ("deploy", "change")];

#[test]
fn a_reader_looks_at_everything_and_changes_nothing() {
    let office = Office::open(&CLIENTS);
    let gateway = &office.gateway;
    let _socket = WebSocket::open(office.site, "/echo");
    let reader = office.passport("dashboard");
    let url = format!("http://127.0.0.1:{}/", office.site);
    let questions: [&[&str]; 8] = [
        &["status", "--json"],
        &["health"],
        &["tunnels"],
        &["config"],
        &["config", "--revision", "1"],
        &["revisions"],
        &["explain", &url],
        &["status"],
    ];
    for question in questions {
        let output = office.call(&reader, question);
        assert!(output.status.success(), "{question:?}: {}", words(&output));
    }
    let document = office.write("same.json", &office.document(&CLIENTS));
    let tunnel = gateway.tunnels()[0]["id"].as_str().unwrap().to_owned();
    let changes: [(&str, &[&str]); 11] = [
        ("Apply", &["apply", &document]),
        ("Apply", &["apply", &document, "--dry-run"]),
        ("Reload", &["reload"]),
        ("Rollback", &["rollback", "1"]),
        ("Drain", &["drain", "chat/127.0.0.1"]),
        ("Undrain", &["undrain", "chat/127.0.0.1"]),
        ("CloseTunnels", &["close", &tunnel]),
        ("Restart", &["restart"]),
        ("Upgrade", &["upgrade"]),
        ("LogFilter", &["log-level", "debug"]),
        ("Stop", &["stop"]),
    ];
    let workers = gateway.worker_pids();
    for (method, change) in changes {
        let output = office.call(&reader, change);
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{change:?}: {said}");
        let named = said.contains("certificate dashboard from 127.0.0.1:");
        assert!(named && said.contains("the role \"read\""), "{said}");
        assert!(said.contains(&format!("{method} needs \"change\"")), "{said}");
    }
    assert_eq!((gateway.revision(), gateway.worker_pids()), (1, workers));
    assert_eq!(gateway.tunnels().len(), 1);
    let denied = office.audit("outcome=\"denied\"", 11);
    assert!(denied.iter().all(|line| line.contains("certificate dashboard from")), "{denied:?}");
}

#[test]
fn who_may_change_applies_and_the_audit_log_tells_who_and_what() {
    let office = Office::open(&CLIENTS);
    let deploy = office.passport("deploy");
    let more = Backend::start("two");
    let document = office.document(&CLIENTS).host_site("second", office.site, "b.test", "more");
    let document = office.write("new.json", &document.pool("more", &[more.address]));
    let said = office.must(&deploy, &["apply", &document, "--if-revision", "1"]);
    assert!(said.contains("revision 2 is in force"), "{said}");
    let asked = office.audit("asked", 1).remove(0);
    assert!(asked.contains("method=\"Apply\"") && asked.contains("revision=1"), "{asked}");
    let ended = office.audit("ended", 1).remove(0);
    for wanted in [
        "by=\"certificate deploy from 127.0.0.1:",
        "outcome=\"done\"",
        "revision_before=1",
        "revision=2",
        "properties.backendAddressPools[more]",
        "properties.httpListeners[second]",
    ] {
        assert!(ended.contains(wanted), "no {wanted} in {ended}");
    }
    let revisions: Value =
        serde_json::from_str(&office.must(&deploy, &["revisions", "--json"])).unwrap();
    let mut by = revisions.as_array().unwrap().iter().map(|it| it["by"].as_str().unwrap());
    assert!(by.next_back().unwrap().starts_with("certificate deploy from"), "{revisions}");

    // What is refused is told as well, and what is asked on the host.
    let bad = office.write("bad.json", &Document::new());
    assert_eq!(office.call(&deploy, &["apply", &bad]).status.code(), Some(1));
    let refused = office.audit("outcome=\"refused\"", 1).remove(0);
    assert!(refused.contains("revision_before=2 revision=2"), "{refused}");
    office.gateway.must(&["drain", "chat/127.0.0.1"]);
    let drained = office.audit("what=\"chat/127.0.0.1: changed", 1).remove(0);
    let uid = nix::unistd::Uid::effective().as_raw();
    assert!(drained.contains(&format!("by=\"uid {uid} pid ")), "{drained}");
    let user = nix::unistd::User::from_uid(uid.into()).unwrap().unwrap().name;
    office.audit(&format!("user=\"{user}\""), 1);
    office.gateway.signal(Signal::SIGHUP);
    office.audit("by=\"SIGHUP\" outcome=\"nothing changed\"", 1);
    let key = std::fs::read_to_string(&office.own.key_file).unwrap();
    assert!(!office.gateway.log().contains(key.lines().nth(1).unwrap()));
}

#[test]
fn a_certificate_that_nobody_has_listed_opens_nothing() {
    let office = Office::open(&CLIENTS);
    let stranger = office.passport("somebody");
    for call in [["status"], ["stop"]] {
        let output = office.call(&stranger, &call);
        assert_eq!(output.status.code(), Some(1));
        let said = words(&output);
        assert!(
            said.contains("certificate somebody from") && said.contains("no entry of"),
            "{said}"
        );
    }
    office.audit("outcome=\"denied\"", 2);
}

#[test]
fn nobody_comes_in_without_a_certificate_of_the_authority() {
    let office = Office::open(&CLIENTS);
    let other = Authority::make(office.gateway.path(), "others");
    let forged = office.call(&other.passport("deploy"), &["status"]);
    let expired = office.call(&office.authority.expired_passport("deploy"), &["status"]);
    for (output, wanted) in [
        (forged, "does not accept the certificate"),
        (expired, "(CertificateExpired): it has expired: have it renewed"),
    ] {
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(wanted), "no {wanted:?} in {said}");
    }

    // Without any: in TLS 1.3 the client hears of it after its own part.
    let nobody = |version| Visitor::new(&[&office.own], None, &[version]);
    let read = nobody(&TLS13).visit(office.port, "localhost").and_then(|mut it| it.read(1));
    let error = read.expect_err("let in without a certificate").to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
    assert!(nobody(&TLS12).visit(office.port, "localhost").is_err());

    // Without TLS: not a word of HTTP.
    let mut plain = TcpStream::connect(("127.0.0.1", office.port)).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    // A reset is as good an end.
    plain.read_to_end(&mut heard).ok();
    assert!(heard.len() < 16, "{heard:?}");
    eventually(Patience::USUAL, "the log to tell that somebody was turned away", || {
        office.gateway.log().contains("a caller was turned away").then_some(())
    });
    office.must(&office.passport("deploy"), &["status"]);
}

#[test]
fn a_gateway_that_is_somebody_else_is_not_called() {
    let office = Office::open_as("gateway.test", &CLIENTS);
    let deploy = office.passport("deploy");
    let said = words(&office.call(&deploy, &["status"]));
    let wanted =
        format!("call it by a name of its certificate, --admin https://NAME:{}", office.port);
    assert!(said.contains("not accepted here") && said.contains(&wanted), "{said}");
    let other = Certificate::make(office.gateway.path(), "other", "localhost");
    for authority in [&office.authority.file, &other.root_file] {
        let mut command = office.command(&deploy, &["stop"]);
        let output = command.arg("--admin-authority").arg(authority).output().unwrap();
        assert!(words(&output).contains("has signed it: give the one"), "{}", words(&output));
    }
    assert!(!office.gateway.has_ended());
    let half = office.gateway.cli(&["status", "--admin", "https://localhost:1"]);
    assert!(words(&half).contains("give --admin-certificate"), "{}", words(&half));
}

#[test]
fn an_apply_over_the_network_moves_the_address_that_it_came_by() {
    let mut office = Office::open(&CLIENTS);
    let deploy = office.passport("deploy");
    let mut socket = WebSocket::open(office.site, "/echo");
    let worker = office.gateway.worker_pids();
    let (old, new) = (office.port, free_port());
    office.port = new;
    let moved = office.write("moved.json", &office.document(&CLIENTS));
    office.port = old;
    let said = office.must(&deploy, &["apply", &moved]);
    assert!(said.contains("revision 2 is in force"), "{said}");
    assert!(said.contains(&format!("admin 127.0.0.1:{new}")), "{said}");
    // Nobody has it any more, not even to say no.
    drop(TcpListener::bind(("127.0.0.1", old)).unwrap());
    let said = words(&office.call(&deploy, &["status"]));
    assert!(said.contains("nobody listens at"), "{said}");
    office.port = new;
    office.must(&deploy, &["status"]);

    // And goes away with the document that had it.
    let without =
        office.write("without.json", &Document::simple(office.site, &[office.backend.address]));
    office.must(&deploy, &["apply", &without]);
    drop(TcpListener::bind(("127.0.0.1", new)).unwrap());
    office.gateway.must(&["rollback", "2"]);
    office.must(&deploy, &["status"]);
    assert!(socket.echoes("still here"));
    assert_eq!(office.gateway.worker_pids(), worker);
}

#[test]
fn an_address_that_is_taken_refuses_the_document_and_leaves_everything() {
    let mut office = Office::open(&CLIENTS);
    let deploy = office.passport("deploy");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (old, port) = (office.port, taken.local_addr().unwrap().port());
    office.port = port;
    let moved = office.write("moved.json", &office.document(&CLIENTS));
    office.port = old;
    let output = office.call(&deploy, &["apply", &moved]);
    let said = words(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for wanted in ["holdfast.admin.listen", "cannot listen on 127.0.0.1:", "choose another port"] {
        assert!(said.contains(wanted), "no {wanted:?} in {said}");
    }
    assert_eq!(office.gateway.revision(), 1);
    office.must(&deploy, &["status"]);

    let mut broken = office.document(&CLIENTS);
    broken.0["properties"]["holdfast"]["admin"]["privateKeyFile"] = "none.key".into();
    let said = words(&office.call(&deploy, &["apply", &office.write("broken.json", &broken)]));
    assert!(said.contains("admin.privateKeyFile") && said.contains("cannot be read"), "{said}");
    assert_eq!(office.gateway.revision(), 1);
    office.must(&deploy, &["status"]);
}

#[test]
fn who_is_taken_off_the_list_or_may_do_less_hears_it_at_once() {
    let office = Office::open(&CLIENTS);
    let [deploy, reader] = ["deploy", "dashboard"].map(|name| office.passport(name));
    let watching = office.watch(&reader);
    let less = office.write("less.json", &office.document(&[("deploy", "read")]));
    office.must(&deploy, &["apply", &less]);
    let said = words(&office.call(&reader, &["status"]));
    assert!(said.contains("no entry of holdfast.admin.clients"), "{said}");
    let said = words(&office.call(&deploy, &["reload"]));
    assert!(said.contains("Reload needs \"change\""), "{said}");
    // Who had a connection open is not better off.
    eventually(Patience::USUAL, "the one who watches to be told", || {
        watching.complaints().contains("no entry of holdfast.admin.clients").then_some(())
    });
    // Only those who may open the socket can put it right now.
    office.gateway.must(&["rollback", "1"]);
    office.must(&deploy, &["reload"]);

    // Another authority: the one before counts for nobody.
    let next = Authority::make(office.gateway.path(), "next");
    let mut other = office.document(&CLIENTS);
    other.0["properties"]["holdfast"]["admin"]["clientCertificateAuthorityFile"] =
        next.file.to_str().unwrap().into();
    office.must(&deploy, &["apply", &office.write("other.json", &other)]);
    let said = words(&office.call(&deploy, &["status"]));
    assert!(said.contains("does not accept the certificate"), "{said}");
    office.must(&next.passport("deploy"), &["status"]);
}

#[test]
fn who_is_just_coming_in_when_the_list_changes_is_let_in() {
    let office = Office::open(&CLIENTS);
    let [dashboard, deploy] = CLIENTS.map(|(name, _)| office.passport(name));
    let more = [CLIENTS[0], CLIENTS[1], ("somebody", "read")];
    let more = office.write("more.json", &office.document(&more));
    let visitor = Visitor::new(&[&office.own], Some(&dashboard), &[&TLS13]);
    let mut applied = false;
    let mut visit = visitor.visit_while(office.port, "localhost", &mut || {
        office.must(&deploy, &["apply", &more]);
        applied = true;
    });
    // The frame with which a server of HTTP/2 begins.
    let begin = visit.as_mut().unwrap().read(4).unwrap();
    assert!(applied);
    assert_eq!(begin[3], 4, "{begin:?} is no SETTINGS");
    office.must(&office.passport("somebody"), &["status"]);
}

#[test]
fn files_that_change_are_read_again_and_broken_ones_change_nothing() {
    let mut office = Office::open(&CLIENTS);
    let reader = office.passport("dashboard");
    let renewed = Certificate::make(office.gateway.path(), "renewed", "localhost");
    std::fs::write(&office.own.key_file, "no key").unwrap();
    eventually(Patience::USUAL, "status to tell of the broken key", || {
        let status = office.gateway.must(&["status"]);
        status.contains("files of admin over the network cannot be used").then_some(())
    });
    office.must(&reader, &["status"]);
    std::fs::copy(&renewed.chain_file, &office.own.chain_file).unwrap();
    std::fs::copy(&renewed.key_file, &office.own.key_file).unwrap();
    office.own.root_file.clone_from(&renewed.root_file);
    eventually(Patience::USUAL, "the new certificate to be shown", || {
        office.call(&reader, &["status"]).status.success().then_some(())
    });
    eventually(Patience::USUAL, "nothing to be wrong any more", || {
        (!office.gateway.must(&["status"]).contains("admin over the network")).then_some(())
    });
    assert_eq!(office.gateway.revision(), 1);
}

#[test]
fn a_start_never_waits_for_operators_over_the_network() {
    let office = Office::open(&CLIENTS);
    let reader = office.passport("dashboard");
    let mut socket = WebSocket::open(office.site, "/echo");
    kill9(office.gateway.supervisor_pid());
    eventually(Patience::USUAL, "the supervisor to be gone", || {
        office.gateway.has_ended().then_some(())
    });
    let taken = TcpListener::bind(("127.0.0.1", office.port)).unwrap();
    let key = std::fs::read(&office.own.key_file).unwrap();
    std::fs::write(&office.own.key_file, "no key").unwrap();
    office.gateway.start_again();
    assert_eq!(get(office.site, "/whoami").unwrap().text(), "one");
    assert!(socket.echoes("still here"));
    let problem = "admin over the network is not as the document says";
    assert!(office.gateway.must(&["status"]).contains(problem));
    std::fs::write(&office.own.key_file, key).unwrap();
    drop(taken);
    eventually(Patience::LONG, "admin over the network to be back", || {
        office.call(&reader, &["status"]).status.success().then_some(())
    });
    assert!(!office.gateway.must(&["status"]).contains(problem));
}

#[test]
fn workers_and_the_executable_are_replaced_over_the_network() {
    let office = Office::open(&CLIENTS);
    let deploy = office.passport("deploy");
    let mut socket = WebSocket::open(office.site, "/echo");
    let workers = office.gateway.worker_pids();
    let said = office.must(&deploy, &["restart"]);
    assert!(said.contains("the successor serves"), "{said}");
    office.must(&deploy, &["upgrade"]);
    assert!(socket.echoes("still here"));
    assert_ne!(office.gateway.worker_pids(), workers);
    office.audit("method=\"Upgrade\" by=\"certificate deploy from", 1);
    office.must(&office.passport("dashboard"), &["status"]);
}

#[test]
fn a_supervisor_that_comes_back_listens_again() {
    let office = Office::open(&CLIENTS);
    let deploy = office.passport("deploy");
    let gateway = &office.gateway;
    gateway.apply(&office.document(&[("deploy", "change")]));
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    office.must(&deploy, &["status"]);
    assert_eq!(gateway.revision(), 2, "the document that was applied is in force");
}
