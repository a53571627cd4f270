//! Compilation of whole gateways, from documents.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use holdfast_proto::control::{self, action::Kind};
use prost::Message;
use serde_json::{Value, json};

use super::{Compiled, TooLarge, compile};
use crate::config::gateway::{Gateway, PathMap, RuleTarget};

fn compiled() -> Compiled {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let text = std::fs::read_to_string(dir.join("gateway.resource.json")).unwrap();
    compile(&crate::config::load(&text, &dir).unwrap().gateway).unwrap()
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
    let routed = compile(&gateway).unwrap().standing;
    assert_eq!(routed.pools.first().unwrap().addresses, ["127.0.0.2", "chat.internal"]);
    let ports: Vec<_> = routed.settings.iter().map(|it| (it.port, it.drain_timeout_ms)).collect();
    assert_eq!(ports, [(9000, 60_000), (9443, 30_000)]);
    gateway.listeners.clear();
    let unrouted = compile(&gateway).unwrap();
    assert!(unrouted.pools.is_empty());
    assert_eq!(unrouted.standing, routed);
}

/// A gateway with so many sites on each of so many listeners, whose rules share a path map, and these pages.
fn large(listeners: usize, sites: usize, pages: &Value, base: &Path) -> Gateway {
    let id = |collection: &str, name: &str| json!({ "id": format!("/{collection}/{name}") });
    let each = |write: &dyn Fn(usize, usize) -> Value| -> Value {
        let all = (0..listeners).flat_map(|at| (0..sites).map(move |site| (at, site)));
        all.map(|(at, site)| write(at, site)).collect()
    };
    let pool = id("backendAddressPools", "b");
    let settings = id("backendHttpSettingsCollection", "s");
    let document = json!({
        "frontendIPConfigurations": [{ "name": "f", "holdfast": { "address": "127.0.0.1" } }],
        "frontendPorts": (0..listeners)
            .map(|at| json!({ "name": format!("p{at}"), "port": 8000 + at })).collect::<Value>(),
        "backendAddressPools": [{ "name": "b", "backendAddresses": [{ "fqdn": "b.test" }] }],
        "backendHttpSettingsCollection": [{ "name": "s", "port": 80 }],
        "urlPathMaps": [{ "name": "m", "defaultBackendAddressPool": pool,
            "defaultBackendHttpSettings": settings, "pathRules": [{ "name": "one",
                "paths": ["/one"], "backendAddressPool": pool, "backendHttpSettings": settings }] }],
        "httpListeners": each(&|at, site| json!({
            "name": format!("l{at}-{site}"), "hostName": format!("h{site}.test"),
            "frontendIPConfiguration": id("frontendIPConfigurations", "f"),
            "frontendPort": id("frontendPorts", &format!("p{at}")),
        })),
        "requestRoutingRules": each(&|at, site| json!({
            "name": format!("r{at}-{site}"), "ruleType": "PathBasedRouting",
            "httpListener": id("httpListeners", &format!("l{at}-{site}")),
            "urlPathMap": id("urlPathMaps", "m"),
        })),
        "customErrorConfigurations": pages,
    });
    crate::config::load(&document.to_string(), base).unwrap().gateway
}

#[test]
fn a_page_is_carried_once_by_each_listener_and_copied_by_none() {
    let dir = tempfile::tempdir().unwrap();
    let length = 1024 * 1024 - 1;
    std::fs::write(dir.path().join("page.html"), vec![b'x'; length]).unwrap();
    let statuses = [400, 403, 404, 405, 408, 500, 502, 503, 504];
    let page = |status| json!({ "statusCode": format!("HttpStatus{status}"), "holdfast": { "file": "page.html" } });
    let gateway = large(200, 2, &statuses.map(page).to_vec().into(), dir.path());
    let compiled = compile(&gateway).unwrap();
    assert_eq!(compiled.listeners.len(), 200);
    let own = gateway.error_pages[0].body.as_ref().unwrap();
    for listener in compiled.listeners.values() {
        let pages = &listener.error_pages;
        assert_eq!(pages.iter().map(|page| page.status).collect::<Vec<_>>(), statuses);
        let carried: Vec<_> = pages.iter().filter(|page| page.body_of.is_none()).collect();
        assert_eq!((carried.len(), carried[0].body.len()), (1, length));
        assert_eq!(carried[0].body.as_ptr(), own.as_ptr(), "no listener has a copy");
        assert!(pages[1..].iter().all(|page| page.body_of == Some(0) && page.body.is_empty()));
        assert!(listener.encoded_len() < length + 4096);
    }
}

