//! Certificates of clients: who is served, who is told why not, and that no way leads around it.

use std::process::Command;

use nix::sys::signal::Signal;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::harness::{
    Authority, Backend, Certificate, Document, Gateway, Mirror, Passport, Patience, Visitor,
    directory, eventually, field, frame, free_port, tools, words,
};

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];

/// What Azure says to a client that has shown nothing.
const NOTHING_SHOWN: &str = "No required SSL certificate was sent";

/// Adds a profile that asks for certificates of these authorities.
pub(crate) fn profile(
    document: Document,
    name: &str,
    trusted: &[&Authority],
    settings: &Value,
) -> Document {
    let mut document = document;
    let properties = &mut document.0["properties"];
    for key in ["sslProfiles", "trustedClientCertificates"] {
        if properties[key].is_null() {
            properties[key] = json!([]);
        }
    }
    let mut links = Vec::new();
    for (index, authority) in trusted.iter().enumerate() {
        let entry = format!("{name}-{index}");
        links.push(json!({"id": format!("/trustedClientCertificates/{entry}")}));
        properties["trustedClientCertificates"].as_array_mut().unwrap().push(
            json!({"name": entry, "properties": {}, "holdfast": {"certificateFile": authority.file}}),
        );
    }
    properties["sslProfiles"].as_array_mut().unwrap().push(json!({"name": name,
        "properties": {"trustedClientCertificates": links, "clientAuthConfiguration": settings}}));
    document
}

/// Has a site use a profile.
pub(crate) fn uses(document: Document, site: &str, profile: &str) -> Document {
    let link = json!({"id": format!("/sslProfiles/{profile}")});
    document.set("httpListeners", site, "sslProfile", link)
}

/// A gateway with two sites on one address, both of which speak TLS; `strict.test` asks for certificates of `staff`.
struct Scene {
    gateway: Gateway,
    document: Document,
    port: u16,
    strict: Certificate,
    open: Certificate,
    staff: Authority,
    strangers: Authority,
}

impl Scene {
    fn start(settings: &Value) -> Self {
        let directory = directory();
        let path = directory.path();
        let strict = Certificate::make(path, "strict", "strict.test");
        let open = Certificate::make(path, "open", "open.test");
        let staff = Authority::make(path, "staff");
        let strangers = Authority::make(path, "strangers");
        let port = free_port();
        let backend = Backend::start("one");
        let document = Document::new()
            .pool("chat", &[backend.address])
            .tls_site("strict", port, &strict, "chat")
            .tls_site("open", port, &open, "chat");
        let document = uses(profile(document, "staff", &[&staff], settings), "strict", "staff");
        let gateway = Gateway::start_in(directory, &document);
        // The backend lives as long as the process.
        std::mem::forget(backend);
        Self { gateway, document, port, strict, open, staff, strangers }
    }

    fn visitor(
        &self,
        passport: Option<&Passport>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Visitor {
        Visitor::new(&[&self.strict, &self.open], passport, versions)
    }
}

#[test]
fn only_a_certificate_of_the_right_authority_is_let_in() {
    let scene = Scene::start(&json!({"verifyClientAuthMode": "Strict"}));
    let (good, bad) = (scene.staff.passport("jane"), scene.strangers.passport("eve"));
    for versions in VERSIONS {
        let (served, _) =
            scene.visitor(Some(&good), versions).get(scene.port, "strict.test").unwrap();
        assert_eq!((served.status, served.text().as_str()), (200, "one"));
        let (refused, _) =
            scene.visitor(Some(&bad), versions).get(scene.port, "strict.test").unwrap();
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains("The SSL certificate error"), "{}", refused.text());
        assert_eq!(refused.header("connection"), Some("close"));
        let (refused, _) = scene.visitor(None, versions).get(scene.port, "strict.test").unwrap();
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains(NOTHING_SHOWN), "{}", refused.text());
        let (open, _) = scene.visitor(None, versions).get(scene.port, "open.test").unwrap();
        assert_eq!(open.status, 200);
    }
}

