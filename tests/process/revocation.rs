//! Certificates of clients that were revoked, and responders that are there, gone, or not to be believed: OpenSSL's.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::client_auth::{profile, uses};
use crate::harness::{
    Authority, Backend, Certificate, Document, Gateway, Passport, Patience, Responder, Visitor,
    directory, eventually, frame, free_port, tools,
};

/// Numbers of certificates.
const JANE: u8 = 5;
const EVE: u8 = 6;
const NEW: u8 = 7;
/// What the responder knows of them.
const KNOWN: &[(u8, bool)] = &[(JANE, true), (EVE, false)];
/// An answer that outlasts every test.
const LONG: u32 = 60;

/// A gateway with a site that asks for certificates of `staff`, and their responder about them.
struct Scene {
    gateway: Gateway,
    port: u16,
    site: Certificate,
    staff: Authority,
    strangers: Authority,
    responder_port: u16,
    log: PathBuf,
    _backend: Backend,
}

impl Scene {
    /// None: there is no OpenSSL.
    fn start(mode: &str) -> Option<Self> {
        tools("revocation of clients' certificates with OpenSSL")?;
        let directory = directory();
        let path = directory.path();
        let site = Certificate::make(path, "site", "staff.test");
        let (staff, strangers) =
            (Authority::make(path, "staff"), Authority::make(path, "strangers"));
        let (port, responder_port) = (free_port(), free_port());
        let log = path.join("access.log");
        let backend = Backend::start("one");
        let settings = json!({"verifyClientRevocation": "OCSP", "verifyClientAuthMode": mode});
        let mut document = Document::new()
            .pool("chat", &[backend.address])
            .tls_site("staff", port, &site, "chat")
            .holdfast("accessLog", json!({"destination": "file", "file": log}));
        document.0["properties"]["enableHttp2"] = true.into();
        let document = uses(profile(document, "staff", &[&staff], &settings), "staff", "staff");
        let gateway = Gateway::start_in(directory, &document);
        Some(Self { gateway, port, site, staff, strangers, responder_port, log, _backend: backend })
    }

    fn responder(&self) -> Responder {
        Responder::start(self.responder_port, &self.staff, &self.staff, KNOWN, LONG)
    }

    fn passport(&self, name: &str, number: u8) -> Passport {
        self.staff.passport_with_responder(name, number, self.responder_port)
    }

    fn visitor(&self, passport: &Passport) -> Visitor {
        Visitor::new(&[&self.site], Some(passport), &[&TLS13])
    }

    fn status(&self, passport: &Passport) -> u16 {
        self.visitor(passport).get(self.port, "staff.test").unwrap().0.status
    }

    /// What the log says of each request, once it has as many as that.
    fn logged(&self, count: usize) -> Vec<Value> {
        eventually(Patience::USUAL, "the log's lines", || {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            let lines: Vec<Value> =
                whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (lines.len() >= count)
                .then(|| lines.into_iter().map(|line| line["properties"].clone()).collect())
        })
    }
}

/// A line may come a moment after its answer, so their order says nothing.
fn verdicts(lines: &[Value]) -> Vec<String> {
    sorted(lines.iter().map(|line| line["sslClientVerify"].as_str().unwrap()))
}

fn sorted<'a>(verdicts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut verdicts: Vec<_> = verdicts.map(str::to_owned).collect();
    verdicts.sort();
    verdicts
}

#[test]
fn only_who_is_said_to_be_good_is_let_in_and_the_log_says_why_not() {
    let Some(scene) = Scene::start("Strict") else { return };
    let responder = scene.responder();
    let (jane, eve, new) =
        (scene.passport("jane", JANE), scene.passport("eve", EVE), scene.passport("new", NEW));
    let nameless = scene.staff.passport("nameless");
    let said = [
        (&jane, JANE, 200, "SUCCESS"),
        (&eve, EVE, 400, "FAILED:certificate revoked"),
        (&new, NEW, 400, "FAILED:certificate status unknown"),
        (&nameless, 0, 400, "FAILED:the certificate names no OCSP responder over http"),
    ];
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for (passport, number, status, _) in said {
            let visitor = Visitor::new(&[&scene.site], Some(passport), versions);
            let (answer, _) = visitor.get(scene.port, "staff.test").unwrap();
            assert_eq!(answer.status, status);
            if status == 400 {
                assert!(answer.text().contains("The SSL certificate error"), "{}", answer.text());
                // A responder may say something else before the next request of the connection.
                let is_asked = [EVE, NEW].contains(&number);
                assert_eq!(answer.header("connection"), (!is_asked).then_some("close"));
            }
        }
    }
    let lines = scene.logged(2 * said.len());
    assert_eq!(verdicts(&lines), sorted(said.iter().chain(&said).map(|(.., verdict)| *verdict)));
    for line in &lines {
        assert_eq!(line["sslClientCertificateIssuerName"], "CN=staff");
        assert_eq!(line["sslClientCertificateFingerprint"].as_str().unwrap().len(), 40);
    }
    // Once for each that has a responder; what it does not know it may be asked again.
    assert!((3..=4).contains(&responder.asked()), "{}", responder.asked());
}

