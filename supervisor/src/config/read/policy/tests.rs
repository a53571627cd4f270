//! What documents say of policies, affinity and dedicated connections, from reading to what workers get.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use holdfast_proto::control;
use serde_json::{Value, json};

use crate::compile::compile;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::gateway::{Algorithm, RuleTarget};
use crate::config::{Loaded, effective, load};

fn link(collection: &str, name: &str) -> Value {
    json!({ "id": format!("/x/{collection}/{name}") })
}

/// Two pools, one policy over them, and a rule that goes by it.
fn document() -> Value {
    let pool = |name: &str, ips: &[&str]| {
        let addresses: Vec<Value> = ips.iter().map(|ip| json!({ "ipAddress": ip })).collect();
        json!({ "name": name, "properties": { "backendAddresses": addresses } })
    };
    let target = |pool: &str, weight: u32| {
        let pool = link("backendAddressPools", pool);
        json!({ "name": "t", "properties": { "weightPerServer": weight, "backendAddressPool": pool } })
    };
    json!({
        "frontendIPConfigurations": [{ "name": "f", "holdfast": { "address": "127.0.0.1" } }],
        "frontendPorts": [{ "name": "p", "properties": { "port": 8080 } }],
        "backendAddressPools": [pool("blue", &["10.0.0.1", "10.0.0.2"]), pool("green", &["10.0.0.3"])],
        "backendHttpSettingsCollection": [{ "name": "s", "properties": { "port": 9000 } }],
        "loadDistributionPolicies": [{ "name": "canary", "properties": {
            "loadDistributionAlgorithm": "LeastConnections",
            "loadDistributionTargets": [target("blue", 90), target("green", 10)],
        } }],
        "httpListeners": [{ "name": "l", "properties": {
            "frontendIPConfiguration": link("frontendIPConfigurations", "f"),
            "frontendPort": link("frontendPorts", "p"), "protocol": "Http" } }],
        "requestRoutingRules": [{ "name": "r", "properties": {
            "ruleType": "Basic", "httpListener": link("httpListeners", "l"),
            "loadDistributionPolicy": link("loadDistributionPolicies", "canary"),
            "backendHttpSettings": link("backendHttpSettingsCollection", "s") } }],
    })
}

fn read(document: &Value) -> Result<Loaded, Vec<Diagnostic>> {
    load(&document.to_string(), Path::new("."))
}

fn good(document: &Value) -> Loaded {
    read(document).unwrap_or_else(|found| panic!("{found:#?}"))
}

fn errors(document: &Value) -> Vec<(String, String)> {
    let found = read(document).unwrap_err();
    let errors = found.into_iter().filter(|it| it.severity == Severity::Error);
    errors.map(|it| (it.path, it.reason)).collect()
}

fn snapshot(document: &Value) -> control::ListenerSnapshot {
    let compiled = compile(&good(document).gateway).unwrap();
    compiled.listeners.into_values().next().unwrap()
}

#[test]
fn a_policy_leads_to_the_bindings_of_its_pools() {
    let loaded = good(&document());
    assert_eq!(loaded.warnings, []);
    let compiled = compile(&loaded.gateway).unwrap();
    let pools: Vec<_> = compiled.pools.iter().map(|it| it.pool.as_str()).collect();
    assert_eq!(pools, ["blue", "green"]);
    assert_eq!(compiled.targets.len(), 3, "every pool is probed as if it were a rule's own");
    let snapshot = snapshot(&document());
    let names: Vec<_> = snapshot.bindings.iter().map(|it| it.pool.as_str()).collect();
    assert_eq!(names, ["blue", "green", "canary"]);
    let shared = snapshot.bindings[2].distribution.as_ref().unwrap();
    assert_eq!(shared.algorithm(), control::DistributionAlgorithm::LeastConnections);
    let shares: Vec<_> = shared.shares.iter().map(|it| (it.binding, it.weight)).collect();
    assert_eq!(shares, [(0, 90), (1, 10)]);
    assert!(snapshot.bindings[2].backends.is_empty());
    let action = snapshot.sites[0].default_action.as_ref().unwrap().kind.as_ref().unwrap();
    assert_eq!(*action, control::action::Kind::Forward(control::Forward { binding: 2 }));
}