#[test]
fn what_no_worker_could_be_sent_is_refused() {
    let mut gateway = large(2, 260, &json!([]), Path::new("/"));
    let mut map = PathMap::clone(&gateway.path_maps[0]);
    map.paths[0].patterns = vec![format!("/{}", "x".repeat(1024 * 1024))];
    let map = Arc::new(map);
    let listener = &mut gateway.listeners[1];
    for site in &mut listener.sites {
        let rule = Arc::make_mut(site).rule.as_mut().unwrap();
        Arc::make_mut(rule).target = RuleTarget::PathBased(Arc::clone(&map));
    }
    let refused = compile(&gateway).unwrap_err();
    let limit = holdfast_proto::LONGEST_MESSAGE;
    assert_eq!(refused, TooLarge::Listener { listener: "127.0.0.1:8001".parse().unwrap(), limit });
    assert!(refused.to_string().contains("the worker of 127.0.0.1:8001"), "{refused}");
    gateway.listeners[1].sites.truncate(200);
    let compiled = compile(&gateway).unwrap();
    assert!(compiled.listeners.values().all(|it| it.encoded_len() < limit));
}

/// The probes of a pool of two under these settings, in order of their addresses.
fn probes(settings: &Value, probe: &Value) -> Vec<control::Probe> {
    let id = |collection: &str, name: &str| json!({ "id": format!("/{collection}/{name}") });
    let mut settings = settings.clone();
    settings["name"] = "s".into();
    settings["port"] = 8443.into();
    if !probe.is_null() {
        settings["probe"] = id("probes", "q");
    }
    let mut probe = if probe.is_null() { json!({}) } else { probe.clone() };
    probe["name"] = "q".into();
    let document = json!({
        "frontendIPConfigurations": [{ "name": "f", "holdfast": { "address": "127.0.0.1" } }],
        "frontendPorts": [{ "name": "p", "port": 8080 }],
        "probes": [probe],
        "backendAddressPools": [
            { "name": "b", "backendAddresses": [{ "fqdn": "b.internal" }, { "ipAddress": "::1" }] },
            { "name": "idle", "backendAddresses": [{ "fqdn": "idle.internal" }] },
        ],
        "backendHttpSettingsCollection": [settings, { "name": "idle", "port": 80 }],
        "httpListeners": [{ "name": "l", "frontendIPConfiguration": id("frontendIPConfigurations", "f"),
            "frontendPort": id("frontendPorts", "p") }],
        "requestRoutingRules": [{ "name": "r", "httpListener": id("httpListeners", "l"),
            "backendAddressPool": id("backendAddressPools", "b"),
            "backendHttpSettings": id("backendHttpSettingsCollection", "s") }],
    });
    let loaded = crate::config::load(&document.to_string(), Path::new(".")).unwrap();
    let targets = compile(&loaded.gateway).unwrap().targets;
    let addresses: Vec<_> =
        targets.iter().map(|target| target.key.as_ref().unwrap().address.as_str()).collect();
    assert_eq!(addresses, ["::1", "b.internal"], "what no rule joins is not probed");
    targets.into_iter().map(|target| target.probe.unwrap()).collect()
}