#[test]
fn a_websocket_needs_the_certificate_as_any_request_does_and_nothing_after_it() {
    let scene = Scene::start(&json!({}));
    let good = scene.staff.passport("jane");
    let refused = scene.visitor(None, &[&TLS13]).visit(scene.port, "strict.test");
    assert_eq!(refused.unwrap().open("strict.test").unwrap().status, 400);
    let visitor = scene.visitor(Some(&good), &[&TLS13]);
    let mut socket = visitor.visit(scene.port, "strict.test").unwrap();
    assert_eq!(socket.open("strict.test").unwrap().status, 101);
    // The authority goes, and so does the worker; the tunnel knows of neither.
    let strangers = [&scene.strangers];
    let other = profile(scene.document.clone(), "other", &strangers, &json!({}));
    scene.gateway.apply(&uses(other, "strict", "other"));
    scene.gateway.must(&["restart"]);
    socket.write(&frame(b"hello")).unwrap();
    assert_eq!(socket.read(7).unwrap(), b"\x81\x05hello");
    let (refused, resumed) = visitor.get(scene.port, "strict.test").unwrap();
    assert_eq!((refused.status, resumed), (400, false));
}

#[test]
fn another_host_than_the_one_shaken_hands_for_is_no_way_in() {
    let scene = Scene::start(&json!({}));
    let good = scene.staff.passport("jane");
    for passport in [None, Some(&good)] {
        let visitor = scene.visitor(passport, &[&TLS13]);
        let mut visit = visitor.visit(scene.port, "open.test").unwrap();
        assert_eq!(visit.get("open.test").unwrap().status, 200);
        for host in ["strict.test", "STRICT.test", "strict.test:443", "strict.test."] {
            let mut visit = visitor.visit(scene.port, "open.test").unwrap();
            let answer = visit.get(host).unwrap();
            assert_eq!(answer.status, 421, "{host}");
            assert_eq!(answer.header("connection"), Some("close"));
            let mut visit = visitor.visit(scene.port, "open.test").unwrap();
            assert_eq!(visit.open(host).unwrap().status, 421, "{host}");
        }
        // A site that asks nobody may be asked by anybody.
        let mut visit = visitor.visit(scene.port, "strict.test").unwrap();
        assert_eq!(visit.get("open.test").unwrap().status, 200);
    }
}

#[test]
fn two_profiles_are_two_doors() {
    let scene = Scene::start(&json!({}));
    let document = profile(scene.document.clone(), "guests", &[&scene.strangers], &json!({}));
    scene.gateway.apply(&uses(document, "open", "guests"));
    let (staff, guest) = (scene.staff.passport("jane"), scene.strangers.passport("eve"));
    let guest = scene.visitor(Some(&guest), &[&TLS13]);
    let mut visit = guest.visit(scene.port, "open.test").unwrap();
    assert_eq!(visit.get("open.test").unwrap().status, 200);
    assert_eq!(visit.get("strict.test").unwrap().status, 421);
    let staff = scene.visitor(Some(&staff), &[&TLS13]);
    let mut visit = staff.visit(scene.port, "strict.test").unwrap();
    assert_eq!(visit.get("strict.test").unwrap().status, 200);
    assert_eq!(visit.get("open.test").unwrap().status, 421);
}