#[test]
fn path_rules_and_defaults_go_by_policies_too_and_share_what_plain_rules_use() {
    let mut document = document();
    let (blue, canary) =
        (link("backendAddressPools", "blue"), link("loadDistributionPolicies", "canary"));
    let settings = link("backendHttpSettingsCollection", "s");
    document["urlPathMaps"] = json!([{ "name": "m", "properties": {
        "defaultLoadDistributionPolicy": canary, "defaultBackendHttpSettings": settings,
        "pathRules": [
            { "name": "a", "properties": { "paths": ["/a/*"], "backendAddressPool": blue,
                "backendHttpSettings": settings } },
            { "name": "b", "properties": { "paths": ["/b/*"], "loadDistributionPolicy": canary,
                "backendHttpSettings": settings } },
        ] } }]);
    document["requestRoutingRules"][0]["properties"] = json!({
        "ruleType": "PathBasedRouting", "httpListener": link("httpListeners", "l"),
        "urlPathMap": link("urlPathMaps", "m") });
    assert_eq!(good(&document).warnings, []);
    let names: Vec<_> = snapshot(&document).bindings.into_iter().map(|it| it.pool).collect();
    assert_eq!(names, ["blue", "green", "canary"]);
}

#[test]
fn words_and_figures_are_read_as_azure_writes_them() {
    for (word, algorithm) in [
        (json!("roundROBIN"), Algorithm::RoundRobin),
        (json!("leastconnections"), Algorithm::LeastConnections),
        (json!("IPHASH"), Algorithm::IpHash),
        (json!(null), Algorithm::RoundRobin),
        (json!(""), Algorithm::RoundRobin),
    ] {
        let mut document = document();
        let policy = &mut document["loadDistributionPolicies"][0]["properties"];
        policy["loadDistributionAlgorithm"] = word;
        let targets = &mut policy["loadDistributionTargets"];
        targets[0]["properties"]["weightPerServer"] = json!("7");
        targets[1]["properties"].as_object_mut().unwrap().remove("weightPerServer");
        let gateway = good(&document).gateway;
        assert_eq!(gateway.policies[0].algorithm, algorithm);
        let weights: Vec<_> = gateway.policies[0].shares.iter().map(|it| it.weight).collect();
        assert_eq!(weights, [7, 1]);
    }
}

#[test]
fn policies_that_mean_nothing_are_errors_with_their_place() {
    let at = "loadDistributionPolicies[0].properties.loadDistributionTargets";
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut document = document();
        change(&mut document["loadDistributionPolicies"][0]["properties"]);
        errors(&document)
    };
    for weight in [json!(0), json!(101), json!(-1), json!("ten"), json!(1.5)] {
        let found = broken(&|policy| {
            policy["loadDistributionTargets"][0]["properties"]["weightPerServer"] = weight.clone();
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, format!("{at}[0].properties.weightPerServer"), "{weight}");
    }
    let found = broken(&|policy| policy["loadDistributionAlgorithm"] = json!("Random"));
    assert_eq!(found[0].0, "loadDistributionPolicies[0].properties.loadDistributionAlgorithm");
    let found = broken(&|policy| policy["loadDistributionTargets"] = json!([]));
    assert_eq!(found, [(at.to_owned(), "the policy has no targets".to_owned())]);
    let found = broken(&|policy| {
        policy["loadDistributionTargets"][1]["properties"]["backendAddressPool"] =
            link("backendAddressPools", "BLUE");
    });
    assert!(found[0].1.contains("\"blue\" is in the policy twice"), "{found:?}");
    let found = broken(&|policy| {
        policy["loadDistributionTargets"][0]["properties"]["backendAddressPool"] = json!(null);
    });
    assert!(found[0].1.contains("backendAddressPool is missing"), "{found:?}");
}

