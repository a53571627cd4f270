//! Compilation of whole gateways, from documents.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use holdfast_proto::control::{self, action::Kind};

use super::{Compiled, compile};

fn compiled() -> Compiled {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let text = std::fs::read_to_string(dir.join("gateway.resource.json")).unwrap();
    compile(&crate::config::load(&text, &dir).unwrap().gateway)
}

#[test]
fn sites_stand_in_order_of_priority_and_bindings_are_shared() {
    let compiled = compiled();
    let plain = &compiled.listeners[&"127.0.0.1:8080".parse().unwrap()];
    let names: Vec<_> =
        plain.sites.iter().map(|site| (site.name.as_str(), site.priority)).collect();
    assert_eq!(names, [("old", 20), ("open", 30)]);
    assert_eq!(plain.bindings.len(), 1);
    assert!(plain.certificates.is_empty());

    let secure = &compiled.listeners[&"127.0.0.1:8443".parse().unwrap()];
    let site = secure.sites.first().unwrap();
    assert!(site.tls);
    assert_eq!(site.hosts, ["chat.example.test", "*.chat.example.test"]);
    assert_eq!(site.paths.first().unwrap().patterns, ["/files/*", "/download*"]);
    assert_eq!((secure.certificates.len(), secure.bindings.len()), (1, 2));
    let limits = secure.limits.as_ref().unwrap();
    assert_eq!((limits.threads, limits.drain_timeout_ms), (2, 600_000));
}

#[test]
fn redirects_carry_their_target() {
    let compiled = compiled();
    let plain = &compiled.listeners[&"127.0.0.1:8080".parse().unwrap()];
    let action = plain.sites.first().unwrap().default_action.as_ref().unwrap();
    let Some(Kind::Redirect(redirect)) = &action.kind else { panic!("{action:?}") };
    assert_eq!((redirect.status, redirect.target_url.as_str()), (301, "https://chat.example.test"));
    assert!(redirect.include_path && redirect.include_query);
}

#[test]
fn every_joined_backend_is_probed_once() {
    let compiled = compiled();
    let keys: Vec<String> = compiled
        .targets
        .iter()
        .map(|t| t.key.as_ref().unwrap())
        .map(|k| format!("{}/{}/{}:{}", k.pool, k.settings, k.address, k.port))
        .collect();
    assert_eq!(
        keys,
        ["chat/plain/127.0.0.2:9000", "chat/plain/chat.internal:9000", "files/tls/127.0.0.3:9443"]
    );
    assert_eq!(compiled.min_servers, [("chat".to_owned(), "plain".to_owned(), 1)]);

    let custom = compiled.targets.first().unwrap().probe.as_ref().unwrap();
    assert_eq!((custom.name.as_str(), custom.path.as_str()), ("alive", "/alive"));
    assert_eq!(
        (custom.port, custom.host.as_str(), custom.sni.as_str()),
        (9000, "chat.example.test", "")
    );
    assert_eq!(
        (custom.interval_ms, custom.timeout_ms, custom.unhealthy_threshold),
        (5000, 3000, 2)
    );
    let range = |first, last| control::StatusRange { first, last };
    assert_eq!(custom.statuses, [range(200, 299), range(401, 401)]);

    let default = compiled.targets.last().unwrap().probe.as_ref().unwrap();
    assert_eq!(
        (default.host.as_str(), default.path.as_str(), default.port),
        ("127.0.0.1", "/", 9443)
    );
    assert_eq!((default.interval_ms, default.timeout_ms), (30_000, 30_000));
    assert_eq!(default.scheme(), control::Scheme::Https);
    // An IP literal is no server name.
    assert_eq!(default.sni, "");
    assert!(default.tls.is_some());
}

#[test]
fn draining_that_is_off_still_takes_thirty_seconds() {
    let compiled = compiled();
    let timeouts: Vec<u64> =
        compiled.pools.iter().map(|pool| pool.drain_timeout.as_secs()).collect();
    assert_eq!(timeouts, [60, 30]);
}

#[test]
fn every_pool_and_all_settings_stand_whoever_is_routed_there() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let text = std::fs::read_to_string(dir.join("gateway.resource.json")).unwrap();
    let loaded = crate::config::load(&text, &dir).unwrap();
    let mut gateway = loaded.gateway;
    let routed = compile(&gateway).standing;
    assert_eq!(routed.pools.first().unwrap().addresses, ["127.0.0.2", "chat.internal"]);
    let ports: Vec<_> = routed.settings.iter().map(|it| (it.port, it.drain_timeout_ms)).collect();
    assert_eq!(ports, [(9000, 60_000), (9443, 30_000)]);
    gateway.listeners.clear();
    let unrouted = compile(&gateway);
    assert!(unrouted.pools.is_empty());
    assert_eq!(unrouted.standing, routed);
}
