//! Azure's properties as tables: the range of each number, the words of each enumeration, what absence means, and what
//! is told of those that only Azure's platform has.

use serde_json::{Value, json};

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
    let mut path = String::new();
    for step in pointer.trim_start_matches('/').split('/') {
        match step.parse::<usize>() {
            Ok(index) => path.push_str(&format!("[{index}]")),
            Err(_) if path.is_empty() => path.push_str(step),
            Err(_) => path.push_str(&format!(".{step}")),
        }
    }
    path
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

#[test]
fn what_only_azures_platform_has_is_passed_over() {
    let id = json!({ "id": "/subscriptions/0/x" });
    for (pointer, value) in [
        (
            "/sku",
            json!({ "name": "WAF_v2", "tier": "WAF_v2", "capacity": "2", "family": "Generation_1" }),
        ),
        ("/autoscaleConfiguration", json!({ "minCapacity": 0, "maxCapacity": 125 })),
        ("/reservedCapacity", json!(2)),
        ("/gatewayIPConfigurations", json!([{ "name": "g", "subnet": id }])),
        ("/zones", json!(["1", "2"])),
        ("/identity", json!({ "type": "UserAssigned" })),
        ("/tags", json!({ "a": "b" })),
        ("/forceFirewallPolicyAssociation", json!(true)),
        ("/privateEndpointConnections", json!([{ "name": "e" }])),
        ("/defaultPredefinedSslPolicy", json!("AppGwSslPolicy20220101")),
        ("/operationalState", json!("Running")),
        ("/provisioningState", json!("Succeeded")),
        ("/resourceGuid", json!("0")),
        ("/etag", json!("W/\"0\"")),
        ("/frontendIPConfigurations/0/privateIPAllocationMethod", json!("Static")),
        ("/frontendIPConfigurations/0/subnet", id.clone()),
        ("/frontendIPConfigurations/0/publicIPAddress", id.clone()),
        ("/frontendIPConfigurations/0/privateLinkConfiguration", id.clone()),
        ("/backendAddressPools/0/backendIPConfigurations", json!([id])),
        ("/backendHttpSettingsCollection/0/probeEnabled", json!(true)),
        ("/probes/0/pickHostNameFromBackendSettings", json!(false)),
        ("/probes/0/enableProbeProxyProtocolHeader", json!(false)),
    ] {
        let loaded = read(&with(pointer, value));
        assert_eq!(lines(&loaded.warnings), "", "{pointer}");
        assert_eq!(loaded.gateway, read(&document()).gateway, "{pointer}");
    }
}

#[test]
fn what_azure_does_and_holdfast_does_not_is_told() {
    let entries = || json!([{ "name": "x" }]);
    let policy = || json!({ "id": "/policies/x" });
    let waf = |mode: &str, enabled: bool| json!({ "enabled": enabled, "firewallMode": mode });
    for (pointer, value, told) in [
        ("/webApplicationFirewallConfiguration", waf("Detection", true), "no effect yet"),
        ("/webApplicationFirewallConfiguration", waf("PREVENTION", true), "NOTHING IS BLOCKED"),
        ("/firewallPolicy", policy(), "NOT inspected"),
        ("/httpListeners/0/firewallPolicy", policy(), "NOT inspected"),
        ("/urlPathMaps/0/pathRules/0/firewallPolicy", policy(), "NOT inspected"),
        ("/backendSettingsCollection", entries(), "TCP and TLS proxying is not offered"),
        ("/listeners", entries(), "TCP and TLS proxying is not offered"),
        ("/routingRules", entries(), "TCP and TLS proxying is not offered"),
        ("/advancedRoutingMaps", entries(), "NOT checked"),
        ("/advancedRoutingConditionSets", entries(), "NOT checked"),
        ("/entraJWTValidationConfigs", entries(), "NOT checked"),
        ("/authenticationCertificates", entries(), "trustedRootCertificates"),
        (
            "/backendHttpSettingsCollection/0/authenticationCertificates",
            json!([policy()]),
            "trustedRoot",
        ),
        ("/privateLinkConfigurations", entries(), "no effect"),
        ("/enableFips", json!(true), "no effect"),
    ] {
        let warnings = read(&with(pointer, value)).warnings;
        assert_eq!(warnings.len(), 1, "{pointer}: {}", lines(&warnings));
        assert_eq!(warnings[0].path, path_of(pointer));
        assert!(warnings[0].to_string().contains(told), "{pointer}: {}", lines(&warnings));
    }
    let off = with("/webApplicationFirewallConfiguration", waf("Prevention", false));
    assert_eq!(lines(&read(&off).warnings), "");
    let advanced = errors(&with("/requestRoutingRules/0/ruleType", "AdvancedRouting"));
    assert_eq!(advanced.len(), 1, "{}", lines(&advanced));
    assert_eq!(advanced[0].path, "requestRoutingRules[0].ruleType");
}