#[test]
fn a_pool_beside_a_policy_is_told_of_and_a_redirect_beside_it_refused() {
    let mut document = document();
    let rule = &mut document["requestRoutingRules"][0]["properties"];
    rule["backendAddressPool"] = link("backendAddressPools", "green");
    let loaded = good(&document);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].reason.contains("no effect beside loadDistributionPolicy"));
    document["redirectConfigurations"] =
        json!([{ "name": "d", "properties": { "targetUrl": "https://a.test" } }]);
    let rule = &mut document["requestRoutingRules"][0]["properties"];
    rule["redirectConfiguration"] = link("redirectConfigurations", "d");
    for name in ["backendAddressPool", "backendHttpSettings"] {
        rule.as_object_mut().unwrap().remove(name);
    }
    assert!(errors(&document)[0].1.contains("stands beside"), "{:?}", errors(&document));
}

#[test]
fn a_policy_needs_settings_and_must_exist() {
    let mut document = document();
    let rule = &mut document["requestRoutingRules"][0]["properties"];
    rule["loadDistributionPolicy"] = link("loadDistributionPolicies", "canery");
    rule.as_object_mut().unwrap().remove("backendHttpSettings");
    let found = errors(&document);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn affinity_and_dedicated_connections_reach_the_workers() {
    let with = |settings: Value| {
        let mut document = document();
        let own = document["backendHttpSettingsCollection"][0]["properties"].as_object_mut();
        own.unwrap().extend(settings.as_object().unwrap().clone());
        document
    };
    let compiled = |settings: Value| {
        let document = with(settings);
        assert_eq!(good(&document).warnings, []);
        let compiled = snapshot(&document).bindings[0].backend_settings.clone().unwrap();
        (compiled.affinity.map(|it| it.cookie_name), compiled.dedicated)
    };
    let default = Some("ApplicationGatewayAffinity".to_owned());
    assert_eq!(compiled(json!({})), (None, false));
    assert_eq!(compiled(json!({ "cookieBasedAffinity": "enabled" })), (default.clone(), false));
    assert_eq!(
        compiled(json!({ "CookieBasedAffinity": "Enabled", "affinityCookieName": "" })),
        (default, false)
    );
    assert_eq!(
        compiled(json!({ "cookieBasedAffinity": "Enabled", "affinityCookieName": " Mine.1 ",
            "dedicatedBackendConnection": "true" })),
        (Some("Mine.1".to_owned()), true)
    );
    // As Azure prints it.
    let printed = json!({ "cookieBasedAffinity": "Disabled", "affinityCookieName": "a b",
        "dedicatedBackendConnection": false });
    assert_eq!(compiled(printed), (None, false));
    for name in ["a b", "a;b", "a=b", "ä", "\"a\"", &"x".repeat(129)] {
        let found =
            errors(&with(json!({ "cookieBasedAffinity": "Enabled", "affinityCookieName": name })));
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].0.ends_with(".affinityCookieName"), "{found:?}");
    }
    let found = errors(&with(json!({ "cookieBasedAffinity": "Sometimes" })));
    assert!(found[0].0.ends_with(".cookieBasedAffinity"), "{found:?}");
}

