//! What is passed over, what is told, and what is refused of Azure's properties.

use super::*;

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
        ("/advancedRoutingMaps", entries(), "no rule can route by it"),
        ("/advancedRoutingConditionSets", entries(), "no rule can route by it"),
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
    // A probe of layer 4 is passed over, unless somebody has to make do with it.
    let mut layered = document();
    let probes = layered["probes"].as_array_mut().unwrap();
    probes.push(
        json!({ "name": "four", "protocol": "TLS", "interval": 5, "timeout": 5, "port": 5432 }),
    );
    let loaded = read(&layered);
    assert!(lines(&loaded.warnings).contains("probes[1] (line"), "{}", lines(&loaded.warnings));
    assert_eq!((loaded.warnings.len(), loaded.gateway), (1, read(&document()).gateway));
    layered["backendHttpSettingsCollection"][0]["probe"]["id"] = "/probes/Four".into();
    let found = errors(&layered);
    assert_eq!(found.len(), 1, "{}", lines(&found));
    assert_eq!(found[0].path, "backendHttpSettingsCollection[0].probe.id");
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
