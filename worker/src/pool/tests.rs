//! Host, path and what a new revision keeps.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use holdfast_proto::control as wire;

use super::*;
use crate::route::Router;

/// A binding over HTTP with the given backends; tests change what they are about.
pub(crate) fn wire_binding(backends: &[(&str, u16)]) -> wire::PoolBinding {
    wire::PoolBinding {
        pool: "pool".to_owned(),
        settings: "settings".to_owned(),
        backends: backends
            .iter()
            .map(|&(address, port)| wire::Backend {
                address: address.to_owned(),
                port: u32::from(port),
            })
            .collect(),
        backend_settings: Some(wire::BackendSettings {
            scheme: wire::Scheme::Http.into(),
            request_timeout_ms: 20_000,
            host: wire::HostChoice::Client.into(),
            drain_timeout_ms: 30_000,
            ..Default::default()
        }),
        distribution: None,
    }
}

fn with(change: impl FnOnce(&mut wire::BackendSettings)) -> wire::PoolBinding {
    let mut binding = wire_binding(&[("10.0.0.1", 80), ("::1", 81), ("app.internal", 82)]);
    change(binding.backend_settings.as_mut().unwrap());
    binding
}

fn compile(change: impl FnOnce(&mut wire::BackendSettings)) -> Binding {
    Binding::compile(with(change), None, Context::default()).unwrap()
}

#[test]
fn the_host_is_chosen_by_the_settings() {
    let named = |settings: &mut wire::BackendSettings| {
        settings.host = wire::HostChoice::Named.into();
        settings.host_name = "named.com".to_owned();
    };
    let own = |settings: &mut wire::BackendSettings| {
        settings.host = wire::HostChoice::Backend.into();
    };
    let host = |binding: Binding, index: usize| {
        let client_host = HeaderValue::from_static("client.com:8080");
        binding.host_for(&binding.backends[index], &client_host)
    };
    assert_eq!(host(compile(|_| ()), 0), "client.com:8080");
    assert_eq!(host(compile(named), 0), "named.com");
    assert_eq!(host(compile(own), 0), "10.0.0.1");
    assert_eq!(host(compile(own), 1), "[::1]");
    assert_eq!(host(compile(own), 2), "app.internal");
    let client = compile(|_| ());
    assert_eq!(client.host_for(&client.backends[2], &HeaderValue::from_static("")), "app.internal");
}

#[test]
fn labels_are_for_people() {
    let binding = compile(|_| ());
    let labels: Vec<_> = binding.backends.iter().map(|backend| backend.label()).collect();
    assert_eq!(labels, ["10.0.0.1:80", "[::1]:81", "app.internal:82"]);
}

fn forwarded(prefix: &str, pattern: Option<&str>, original: &str) -> String {
    let binding = compile(|settings| settings.path_prefix = prefix.to_owned());
    let action = || {
        Some(wire::Action {
            kind: Some(wire::action::Kind::Forward(wire::Forward { binding: 0 })),
            ..Default::default()
        })
    };
    let site = wire::Site {
        paths: pattern
            .map(|pattern| wire::PathRoute {
                patterns: vec![pattern.to_owned()],
                action: action(),
                ..Default::default()
            })
            .into_iter()
            .collect(),
        default_action: action(),
        ..Default::default()
    };
    let router = Router::compile(vec![site], 1, 0).unwrap();
    let original = PathAndQuery::try_from(original).unwrap();
    let matched = router.route(false, None, original.path()).unwrap().matched_prefix;
    binding.path_for(&matched, &original).to_string()
}

#[test]
fn the_path_override_follows_azures_table() {
    for (prefix, pattern, original, wanted) in [
        ("/override/", None, "/home/", "/override/home/"),
        ("/override/", None, "/home/second/?a=b", "/override/home/second/?a=b"),
        ("/override/", Some("/pathrule*"), "/pathrule/home/", "/override/home/"),
        ("/override/", Some("/pathrule/home*"), "/pathrule/home/", "/override/"),
        ("/override/", Some("/pathrule/home*"), "/pathrule/home/2nd/", "/override/2nd/"),
        ("/override/", Some("/pathrule/"), "/pathrule/", "/override/"),
        ("/override/", Some("/other*"), "/pathrule/", "/override/pathrule/"),
        ("/override", Some("/images/*"), "/IMAGES/a%20b?x", "/override/a%20b?x"),
        ("/", Some("/api/*"), "/api/v1", "/v1"),
        ("", Some("/api/*"), "/api/v1?x=/y", "/api/v1?x=/y"),
        ("/override", None, "*", "*"),
    ] {
        assert_eq!(forwarded(prefix, pattern, original), wanted, "{prefix} {pattern:?} {original}");
    }
}