#[test]
fn a_session_that_is_resumed_is_judged_like_a_new_one() {
    let scene = Scene::start(&json!({}));
    let good = scene.staff.passport("jane");
    for versions in VERSIONS {
        let (none, visitor) = (scene.visitor(None, versions), scene.visitor(Some(&good), versions));
        for resumed in [false, true] {
            let (served, was) = visitor.get(scene.port, "strict.test").unwrap();
            assert_eq!((served.status, was), (200, resumed));
            let (refused, was) = none.get(scene.port, "strict.test").unwrap();
            assert_eq!((refused.status, was), (400, false));
        }
        // A session of the open site is worth nothing here, and the other way round.
        let (served, was) = visitor.get(scene.port, "open.test").unwrap();
        assert_eq!((served.status, was), (200, false));
    }
    let visitor = scene.visitor(Some(&good), &[&TLS13]);
    visitor.get(scene.port, "strict.test").unwrap();
    let other = profile(scene.document.clone(), "other", &[&scene.strangers], &json!({}));
    scene.gateway.apply(&uses(other, "strict", "other"));
    let (refused, resumed) = visitor.get(scene.port, "strict.test").unwrap();
    assert_eq!((refused.status, resumed), (400, false));
}

#[test]
fn passthrough_asks_and_lets_everybody_in() {
    let scene = Scene::start(&json!({"verifyClientAuthMode": "passthrough"}));
    let (good, bad) = (scene.staff.passport("jane"), scene.strangers.passport("eve"));
    for passport in [None, Some(&good), Some(&bad)] {
        let visitor = scene.visitor(passport, &[&TLS13]);
        assert_eq!(visitor.get(scene.port, "strict.test").unwrap().0.status, 200);
    }
}

#[test]
fn a_backend_is_told_of_the_certificate_by_rewrites() {
    let scene = Scene::start(&json!({"verifyClientAuthMode": "Passthrough"}));
    let mirror = Mirror::start(&[]);
    let told =
        ["verification", "subject", "issuer", "serial", "fingerprint", "start_date", "end_date"];
    let mut headers: Vec<Value> = told
        .iter()
        .map(|it| json!({"headerName": format!("X-{it}"), "headerValue": format!("<{{var_client_certificate_{it}}}>")}))
        .collect();
    headers.push(json!({"headerName": "X-Pem", "headerValue": "{var_client_certificate}"}));
    let mut document = scene.document.clone();
    document.0["properties"]["rewriteRuleSets"] = json!([{"name": "told", "properties": {"rewriteRules": [
        {"name": "all", "ruleSequence": 1, "actionSet": {"requestHeaderConfigurations": headers}}]}}]);
    let document = document
        .set(
            "requestRoutingRules",
            "strict",
            "rewriteRuleSet",
            json!({"id": "/rewriteRuleSets/told"}),
        )
        .set("backendHttpSettingsCollection", "chat", "port", mirror.address.port())
        .set(
            "backendAddressPools",
            "chat",
            "backendAddresses",
            json!([{"ipAddress": "127.0.0.1"}]),
        );
    scene.gateway.apply(&document);
    let (good, bad) = (scene.staff.passport("jane"), scene.strangers.passport("eve"));
    let seen = |passport: Option<&Passport>| {
        let visitor = scene.visitor(passport, &[&TLS13]);
        eventually(Patience::USUAL, "the mirror to answer", || {
            let (answer, _) = visitor.get(scene.port, "strict.test").unwrap();
            (answer.status == 200).then_some(answer.text())
        })
    };
    let of = |head: &str, name: &str| field(head, &format!("x-{name}")).unwrap_or_default();
    let head = seen(Some(&good));
    assert_eq!(of(&head, "verification"), "<SUCCESS>");
    assert_eq!([of(&head, "subject"), of(&head, "issuer")], ["<CN=jane>", "<CN=staff>"]);
    assert_eq!(of(&head, "fingerprint").len(), 42);
    for name in ["serial", "start_date", "end_date"] {
        assert!(of(&head, name).len() > 2, "{name}: {head}");
    }
    assert!(of(&head, "pem").starts_with("-----BEGIN CERTIFICATE-----%0A"), "{head}");
    let head = seen(Some(&bad));
    assert!(of(&head, "verification").starts_with("<FAILED:"), "{head}");
    assert_eq!(of(&head, "subject"), "<CN=eve>");
    let head = seen(None);
    assert_eq!(
        [of(&head, "verification"), of(&head, "subject"), of(&head, "pem")],
        ["<NONE>", "<>", ""]
    );
}