#[test]
fn a_websocket_and_http2_need_it_too_and_a_tunnel_outlives_it() {
    let Some(scene) = Scene::start("Strict") else { return };
    let responder = scene.responder();
    let (jane, eve) = (scene.passport("jane", JANE), scene.passport("eve", EVE));
    let open = |passport| {
        let mut visit = scene.visitor(passport).visit(scene.port, "staff.test").unwrap();
        (visit.open("staff.test").unwrap().status, visit)
    };
    assert_eq!(open(&eve).0, 400);
    let (status, mut socket) = open(&jane);
    assert_eq!(status, 101);
    let over_http2 = |passport| {
        let mut client = scene.visitor(passport).http2(scene.port, "staff.test");
        client.get("/whoami").unwrap().status
    };
    assert_eq!((over_http2(&jane), over_http2(&eve)), (200, 400));
    // Now she is revoked, and nobody remembers that she was good.
    drop(responder);
    let known = [(JANE, false)];
    let _responder =
        Responder::start(scene.responder_port, &scene.staff, &scene.staff, &known, LONG);
    scene.gateway.must(&["restart"]);
    assert_eq!((open(&jane).0, over_http2(&jane)), (400, 400));
    socket.write(&frame(b"hello")).unwrap();
    assert_eq!(socket.read(7).unwrap(), b"\x81\x05hello");
}

#[test]
fn without_a_responder_nobody_is_let_in_until_it_is_back_and_then_its_answer_is_kept() {
    let Some(scene) = Scene::start("Strict") else { return };
    let jane = scene.passport("jane", JANE);
    assert_eq!(scene.status(&jane), 400);
    let line = &scene.logged(1)[0];
    assert_eq!(line["sslClientVerify"], "FAILED:certificate status request failed");
    eventually(Patience::USUAL, "the log to say so", || {
        scene.gateway.log().contains("was revoked cannot be learnt").then_some(())
    });
    let responder = scene.responder();
    let visitor = scene.visitor(&jane);
    let mut kept = eventually(Patience::USUAL, "the responder to be asked again", || {
        let mut visit = visitor.visit(scene.port, "staff.test").unwrap();
        (visit.get("staff.test").unwrap().status == 200).then_some(visit)
    });
    assert_eq!(responder.asked(), 1);
    drop(responder);
    // On the same connection, on others, and for sessions that go on.
    assert_eq!(kept.get("staff.test").unwrap().status, 200);
    for _ in 0..3 {
        assert_eq!(visitor.get(scene.port, "staff.test").unwrap().0.status, 200);
    }
    // A process that knows nothing asks, and so it does about a session that is only resumed.
    scene.gateway.must(&["restart"]);
    let (answer, resumed) = visitor.get(scene.port, "staff.test").unwrap();
    assert_eq!((answer.status, resumed), (400, true));
}

#[test]
fn many_clients_at_once_are_one_question() {
    let Some(scene) = Scene::start("Strict") else { return };
    let responder = scene.responder();
    let jane = scene.passport("jane", JANE);
    let (visitor, port) = (scene.visitor(&jane), scene.port);
    let status = || visitor.get(port, "staff.test").unwrap().0.status;
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..20).map(|_| scope.spawn(status)).collect();
        assert!(asking.into_iter().all(|it| it.join().unwrap() == 200));
    });
    assert_eq!(responder.asked(), 1);
}

#[test]
fn a_responder_of_somebody_else_is_not_believed() {
    let Some(scene) = Scene::start("Strict") else { return };
    let jane = scene.passport("jane", JANE);
    let _responder =
        Responder::start(scene.responder_port, &scene.staff, &scene.strangers, KNOWN, LONG);
    assert_eq!(scene.status(&jane), 400);
    eventually(Patience::USUAL, "the log to say why", || {
        scene.gateway.log().contains("signed by nobody who may answer").then_some(())
    });
}

#[test]
fn passthrough_lets_everybody_in_and_tells_what_was_found() {
    let Some(scene) = Scene::start("Passthrough") else { return };
    let _responder = scene.responder();
    let stranger = scene.strangers.passport_with_responder("mallory", EVE, scene.responder_port);
    let said = [
        (scene.passport("jane", JANE), "SUCCESS"),
        (scene.passport("eve", EVE), "FAILED:certificate revoked"),
        (
            scene.staff.passport("nameless"),
            "FAILED:the certificate names no OCSP responder over http",
        ),
        (stranger, "FAILED:unable to get local issuer certificate"),
    ];
    for (passport, verdict) in &said {
        eventually(Patience::USUAL, verdict, || {
            assert_eq!(scene.status(passport), 200);
            let lines = scene.logged(1);
            lines.iter().any(|line| line["sslClientVerify"] == *verdict).then_some(())
        });
    }
}

#[test]
fn passthrough_waits_for_no_responder() {
    let Some(scene) = Scene::start("Passthrough") else { return };
    // It takes questions, and says nothing.
    let _silent = TcpListener::bind(("127.0.0.1", scene.responder_port)).unwrap();
    let jane = scene.passport("jane", JANE);
    assert_eq!(scene.status(&jane), 200);
    let line = &scene.logged(1)[0];
    assert_eq!(line["sslClientVerify"], "FAILED:certificate status not known yet");
    // Nobody has looked at it for what is no request.
    let mut broken = scene.visitor(&jane).visit(scene.port, "staff.test").unwrap();
    broken.write(b"no HTTP at all\r\n\r\n").unwrap();
    let line = &scene.logged(2)[1];
    assert_eq!(line["error_info"], "ERRORINFO_INVALID_REQUEST");
    assert_eq!(line["sslClientCertificateFingerprint"].as_str().unwrap().len(), 40);
    assert!(line.get("sslClientVerify").is_none(), "{line}");
}
