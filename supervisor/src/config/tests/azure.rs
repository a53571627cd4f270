//! Azure's properties as tables: the range of each number, the words of each enumeration, what absence means.

use serde_json::{Value, json};

mod told;

use super::*;

/// A document with an entry of every kind, as `az network application-gateway show` lays it out.
fn document() -> Value {
    let id = |collection: &str, name: &str| json!({ "id": format!("/{collection}/{name}") });
    let site = |name: &str, host: &str| {
        json!({ "name": name, "hostName": host, "frontendIPConfiguration": id("frontendIPConfigurations", "f"),
            "frontendPort": id("frontendPorts", "p") })
    };
    let to_pool = json!({ "backendAddressPool": id("backendAddressPools", "b"),
        "backendHttpSettings": id("backendHttpSettingsCollection", "s") });
    let mut path_rule = to_pool.clone();
    path_rule["name"] = "under".into();
    path_rule["paths"] = json!(["/under/*"]);
    json!({
        "frontendIPConfigurations": [{ "name": "f", "holdfast": { "address": "127.0.0.1" } }],
        "frontendPorts": [{ "name": "p", "port": 8080 }],
        "probes": [{ "name": "q", "protocol": "Http", "host": "q.test", "path": "/alive" }],
        "backendAddressPools": [{ "name": "b", "backendAddresses": [{ "fqdn": "b.test" }] }],
        "backendHttpSettingsCollection": [{ "name": "s", "port": 80, "probe": id("probes", "q"),
            "connectionDraining": { "enabled": true, "drainTimeoutInSec": 60 } }],
        "loadDistributionPolicies": [{ "name": "d", "loadDistributionTargets": [
            { "name": "t", "backendAddressPool": id("backendAddressPools", "b") }] }],
        "rewriteRuleSets": [{ "name": "w", "rewriteRules": [{ "name": "one", "conditions": [
            { "variable": "var_host", "pattern": "a" }], "actionSet": { "requestHeaderConfigurations": [
            { "headerName": "X-A", "headerValue": "b" }] } }] }],
        "redirectConfigurations": [{ "name": "away", "targetUrl": "https://away.test" }],
        "urlPathMaps": [{ "name": "m", "defaultBackendAddressPool": id("backendAddressPools", "b"),
            "defaultBackendHttpSettings": id("backendHttpSettingsCollection", "s"), "pathRules": [path_rule] }],
        "httpListeners": [site("l", "l.test"), site("k", "k.test"), site("j", "j.test")],
        "requestRoutingRules": [
            { "name": "r", "priority": 10, "httpListener": id("httpListeners", "l"),
                "loadDistributionPolicy": id("loadDistributionPolicies", "d"),
                "backendHttpSettings": id("backendHttpSettingsCollection", "s"),
                "rewriteRuleSet": id("rewriteRuleSets", "w") },
            { "name": "r2", "priority": 20, "ruleType": "PathBasedRouting", "httpListener": id("httpListeners", "k"),
                "urlPathMap": id("urlPathMaps", "m") },
            { "name": "r3", "priority": 30, "httpListener": id("httpListeners", "j"),
                "redirectConfiguration": id("redirectConfigurations", "away") },
        ],
    })
}

/// The document with one value set; objects on the way there that are absent are made.
fn with(pointer: &str, value: impl Into<Value>) -> Value {
    let mut document = document();
    let mut at = &mut document;
    for step in pointer.trim_start_matches('/').split('/') {
        at = match step.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[step],
        };
    }
    *at = value.into();
    document
}

/// A pointer as diagnostics write it.
fn path_of(pointer: &str) -> String {
    let written = |step: &str| match step.parse::<usize>() {
        Ok(index) => format!("[{index}]"),
        Err(_) => format!(".{step}"),
    };
    let path: Vec<String> = pointer.split('/').skip(1).map(written).collect();
    path.concat().trim_start_matches('.').to_owned()
}

fn read(document: &Value) -> Loaded {
    load(&document.to_string(), &fixtures()).unwrap_or_else(|found| panic!("{}", lines(&found)))
}

/// The errors of a document, of which there must be some.
fn errors(document: &Value) -> Vec<Diagnostic> {
    let found = load(&document.to_string(), &fixtures()).expect_err("a refusal");
    found.into_iter().filter(|it| it.severity == Severity::Error).collect()
}

#[test]
fn the_document_of_these_tests_is_taken_without_a_warning() {
    assert_eq!(lines(&read(&document()).warnings), "");
}