#[test]
fn what_says_two_things_or_half_of_one_is_refused() {
    let settings = "/backendHttpSettingsCollection/0";
    for (pointer, value, place, told) in [
        (
            "/probes/0/pickHostNameFromBackendHttpSettings".to_owned(),
            json!(true),
            "probes[0].host",
            "although pickHostNameFromBackendHttpSettings is true",
        ),
        (
            format!("{settings}/connectionDraining"),
            json!({ "enabled": true }),
            "backendHttpSettingsCollection[0].connectionDraining",
            "drainTimeoutInSec is missing",
        ),
        (
            format!("{settings}/port"),
            Value::Null,
            "backendHttpSettingsCollection[0]",
            "has no port",
        ),
        (
            "/requestRoutingRules/2/backendAddressPool".to_owned(),
            json!({ "id": "/backendAddressPools/b" }),
            "requestRoutingRules[2].redirectConfiguration",
            "stands beside",
        ),
        (
            "/requestRoutingRules/0/backendHttpSettings".to_owned(),
            Value::Null,
            "requestRoutingRules[0]",
            "backendHttpSettings is missing",
        ),
        (
            "/requestRoutingRules/1/urlPathMap".to_owned(),
            Value::Null,
            "requestRoutingRules[1]",
            "urlPathMap is missing",
        ),
        (
            "/urlPathMaps/0/defaultRedirectConfiguration".to_owned(),
            json!({ "id": "/redirectConfigurations/away" }),
            "urlPathMaps[0].defaultRedirectConfiguration",
            "stands beside",
        ),
        (
            "/probes/0/match".to_owned(),
            json!({ "body": "x".repeat(4091) }),
            "probes[0].match.body",
            "longer than 4090",
        ),
        ("/probes/0/path".to_owned(), json!("alive"), "probes[0].path", "is not a path"),
    ] {
        let found = errors(&with(&pointer, value));
        assert_eq!(found.len(), 1, "{pointer}: {}", lines(&found));
        assert_eq!(found[0].path, place);
        assert!(found[0].reason.contains(told), "{}", found[0]);
    }
    let longest = json!({ "body": "x".repeat(4090), "statusCodes": ["200-299, 401", "403"] });
    let gateway = read(&with("/probes/0/match", longest)).gateway;
    assert_eq!(gateway.probes[0].statuses, [(200, 299), (401, 401), (403, 403)]);
}

#[test]
fn azures_own_host_patterns_are_taken() {
    let patterns = json!([
        "*.contoso.*",
        "w??.contoso*.edu.*",
        "????.contoso.com",
        "*.contoso-*.com",
        "*.Contoso.com"
    ]);
    let mut document = with("/httpListeners/0/hostNames", patterns);
    document["httpListeners"][0]["hostName"] = "".into();
    let loaded = read(&document);
    let sites = &loaded.gateway.listeners[0].sites;
    assert_eq!(sites[0].hosts.len(), 5);
    assert_eq!(sites[0].hosts[4], "*.contoso.com");
    assert_eq!(lines(&loaded.warnings), "");
}

#[test]
fn what_is_not_served_or_bound_elsewhere_than_in_azure_is_told() {
    let mut document = document();
    document["requestRoutingRules"].as_array_mut().unwrap().pop();
    let warnings = read(&document).warnings;
    assert_eq!(warnings.len(), 1, "{}", lines(&warnings));
    assert_eq!(warnings[0].path, "httpListeners[2]");
    assert!(warnings[0].reason.contains("is not served"), "{}", warnings[0]);
    for (property, value, bound) in [
        ("publicIPAddress", json!({ "id": "/publicIPAddresses/ip" }), "0.0.0.0"),
        ("privateIPAddress", json!("10.0.0.4"), "0.0.0.0"),
        ("privateIPAddress", json!("fd00::4"), "::"),
        ("publicIPAddressVersion", json!("ipv6"), "::"),
    ] {
        let mut document = with("/frontendIPConfigurations/0/holdfast", Value::Null);
        document["frontendIPConfigurations"][0][property] = value;
        let Loaded { gateway, warnings, .. } = read(&document);
        assert_eq!(gateway.listeners[0].address.ip().to_string(), bound, "{property}");
        let told = format!("every address is bound ({bound})");
        assert!(warnings.len() == 1 && warnings[0].reason.contains(&told), "{}", lines(&warnings));
    }
}

#[test]
fn so_many_authorities_of_clients_are_taken_as_azure_takes() {
    let document = |entries: usize, of_profile: usize| {
        let mut document = document();
        let entry = |at: usize| json!({ "name": format!("c{at}"), "holdfast": { "certificateFile": "certs/rsa.pem" } });
        let link = |at: usize| json!({ "id": format!("/trustedClientCertificates/c{at}") });
        document["trustedClientCertificates"] = (0..entries).map(entry).collect();
        document["sslProfiles"] = json!([{ "name": "x",
            "trustedClientCertificates": (0..of_profile).map(link).collect::<Value>() }]);
        document
    };
    assert_eq!(lines(&read(&document(200, 100)).warnings), "");
    for (entries, of_profile, place, told) in [
        (201, 1, "trustedClientCertificates", "a gateway has at most 200"),
        (200, 101, "sslProfiles[0].trustedClientCertificates", "a profile has at most 100"),
    ] {
        let found = errors(&document(entries, of_profile));
        assert_eq!(found.len(), 1, "{}", lines(&found));
        assert_eq!(found[0].path, place);
        assert!(found[0].reason.contains(told), "{}", found[0]);
    }
}