#[test]
fn a_changed_file_of_authorities_counts_without_being_asked() {
    let scene = Scene::start(&json!({}));
    let good = scene.staff.passport("jane");
    let visitor = || scene.visitor(Some(&good), &[&TLS13]);
    let mut kept = visitor().visit(scene.port, "strict.test").unwrap();
    assert_eq!(kept.get("strict.test").unwrap().status, 200);
    std::fs::copy(&scene.strangers.file, &scene.staff.file).unwrap();
    eventually(Patience::USUAL, "the old authority to be gone", || {
        let (answer, _) = visitor().get(scene.port, "strict.test").unwrap();
        (answer.status == 400).then_some(())
    });
    assert_eq!(kept.get("strict.test").unwrap().status, 400, "an open connection");
    assert_eq!(scene.gateway.revision(), 1);
    // A worker that is born later knows it, too.
    scene.gateway.must(&["restart"]);
    assert_eq!(visitor().get(scene.port, "strict.test").unwrap().0.status, 400);
}

#[test]
fn openssl_is_let_in_with_its_certificate_and_told_without() {
    if tools("certificates of clients with OpenSSL").is_none() {
        return;
    }
    let scene = Scene::start(&json!({}));
    let good = scene.staff.passport("jane");
    for version in ["-tls1_2", "-tls1_3"] {
        let ask = |more: &[&str]| {
            let request = "GET /whoami HTTP/1.1\r\nHost: strict.test\r\nConnection: close\r\n\r\n";
            let mut command = Command::new("openssl");
            command.args(["s_client", "-quiet", "-ign_eof", version, "-servername", "strict.test"]);
            command.args(["-connect", &format!("127.0.0.1:{}", scene.port)]).args(more);
            let input = scene.gateway.write("request", request);
            words(&command.stdin(std::fs::File::open(input).unwrap()).output().unwrap())
        };
        let [certificate, key] = [&good.certificate, &good.key].map(|file| file.to_str().unwrap());
        let said = ask(&["-cert", certificate, "-key", key]);
        assert!(said.contains("HTTP/1.1 200"), "{said}");
        let said = ask(&[]);
        assert!(said.contains("HTTP/1.1 400") && said.contains(NOTHING_SHOWN), "{said}");
    }
}

#[test]
fn a_supervisor_that_comes_back_still_asks() {
    let scene = Scene::start(&json!({}));
    let good = scene.staff.passport("jane");
    scene.gateway.signal(Signal::SIGKILL);
    eventually(Patience::USUAL, "the supervisor to be gone", || {
        scene.gateway.has_ended().then_some(())
    });
    let status = |passport| {
        scene.visitor(passport, &[&TLS13]).get(scene.port, "strict.test").unwrap().0.status
    };
    assert_eq!((status(None), status(Some(&good))), (400, 200));
    scene.gateway.start_again();
    assert_eq!((status(None), status(Some(&good))), (400, 200));
}

#[test]
fn what_cannot_be_checked_is_refused_before_it_is_served() {
    let directory = directory();
    let certificate = Certificate::make(directory.path(), "site", "a.test");
    let staff = Authority::make(directory.path(), "staff");
    let backend = Backend::start("one");
    let document = || {
        let document = Document::new().pool("chat", &[backend.address]);
        document.tls_site("s", free_port(), &certificate, "chat")
    };
    for (trusted, settings, why) in [
        (&[&staff][..], json!({"verifyClientRevocation": "CRL"}), "none of the values"),
        (&[][..], json!({"verifyClientAuthMode": "Strict"}), "trusts no authority"),
        (&[&staff][..], json!({"verifyClientAuthMode": "Maybe"}), "none of the values"),
    ] {
        let document = uses(profile(document(), "p", trusted, &settings), "s", "p");
        let said = words(&Gateway::start_refused(&document.text()));
        assert!(said.contains(why), "{why}: {said}");
    }
}