#[test]
fn every_number_has_azures_range() {
    for (pointer, least, most) in [
        ("/frontendPorts/0/port", 1, 65_535),
        ("/backendHttpSettingsCollection/0/port", 1, 65_535),
        ("/backendHttpSettingsCollection/0/requestTimeout", 1, 86_400),
        ("/backendHttpSettingsCollection/0/connectionDraining/drainTimeoutInSec", 1, 3600),
        ("/probes/0/interval", 1, 86_400),
        ("/probes/0/timeout", 1, 86_400),
        ("/probes/0/unhealthyThreshold", 1, 20),
        ("/probes/0/port", 1, 65_535),
        ("/probes/0/minServers", 0, 1200),
        ("/requestRoutingRules/0/priority", 1, 20_000),
        ("/loadDistributionPolicies/0/loadDistributionTargets/0/weightPerServer", 1, 100),
        ("/rewriteRuleSets/0/rewriteRules/0/ruleSequence", 0, i64::from(i32::MAX)),
    ] {
        for good in [least, most] {
            let number = read(&with(pointer, good)).gateway;
            assert_eq!(read(&with(pointer, good.to_string())).gateway, number, "{pointer}: {good}");
            let default = read(&with(pointer, good + if good == least { 1 } else { -1 })).gateway;
            assert_ne!(number, default, "{pointer}: {good} has no effect");
        }
        for bad in [least - 1, most + 1] {
            let found = errors(&with(pointer, bad));
            assert_eq!(found.len(), 1, "{pointer}: {bad}: {}", lines(&found));
            assert_eq!(found[0].path, path_of(pointer));
            assert!(found[0].reason.contains("is out of range"), "{}", found[0]);
            assert!(found[0].mend.ends_with(&format!("from {least} to {most}")), "{}", found[0]);
        }
    }
}

#[test]
fn every_word_is_taken_in_any_case_and_no_other() {
    let https = ["Http", "Https"];
    let versions = ["TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"];
    let pages =
        [400, 403, 404, 405, 408, 500, 502, 503, 504].map(|code| format!("HttpStatus{code}"));
    let pages: Vec<&str> = pages.iter().map(String::as_str).collect();
    for (pointer, words) in [
        ("/httpListeners/0/protocol", &https[..]),
        ("/backendHttpSettingsCollection/0/protocol", &https),
        ("/backendHttpSettingsCollection/0/cookieBasedAffinity", &["Enabled", "Disabled"]),
        ("/probes/0/protocol", &https),
        ("/requestRoutingRules/0/ruleType", &["Basic", "PathBasedRouting"]),
        (
            "/redirectConfigurations/0/redirectType",
            &["Permanent", "Found", "SeeOther", "Temporary"],
        ),
        (
            "/loadDistributionPolicies/0/loadDistributionAlgorithm",
            &["RoundRobin", "LeastConnections", "IpHash"],
        ),
        ("/customErrorConfigurations/0/statusCode", &pages),
        ("/sslPolicy/policyType", &["Predefined", "Custom", "CustomV2"]),
        ("/sslPolicy/minProtocolVersion", &versions),
        ("/sslProfiles/0/clientAuthConfiguration/verifyClientAuthMode", &["Strict", "Passthrough"]),
        ("/sslProfiles/0/clientAuthConfiguration/verifyClientRevocation", &["None", "OCSP"]),
    ] {
        let mut document = document();
        document["customErrorConfigurations"] =
            json!([{ "customErrorPageUrl": "https://pages.test/sorry.html" }]);
        document["sslProfiles"] = json!([{ "name": "x", "clientAuthConfiguration": {} }]);
        let mut found_of = |word: &str| {
            let parent = pointer.rsplit_once('/').unwrap().0;
            if document.pointer(parent).is_none() {
                document[parent.trim_start_matches('/')] = json!({});
            }
            let key = pointer.rsplit('/').next().unwrap();
            document.pointer_mut(parent).unwrap()[key] = word.into();
            let loaded = load(&document.to_string(), &fixtures());
            loaded.map(|it| it.gateway).map_err(|found| {
                let known = |it: &Diagnostic| {
                    it.path == path_of(pointer) && it.reason.contains("none of the values")
                };
                (found.iter().any(known), lines(&found))
            })
        };
        for word in words {
            let spelled = found_of(word);
            for other in [word.to_lowercase(), word.to_uppercase()] {
                // Some words need more than this document has; then that is all that is missing.
                match (&spelled, found_of(&other)) {
                    (Ok(one), Ok(two)) => assert_eq!(*one, two, "{pointer}: {other}"),
                    (Err((false, _)), Err((false, _))) => {}
                    (one, two) => panic!("{pointer}: {word} and {other}: {one:?} {two:?}"),
                }
            }
        }
        assert!(found_of("Nonsense").is_err_and(|(is_told, _)| is_told), "{pointer}");
    }
}

