//! What the prober asks backends for, seen from the backends, and what it makes of their answers.

use serde_json::{Value, json};

use crate::harness::{Document, Gateway, Mirror, Patience, eventually, field, free_port, get};

const SETTINGS: &str = "backendHttpSettingsCollection";

/// A mirror behind a probe of these properties; it answers with what it was asked.
fn probed(port: u16, mirror: &Mirror, probe: &[(&str, Value)]) -> Document {
    let document = Document::simple(port, &[mirror.address]);
    probe.iter().fold(document, |document, (name, value)| {
        document.set("probes", "chat", name, value.clone())
    })
}

fn first_line(head: &str) -> &str {
    head.lines().next().unwrap()
}

fn waits_for(gateway: &Gateway, state: &str) {
    eventually(Patience::USUAL, &format!("the backend to be {state}"), || {
        (gateway.health_of("127.0.0.1") == state).then_some(())
    });
}

#[test]
fn a_backend_without_a_custom_probe_is_asked_for_its_root() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let document =
        Document::simple(port, &[mirror.address]).set(SETTINGS, "chat", "probe", Value::Null);
    let gateway = Gateway::start(&document);
    assert_eq!(gateway.health_of("127.0.0.1"), "Healthy");
    assert!(!mirror.heads().is_empty());
    for head in mirror.heads() {
        assert_eq!(first_line(&head), "GET / HTTP/1.1");
        assert_eq!(field(&head, "host").as_deref(), Some("127.0.0.1"));
        assert_eq!(field(&head, "upgrade"), None);
    }
}

#[test]
fn a_custom_probe_asks_where_and_what_it_says() {
    let [mirror, other] = [(); 2].map(|()| Mirror::start(&[]));
    let port = free_port();
    let probe = [
        ("host", json!("probe.test")),
        ("path", json!("/alive?deep=1")),
        ("port", json!(other.address.port().to_string())),
        // The mirror's answer is what it was asked.
        ("match", json!({ "statusCodes": ["204", "200-201"], "body": "host: probe.test" })),
    ];
    let gateway = Gateway::start(&probed(port, &mirror, &probe));
    assert_eq!(gateway.health_of("127.0.0.1"), "Healthy");
    assert_eq!(first_line(&other.heads()[0]), "GET /alive?deep=1 HTTP/1.1");
    assert!(mirror.heads().is_empty(), "the settings' port is for traffic alone");
    assert_eq!(get(port, "/").unwrap().status, 200);
    assert_eq!(mirror.heads().len(), 1);
}

#[test]
fn a_probe_takes_the_host_of_the_settings_where_it_is_to() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let picks = |body: &str| {
        let probe = [
            ("host", Value::Null),
            ("path", json!("/alive")),
            ("pickHostNameFromBackendHttpSettings", json!("True")),
            ("match", json!({ "body": body })),
        ];
        probed(port, &mirror, &probe)
    };
    let named = picks("host: settings.test").set(SETTINGS, "chat", "hostName", "settings.test");
    let gateway = Gateway::start(&named);
    assert_eq!(gateway.health_of("127.0.0.1"), "Healthy");
    gateway.apply(&picks("host: 127.0.0.1").set(
        SETTINGS,
        "chat",
        "pickHostNameFromBackendAddress",
        true,
    ));
    eventually(Patience::USUAL, "a check under the new probe", || {
        mirror.heads().iter().any(|head| head.contains("host: 127.0.0.1\r\n")).then_some(())
    });
    assert_eq!(get(port, "/").unwrap().status, 200);
}

#[test]
fn an_answer_that_does_not_match_takes_the_backend_out_and_says_why() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let probe =
        |matching: Value| probed(port, &mirror, &[("path", json!("/alive")), ("match", matching)]);
    let gateway = Gateway::start(&probe(json!({})));
    assert_eq!(get(port, "/").unwrap().status, 200);
    for (matching, told) in [
        (json!({ "statusCodes": ["204", "300-399"] }), "expected 204, 300-399"),
        (json!({ "body": "no such words" }), "does not contain"),
        (json!({ "body": "host:", "statusCodes": ["401"] }), "expected 401"),
    ] {
        gateway.apply(&probe(matching));
        waits_for(&gateway, "Unhealthy");
        eventually(Patience::USUAL, told, || {
            gateway.must(&["health", "--json"]).contains(told).then_some(())
        });
        eventually(Patience::USUAL, "502", || {
            (get(port, "/").unwrap().status == 502).then_some(())
        });
        gateway.apply(&probe(json!({ "body": "host:", "statusCodes": ["200"] })));
        waits_for(&gateway, "Healthy");
    }
}

#[test]
fn so_many_servers_are_kept_as_the_probe_says_whatever_it_finds() {
    let mirror = Mirror::start(&[]);
    let port = free_port();
    let failing = [
        ("path", json!("/alive")),
        ("match", json!({ "statusCodes": ["401"] })),
        ("minServers", json!(1)),
    ];
    let gateway = Gateway::start(&probed(port, &mirror, &failing));
    assert_eq!(gateway.health_of("127.0.0.1"), "Unhealthy");
    assert_eq!(get(port, "/").unwrap().status, 200);
    gateway.apply(&probed(port, &mirror, &failing[..2]));
    eventually(Patience::USUAL, "502", || (get(port, "/").unwrap().status == 502).then_some(()));
}