#[test]
fn pools_that_take_a_cookie_from_each_other_are_told_of() {
    let mut document = document();
    let settings = |name: &str, cookie: Value| {
        json!({ "name": name, "properties": { "port": 9000, "cookieBasedAffinity": "Enabled",
            "affinityCookieName": cookie } })
    };
    document["backendHttpSettingsCollection"] =
        json!([settings("s", json!(null)), settings("t", json!("Mine"))]);
    let forward = |pool: &str, settings: &str| {
        json!({ "paths": [format!("/{pool}{settings}/*")], "backendAddressPool": link("backendAddressPools", pool),
            "backendHttpSettings": link("backendHttpSettingsCollection", settings) })
    };
    let warnings = |document: &mut Value, second: Value| {
        document["urlPathMaps"] = json!([{ "name": "m", "properties": {
            "defaultBackendAddressPool": link("backendAddressPools", "blue"),
            "defaultBackendHttpSettings": link("backendHttpSettingsCollection", "s"),
            "pathRules": [{ "name": "a", "properties": second }] } }]);
        document["requestRoutingRules"][0]["properties"] = json!({
            "ruleType": "PathBasedRouting", "httpListener": link("httpListeners", "l"),
            "urlPathMap": link("urlPathMaps", "m") });
        good(document).warnings
    };
    let found = warnings(&mut document, forward("green", "s"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "requestRoutingRules[0]");
    assert!(found[0].reason.contains("\"green\" under \"s\""), "{found:?}");
    assert_eq!(warnings(&mut document, forward("green", "t")), []);
    assert_eq!(warnings(&mut document, forward("blue", "s")), []);
}

#[test]
fn the_effective_configuration_says_all_of_it_and_loads_again() {
    let mut document = document();
    let settings = &mut document["backendHttpSettingsCollection"][0]["properties"];
    settings["cookieBasedAffinity"] = json!("Enabled");
    settings["dedicatedBackendConnection"] = json!(true);
    settings["hostName"] = json!("::1");
    let gateway = good(&document).gateway;
    let printed = effective(&gateway);
    let settings = &printed["properties"]["backendHttpSettingsCollection"][0]["properties"];
    assert_eq!(settings["affinityCookieName"], "ApplicationGatewayAffinity");
    assert_eq!(settings["dedicatedBackendConnection"], true);
    assert_eq!(settings["hostName"], "[::1]");
    let again = good(&printed);
    assert_eq!(again.warnings, []);
    assert_eq!(compile(&again.gateway), compile(&gateway));
    let RuleTarget::Basic(_) = &again.gateway.rules[0].target else { panic!("a basic rule") };
}

#[test]
fn ipv6_backends_stand_in_brackets_where_a_header_needs_them() {
    let mut document = document();
    document["backendAddressPools"][1]["properties"]["backendAddresses"] =
        json!([{ "ipAddress": "[2001:db8::1]" }, { "ipAddress": "::1" }]);
    document["probes"] = json!([{ "name": "q", "properties": {
        "protocol": "Https", "pickHostNameFromBackendHttpSettings": true } }]);
    let settings = &mut document["backendHttpSettingsCollection"][0]["properties"];
    *settings = json!({ "port": 9000, "protocol": "Https", "probe": link("probes", "q"),
        "pickHostNameFromBackendAddress": true });
    let compiled = compile(&good(&document).gateway).unwrap();
    let seen: Vec<_> = compiled
        .targets
        .iter()
        .map(|it| (it.key.as_ref().unwrap(), it.probe.as_ref().unwrap()))
        .map(|(key, probe)| (key.address.as_str(), probe.host.as_str(), probe.sni.as_str()))
        .collect();
    let wanted = [
        ("10.0.0.1", "10.0.0.1", ""),
        ("10.0.0.2", "10.0.0.2", ""),
        ("2001:db8::1", "[2001:db8::1]", ""),
        ("::1", "[::1]", ""),
    ];
    assert_eq!(seen, wanted);
    document["backendHttpSettingsCollection"][0]["properties"] = json!({ "port": 9000,
        "protocol": "Https", "probe": link("probes", "q"), "hostName": "[::1]:8443",
        "sniName": "named.test:443" });
    let compiled = compile(&good(&document).gateway).unwrap();
    let probe = compiled.targets[0].probe.as_ref().unwrap();
    assert_eq!((probe.host.as_str(), probe.sni.as_str()), ("[::1]:8443", "named.test"));
    assert_eq!(probe.tls.as_ref().unwrap().sni_name, "named.test");
}