#[test]
fn every_switch_may_be_a_word_and_is_what_azure_takes_it_for_where_it_is_absent() {
    for (pointer, default) in [
        ("/enableHttp2", false),
        ("/httpListeners/0/requireServerNameIndication", false),
        ("/probes/0/pickHostNameFromBackendHttpSettings", false),
        ("/backendHttpSettingsCollection/0/pickHostNameFromBackendAddress", false),
        ("/backendHttpSettingsCollection/0/dedicatedBackendConnection", false),
        ("/backendHttpSettingsCollection/0/validateCertChainAndExpiry", true),
        ("/backendHttpSettingsCollection/0/validateSNI", true),
        ("/redirectConfigurations/0/includePath", false),
        ("/redirectConfigurations/0/includeQueryString", false),
        ("/rewriteRuleSets/0/rewriteRules/0/conditions/0/ignoreCase", false),
        ("/rewriteRuleSets/0/rewriteRules/0/conditions/0/negate", false),
        ("/globalConfiguration/disableDefaultServerHeaderInResponse", false),
    ] {
        let gateway = |value: Value| {
            let mut document = with(pointer, value);
            if pointer.starts_with("/probes") {
                document["probes"][0]["host"] = Value::Null;
            }
            read(&document).gateway
        };
        let [yes, no] = [true, false].map(|value| gateway(value.into()));
        assert_ne!(yes, no, "{pointer}");
        assert_eq!(gateway("TRUE".into()), yes, "{pointer}");
        assert_eq!(gateway("False".into()), no, "{pointer}");
        assert_eq!(gateway(Value::Null), if default { yes } else { no }, "{pointer}");
        let found = errors(&with(pointer, "maybe"));
        assert!(found.iter().all(|it| it.path == path_of(pointer)), "{}", lines(&found));
    }
}

#[test]
fn what_is_absent_is_what_azure_takes_it_for() {
    let mut document = document();
    document["probes"][0] = json!({ "name": "q" });
    document["backendHttpSettingsCollection"][0] = json!({ "name": "s", "port": 80 });
    document["redirectConfigurations"][0]["redirectType"] = Value::Null;
    let printed = effective(&read(&document).gateway);
    for (pointer, value) in [
        ("/probes/0/properties/protocol", json!("Http")),
        ("/probes/0/properties/host", json!("127.0.0.1")),
        ("/probes/0/properties/path", json!("/")),
        ("/probes/0/properties/interval", json!(30)),
        ("/probes/0/properties/timeout", json!(30)),
        ("/probes/0/properties/unhealthyThreshold", json!(3)),
        ("/probes/0/properties/minServers", json!(0)),
        ("/probes/0/properties/match/statusCodes", json!(["200-399"])),
        ("/probes/0/properties/match/body", json!("")),
        ("/backendHttpSettingsCollection/0/properties/protocol", json!("Http")),
        ("/backendHttpSettingsCollection/0/properties/requestTimeout", json!(30)),
        ("/backendHttpSettingsCollection/0/properties/cookieBasedAffinity", json!("Disabled")),
        (
            "/backendHttpSettingsCollection/0/properties/pickHostNameFromBackendAddress",
            json!(false),
        ),
        ("/backendHttpSettingsCollection/0/properties/dedicatedBackendConnection", json!(false)),
        ("/backendHttpSettingsCollection/0/properties/connectionDraining/enabled", json!(false)),
        ("/redirectConfigurations/0/properties/redirectType", json!("Permanent")),
        ("/httpListeners/0/properties/protocol", json!("Http")),
        ("/requestRoutingRules/0/properties/ruleType", json!("Basic")),
        ("/loadDistributionPolicies/0/properties/loadDistributionAlgorithm", json!("RoundRobin")),
    ] {
        assert_eq!(printed["properties"].pointer(pointer), Some(&value), "{pointer}");
    }
    let own = &printed["holdfast"];
    let figures =
        ["clientHeaderTimeoutInSec", "keepAliveTimeoutInSec", "maxHeaderBytes", "maxBodyBytes"];
    assert_eq!(figures.map(|it| own[it].as_u64().unwrap()), [60, 75, 32 << 10, 4 << 30]);
    for absent in ["hostName", "path", "probe", "affinityCookieName"] {
        let settings = &printed["properties"]["backendHttpSettingsCollection"][0]["properties"];
        assert!(settings[absent].is_null(), "{absent}");
    }
}
