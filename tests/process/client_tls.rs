//! What clients are offered in TLS, and that they may go on with their sessions wherever their next connection leads.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::harness::{
    Backend, Certificate, Document, Gateway, Mirror, Patience, Visitor, directory, eventually,
    field, free_port, tools, words,
};
use crate::upgrade::{executable, upgrade_to};

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];
const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

fn document(backend: &Backend, port: u16, sites: &[(&str, &Certificate)]) -> Document {
    let document = Document::new().pool("chat", &[backend.address]);
    sites.iter().fold(document, |document, (name, certificate)| {
        document.tls_site(name, port, certificate, "chat")
    })
}

/// A gateway with one site for a.test, and clients who keep their sessions.
struct Scene {
    gateway: Gateway,
    regulars: Regulars,
    site: Certificate,
    port: u16,
    /// Answers for as long as the scene lasts.
    _backend: Backend,
}

/// A client of TLS 1.2 and one of TLS 1.3.
struct Regulars {
    visitors: [Visitor; 2],
    port: u16,
}

impl Scene {
    fn start() -> Self {
        let directory = directory();
        let site = Certificate::make(directory.path(), "site", "a.test");
        let (backend, port) = (Backend::start("one"), free_port());
        let gateway = Gateway::start_in(directory, &document(&backend, port, &[("a", &site)]));
        let visitors = VERSIONS.map(|versions| Visitor::new(&[&site], None, versions));
        Self { gateway, regulars: Regulars { visitors, port }, site, port, _backend: backend }
    }
}

impl Regulars {
    /// Whether each went on with the session that it had.
    fn come_again(&self) -> [bool; 2] {
        self.visitors.each_ref().map(|visitor| {
            let (answer, resumed) = visitor.get(self.port, "a.test").unwrap();
            assert_eq!(answer.status, 200);
            resumed
        })
    }
}

#[test]
fn a_sites_own_policy_wins_over_the_gateways() {
    let directory = directory();
    let [new, old] = ["new", "old"]
        .map(|name| Certificate::make(directory.path(), name, &format!("{name}.test")));
    let (backend, port) = (Backend::start("one"), free_port());
    let mut document = document(&backend, port, &[("new", &new), ("old", &old)]);
    let properties = &mut document.0["properties"];
    properties["sslPolicy"] = json!({"policyType": "CustomV2", "minProtocolVersion": "TLSv1_3"});
    properties["sslProfiles"] = json!([{"name": "old", "properties": {"sslPolicy":
        {"policyType": "Predefined", "policyName": "AppGwSslPolicy20170401S"}}}]);
    let link = json!({"id": "/sslProfiles/old"});
    let document = document.set("httpListeners", "old", "sslProfile", link);
    let gateway = Gateway::start_in(directory, &document);
    let speaks = |host: &str, versions| {
        let visitor = Visitor::new(&[&new, &old], None, versions);
        visitor.get(port, host).is_ok_and(|(answer, _)| answer.status == 200)
    };
    assert!(speaks("new.test", VERSIONS[1]) && !speaks("new.test", VERSIONS[0]));
    assert!(speaks("old.test", VERSIONS[0]) && !speaks("old.test", VERSIONS[1]));
    let effective = gateway.must(&["config"]);
    assert!(effective.contains("AppGwSslPolicy20170401S"), "{effective}");
}

#[test]
fn backends_are_told_what_software_a_client_is_where_azure_tells_them() {
    let directory = directory();
    let [new, old] = ["new", "old"]
        .map(|name| Certificate::make(directory.path(), name, &format!("{name}.test")));
    let (mirror, port) = (Mirror::start(&[]), free_port());
    let mut document = Document::new()
        .pool("chat", &[mirror.address])
        .tls_site("new", port, &new, "chat")
        .tls_site("old", port, &old, "chat");
    let properties = &mut document.0["properties"];
    properties["enableHttp2"] = json!(true);
    properties["sslProfiles"] = json!([{"name": "old", "properties": {"sslPolicy":
        {"policyType": "Predefined", "policyName": "AppGwSslPolicy20170401S"}}}]);
    let link = json!({"id": "/sslProfiles/old"});
    let gateway =
        Gateway::start_in(directory, &document.set("httpListeners", "old", "sslProfile", link));
    let visitor = |versions| Visitor::new(&[&new, &old], None, versions);
    let told = |host: &str, versions| {
        let (answer, _) = visitor(versions).get(port, host).unwrap();
        field(&answer.text(), "x-azure-ja4-fingerprint")
    };
    let [twelve, thirteen] = VERSIONS.map(|versions| told("new.test", versions).unwrap());
    assert_eq!([&twelve[..4], &thirteen[..4]], ["t12d", "t13d"]);
    assert_eq!([twelve.len(), thirteen.len()], [36, 36]);
    assert_eq!(told("new.test", VERSIONS[1]), Some(thirteen.clone()));
    assert_eq!(told("old.test", VERSIONS[0]), None);

    let mut http2 = visitor(VERSIONS[1]).http2(port, "new.test");
    let answer = String::from_utf8(http2.get("/").unwrap().body).unwrap();
    let over_http2 = field(&answer, "x-azure-ja4-fingerprint").unwrap();
    // The same software with one extension more, which is named and does not count otherwise.
    assert_eq!((&over_http2[8..10], &over_http2[10..]), ("h2", &thirteen[10..]));
    assert_eq!(&thirteen[8..10], "00");

    gateway.must(&["restart"]);
    assert_eq!(told("new.test", VERSIONS[1]), Some(thirteen));
}