#[test]
fn a_new_revision_keeps_what_did_not_change() {
    let first = compile(|_| ());
    let second = Binding::compile(
        with(|settings| settings.request_timeout_ms = 1),
        Some(&first),
        Context::default(),
    )
    .unwrap();
    assert!(Arc::ptr_eq(&first.backends[0], &second.backends[0]));
    assert!(Arc::ptr_eq(&first.cursor, &second.cursor));
    assert!(Arc::ptr_eq(&first.transport, &second.transport));
    let tls = |validate_name| {
        with(|settings| {
            settings.scheme = wire::Scheme::Https.into();
            settings.tls = Some(wire::BackendTls { validate_name, ..Default::default() });
        })
    };
    let third = Binding::compile(tls(false), Some(&second), Context::default()).unwrap();
    assert!(third.is_tls() && !Arc::ptr_eq(&second.transport, &third.transport));
    let fourth = Binding::compile(tls(false), Some(&third), Context::default()).unwrap();
    assert!(Arc::ptr_eq(&third.transport, &fourth.transport));
    let fifth = Binding::compile(tls(true), Some(&fourth), Context::default()).unwrap();
    assert!(!Arc::ptr_eq(&fourth.transport, &fifth.transport));
}

#[test]
fn the_tls_name_follows_the_host_rule_without_port() {
    let tls = |choice: wire::HostChoice, sni: &str| {
        compile(|settings| {
            settings.scheme = wire::Scheme::Https.into();
            settings.host = choice.into();
            settings.host_name = "named.com:8443".to_owned();
            settings.tls =
                Some(wire::BackendTls { sni_name: sni.to_owned(), ..Default::default() });
        })
    };
    let name = |binding: &Binding, index: usize, client: &str| {
        binding.tls_name(&binding.backends[index], client).unwrap()
    };
    let client = tls(wire::HostChoice::Client, "");
    assert_eq!(name(&client, 0, "client.com:443"), "client.com");
    assert_eq!(name(&client, 2, ""), "app.internal");
    assert_eq!(name(&tls(wire::HostChoice::Named, ""), 0, "client.com"), "named.com");
    assert_eq!(name(&tls(wire::HostChoice::Backend, ""), 1, "client.com"), "::1");
    assert_eq!(name(&tls(wire::HostChoice::Named, "sni.com"), 0, "client.com"), "sni.com");
    let plain = compile(|_| ());
    assert_eq!(plain.tls_name(&plain.backends[0], "client.com"), None);
}

#[test]
fn bindings_that_cannot_work_are_refused() {
    let refused = |change: fn(&mut wire::BackendSettings)| {
        Binding::compile(with(change), None, Context::default()).unwrap_err().to_string()
    };
    assert_eq!(refused(|s| s.scheme = 9), "scheme 9 is unknown");
    assert_eq!(refused(|s| s.host = 0), "host choice 0 is unknown");
    assert_eq!(refused(|s| s.host = wire::HostChoice::Named.into()), "host name \"\" is not valid");
    assert_eq!(refused(|s| s.path_prefix = "no slash".into()), "path \"no slash\" is not valid");
    let zero =
        Binding::compile(wire_binding(&[("10.0.0.1", 0)]), None, Context::default()).unwrap_err();
    assert_eq!(zero.to_string(), "backend \"10.0.0.1\" port 0 is not valid");
    let root = refused(|s| {
        s.scheme = wire::Scheme::Https.into();
        s.tls = Some(wire::BackendTls {
            trusted_roots_der: vec![vec![1, 2, 3]],
            validate_chain: true,
            ..Default::default()
        });
    });
    assert_eq!(root, "TLS towards the backends");
}