#[test]
fn a_pool_under_two_settings_is_probed_under_each() {
    let id = |collection: &str, name: &str| json!({ "id": format!("/{collection}/{name}") });
    let site = |name: &str| {
        json!({ "name": name, "hostName": format!("{name}.test"),
            "frontendIPConfiguration": id("frontendIPConfigurations", "f"), "frontendPort": id("frontendPorts", "p") })
    };
    let rule = |name: &str, settings: &str| {
        json!({ "name": name, "httpListener": id("httpListeners", name),
            "backendAddressPool": id("backendAddressPools", "b"),
            "backendHttpSettings": id("backendHttpSettingsCollection", settings) })
    };
    let document = json!({
        "frontendIPConfigurations": [{ "name": "f", "holdfast": { "address": "127.0.0.1" } }],
        "frontendPorts": [{ "name": "p", "port": 8080 }],
        "backendAddressPools": [{ "name": "b", "backendAddresses": [{ "fqdn": "b1" }, { "fqdn": "b2" }] }],
        "backendHttpSettingsCollection": [{ "name": "s", "port": 80 }, { "name": "t", "port": 80 }],
        "httpListeners": [site("one"), site("two"), site("three")],
        "requestRoutingRules": [rule("one", "s"), rule("two", "t"), rule("three", "s")],
    });
    let loaded = crate::config::load(&document.to_string(), Path::new(".")).unwrap();
    let targets = compile(&loaded.gateway).unwrap().targets;
    let keys = targets.iter().map(|target| target.key.as_ref().unwrap());
    let keys: Vec<_> = keys.map(|it| (it.settings.as_str(), it.address.as_str())).collect();
    assert_eq!(keys, [("s", "b1"), ("s", "b2"), ("t", "b1"), ("t", "b2")]);
}

#[test]
fn a_probe_has_the_host_that_it_or_its_settings_name() {
    let picks = json!({ "pickHostNameFromBackendHttpSettings": true });
    let named = json!({ "host": "probe.test" });
    let own = json!({ "pickHostNameFromBackendAddress": true });
    let override_ = json!({ "hostName": "settings.test" });
    for (settings, probe, hosts) in [
        (json!({}), Value::Null, ["127.0.0.1", "127.0.0.1"]),
        (override_.clone(), Value::Null, ["127.0.0.1", "127.0.0.1"]),
        (override_.clone(), named.clone(), ["probe.test", "probe.test"]),
        (json!({}), json!({}), ["127.0.0.1", "127.0.0.1"]),
        (json!({}), picks.clone(), ["127.0.0.1", "127.0.0.1"]),
        (override_, picks.clone(), ["settings.test", "settings.test"]),
        (own, picks, ["[::1]", "b.internal"]),
    ] {
        let found = probes(&settings, &probe);
        let found: Vec<_> = found.iter().map(|it| it.host.as_str()).collect();
        assert_eq!(found, hosts, "{settings} {probe}");
    }
}

#[test]
fn a_probe_shakes_hands_for_the_name_that_is_nearest() {
    let https = |more: Value| {
        let mut settings = more;
        settings["protocol"] = "Https".into();
        settings
    };
    let custom = |host: Value| json!({ "protocol": "Https", "host": host });
    for (settings, probe, names) in [
        (https(json!({})), Value::Null, ["", "b.internal"]),
        (https(json!({ "hostName": "s.test" })), Value::Null, ["s.test", "s.test"]),
        (https(json!({ "hostName": "s.test" })), custom("p.test".into()), ["p.test", "p.test"]),
        (https(json!({ "hostName": "s.test" })), custom("10.0.0.1".into()), ["s.test", "s.test"]),
        (
            https(json!({ "hostName": "s.test", "sniName": "sni.test" })),
            custom("p.test".into()),
            ["sni.test", "sni.test"],
        ),
        (json!({ "hostName": "s.test" }), json!({ "host": "p.test" }), ["", ""]),
    ] {
        let found = probes(&settings, &probe);
        let found: Vec<_> = found.iter().map(|it| it.sni.as_str()).collect();
        assert_eq!(found, names, "{settings} {probe}");
    }
}

#[test]
fn a_probe_may_have_a_port_and_a_protocol_of_its_own() {
    let plain = probes(&json!({ "protocol": "Https" }), &Value::Null);
    assert_eq!((plain[0].port, plain[0].scheme()), (8443, control::Scheme::Https));
    let own = json!({ "port": "8081", "protocol": "http", "path": "/alive?deep=1" });
    let own = &probes(&json!({ "protocol": "Https" }), &own)[0];
    assert_eq!((own.port, own.scheme()), (8081, control::Scheme::Http));
    assert_eq!((own.path.as_str(), own.tls.is_some()), ("/alive?deep=1", false));
}