#[test]
fn the_order_of_suites_in_a_policy_decides_and_a_change_touches_no_connection() {
    let directory = directory();
    let site = Certificate::make(directory.path(), "site", "a.test");
    let (backend, port) = (Backend::start("one"), free_port());
    let with = |suites: [&str; 2]| {
        let mut document = document(&backend, port, &[("a", &site)]);
        document.0["properties"]["sslPolicy"] = json!({"policyType": "Custom",
            "minProtocolVersion": "TLSv1_2", "cipherSuites": suites});
        document
    };
    let [small, large] =
        ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"];
    let gateway = Gateway::start_in(directory, &with([small, large]));
    let visit = || Visitor::new(&[&site], None, BOTH).visit(port, "a.test").unwrap();
    let mut kept = visit();
    assert_eq!(kept.suite(), small);
    gateway.apply(&with([large, small]));
    assert_eq!(visit().suite(), large);
    assert_eq!(kept.get("a.test").unwrap().status, 200);
    assert_eq!(kept.suite(), small);
}

#[test]
fn a_policy_of_which_nothing_is_left_is_refused_by_name() {
    let directory = directory();
    let site = Certificate::make(directory.path(), "site", "a.test");
    let backend = Backend::start("one");
    for (policy, why) in [
        (
            json!({"policyType": "Custom", "cipherSuites": ["TLS_RSA_WITH_AES_128_CBC_SHA"]}),
            "AppGwSslPolicy20220101S",
        ),
        // The certificate's key is an EC key.
        (
            json!({"policyType": "Custom", "cipherSuites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]}),
            "ECDHE_ECDSA",
        ),
    ] {
        let mut document = document(&backend, free_port(), &[("a", &site)]);
        document.0["properties"]["sslPolicy"] = policy;
        let said = words(&Gateway::start_refused(&document.text()));
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_client_goes_on_with_its_session_at_the_next_worker_and_the_one_after_a_crash() {
    let scene = Scene::start();
    let (gateway, regulars) = (&scene.gateway, &scene.regulars);
    let all = |expected: bool, when: &str| {
        assert_eq!(regulars.come_again(), [expected; 2], "TLS 1.2 and 1.3, {when}");
    };
    all(false, "at first");
    all(true, "with the same worker");
    gateway.replace_in_order();
    all(true, "after a restart");
    gateway.replace_by_force();
    all(true, "after a worker's death");
}

#[test]
fn a_session_outlives_the_supervisor_with_the_worker_that_made_it() {
    let scene = Scene::start();
    let (gateway, regulars) = (&scene.gateway, &scene.regulars);
    let resumed = || regulars.come_again();
    assert_eq!(resumed(), [false, false]);
    gateway.signal(Signal::SIGKILL);
    eventually(Patience::USUAL, "the supervisor to be gone", || gateway.has_ended().then_some(()));
    let worker = gateway.children();
    gateway.start_again();
    assert!(worker.contains(&gateway.worker_pid()));
    // The old keys open still, and what they opened is sealed with the new supervisor's.
    assert_eq!(resumed(), [true, true]);
    gateway.replace_in_order();
    assert_eq!(resumed(), [true, true]);
}

#[test]
fn a_session_outlives_an_upgrade() {
    let scene = Scene::start();
    let (gateway, regulars) = (&scene.gateway, &scene.regulars);
    let resumed = || regulars.come_again();
    assert_eq!(resumed(), [false, false]);
    let outcome = upgrade_to(gateway, &executable(gateway, "9.9.9"));
    assert_eq!(outcome["outcome"], "done");
    assert_eq!(resumed(), [true, true]);
}

#[test]
fn openssl_goes_on_with_its_session_after_a_restart() {
    if tools("sessions of OpenSSL").is_none() {
        return;
    }
    let scene = Scene::start();
    let (gateway, port) = (&scene.gateway, scene.port);
    let request = "GET /whoami HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let request = gateway.write("request", request);
    let ask = |version: &str, which: &str, session: &Path| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-ign_eof", version, "-servername", "a.test", which]);
        command.arg(session).args(["-connect", &format!("127.0.0.1:{port}")]);
        words(&command.stdin(std::fs::File::open(&request).unwrap()).output().unwrap())
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let session = gateway.path().join(version);
        let said = ask(version, "-sess_out", &session);
        assert!(said.contains("HTTP/1.1 200") && said.contains("New, TLSv1"), "{said}");
        gateway.replace_in_order();
        let said = ask(version, "-sess_in", &session);
        assert!(said.contains("HTTP/1.1 200") && said.contains("Reused, TLSv1"), "{said}");
    }
}

#[test]
fn no_key_of_a_ticket_is_written_anywhere() {
    let scene = Scene::start();
    let (gateway, port) = (&scene.gateway, scene.port);
    let visitor = Visitor::new(&[&scene.site], None, BOTH);
    visitor.get(port, "a.test").unwrap();
    // Everything starts anew: if a key had been kept, this would go on.
    gateway.kill_everything();
    gateway.start_again();
    assert!(!visitor.get(port, "a.test").unwrap().1);
}
