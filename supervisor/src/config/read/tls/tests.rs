//! Whole documents with policies, profiles and authorities.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::compile::compile;
use crate::config::{Diagnostic, Gateway, Severity, effective, load};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn authority() -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "staff");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// One site with TLS, and what a test adds to it: at the top, and to the site.
fn document(top: &Value, site: &Value) -> Value {
    let mut document = json!({
        "frontendIPConfigurations": [{"name": "f", "holdfast": {"address": "127.0.0.1"}}],
        "frontendPorts": [{"name": "p", "port": 8443}],
        "sslCertificates": [{"name": "c",
            "holdfast": {"certificateFile": "certs/site.pem", "privateKeyFile": "certs/site.key"}}],
        "backendAddressPools": [{"name": "b", "backendAddresses": [{"fqdn": "b.test"}]}],
        "backendHttpSettingsCollection": [{"name": "s", "port": 80, "protocol": "Http"}],
        "httpListeners": [{"name": "l", "protocol": "Https",
            "sslCertificate": {"id": "/sslCertificates/c"},
            "frontendIPConfiguration": {"id": "/frontendIPConfigurations/f"},
            "frontendPort": {"id": "/frontendPorts/p"}}],
        "requestRoutingRules": [{"name": "r", "httpListener": {"id": "/httpListeners/l"},
            "backendAddressPool": {"id": "/backendAddressPools/b"},
            "backendHttpSettings": {"id": "/backendHttpSettingsCollection/s"}}],
    });
    let add = |into: &mut Value, from: &Value| {
        for (name, value) in from.as_object().unwrap() {
            into[name] = value.clone();
        }
    };
    add(&mut document, top);
    add(&mut document["httpListeners"][0], site);
    document
}

fn with_profile(trusted: &Value, settings: &Value) -> Value {
    let link = json!({"id": "/sslProfiles/staff"});
    let profile = json!({"name": "staff", "clientAuthConfiguration": settings,
        "trustedClientCertificates": [{"id": "/trustedClientCertificates/staff"}]});
    let top = json!({"trustedClientCertificates": [trusted], "sslProfiles": [profile]});
    document(&top, &json!({"sslProfile": link}))
}

fn trusted(data: &str) -> Value {
    json!({"name": "staff", "properties": {"data": data, "clientCertIssuerDN": "CN=staff"}})
}

fn read(document: &Value) -> (Gateway, Vec<String>) {
    let loaded = load(&document.to_string(), &fixtures());
    let loaded = loaded.unwrap_or_else(|found| panic!("{}", told(&found).join("\n")));
    (loaded.gateway, told(&loaded.warnings))
}

fn refused(document: &Value) -> Vec<String> {
    let mut found = load(&document.to_string(), &fixtures()).unwrap_err();
    found.retain(|it| it.severity == Severity::Error);
    told(&found)
}

fn told(found: &[Diagnostic]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn without_a_word_everything_is_offered_and_nobody_asked() {
    let (gateway, warnings) = read(&document(&json!({}), &json!({})));
    assert_eq!(warnings, [""; 0]);
    let compiled = compile(&gateway).unwrap();
    let profiles: Vec<_> = compiled.listeners.values().flat_map(|it| &it.tls_profiles).collect();
    let [profile] = profiles.as_slice() else { panic!("{profiles:?}") };
    assert!(profile.tls12 && profile.tls13 && profile.client_auth.is_none());
    assert_eq!(profile.suites.len(), 9);
}

#[test]
fn what_is_in_force_loads_again_as_it_is() {
    let settings = json!({"verifyClientCertIssuerDN": "true", "verifyClientRevocation": "none"});
    let policies = [
        Value::Null,
        json!({"policyName": "AppGwSslPolicy20220101S"}),
        json!({"policyType": "CustomV2", "minProtocolVersion": "TLSv1_3"}),
        json!({"policyType": "Custom", "minProtocolVersion": "TLSv1_2",
            "cipherSuites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]}),
        json!({"disabledSslProtocols": ["TLSv1_3"]}),
    ];
    for policy in &policies {
        let mut document = with_profile(&trusted(&authority()), &settings);
        document["sslPolicy"] = policy.clone();
        document["sslProfiles"][0]["sslPolicy"] = policies[2].clone();
        let (first, warnings) = read(&document);
        assert_eq!(warnings, [""; 0], "{policy}");
        let (again, warnings) = read(&effective(&first));
        assert_eq!(warnings, [""; 0], "{policy}");
        assert_eq!(again, first, "{policy}");
        assert_eq!(compile(&again), compile(&first), "{policy}");
    }
}

#[test]
fn a_profile_as_azure_prints_one_that_has_a_policy_only_asks_nobody() {
    let profile = json!({"name": "p", "sslPolicy": {"policyName": "AppGwSslPolicy20220101S"},
        "trustedClientCertificates": null,
        "clientAuthConfiguration": {"verifyClientCertIssuerDN": false, "verifyClientRevocation": "None"}});
    let site = json!({"sslProfile": {"id": "/sslProfiles/p"}});
    let (gateway, warnings) = read(&document(&json!({"sslProfiles": [profile]}), &site));
    assert!(gateway.tls_profiles.iter().all(|it| it.client_auth.is_none()));
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.contains("clients are not asked"), "{warning}");
}

#[test]
fn what_would_let_strangers_in_is_refused() {
    let good = trusted(&authority());
    let key = KeyPair::generate().unwrap().serialize_pem();
    for (document, why) in [
        (with_profile(&good, &json!({"verifyClientRevocation": "ocsp"})), "was revoked"),
        (with_profile(&trusted(&key), &json!({})), "private key"),
        (with_profile(&trusted("bm90aGluZw=="), &json!({})), "no certificate that can be read"),
        (with_profile(&trusted("%%"), &json!({})), "not base64"),
        (with_profile(&trusted(&authority().repeat(60)), &json!({})), "at most 25600"),
        (with_profile(&json!({"name": "staff"}), &json!({})), "has no certificate"),
        (
            with_profile(&json!({"name": "other", "data": authority()}), &json!({})),
            "no entry named",
        ),
        (
            with_profile(
                &json!({"name": "staff", "holdfast": {"certificateFile": "gone.pem"}}),
                &json!({}),
            ),
            "cannot be read",
        ),
    ] {
        let errors = refused(&document);
        assert_eq!(errors.len(), 1, "{why}: {errors:?}");
        assert!(
            errors.iter().all(|it| it.contains(why) && !it.contains(&key)),
            "{why}: {errors:?}"
        );
    }
}

#[test]
fn a_profile_that_asks_is_refused_where_nobody_could_be_asked() {
    let mut document = with_profile(&trusted(&authority()), &json!({}));
    let site = &mut document["httpListeners"][0];
    site["protocol"] = "Http".into();
    site.as_object_mut().unwrap().remove("sslCertificate");
    let errors = refused(&document);
    assert!(errors.iter().any(|it| it.contains("anybody would get in")), "{errors:?}");
}

#[test]
fn passthrough_needs_no_authority_and_says_what_it_cannot_check() {
    let mut document = with_profile(
        &trusted(&authority()),
        &json!({"verifyClientAuthMode": "PASSTHROUGH", "verifyClientRevocation": "OCSP"}),
    );
    let (_, warnings) = read(&document);
    assert!(warnings.iter().any(|it| it.contains("revoked")), "{warnings:?}");
    document["sslProfiles"][0]["trustedClientCertificates"] = json!([]);
    let (gateway, _) = read(&document);
    assert!(gateway.tls_profiles.iter().all(|it| it.client_auth.is_some()));
}

#[test]
fn the_same_profile_is_sent_once_and_each_site_finds_its_own() {
    let mut document = with_profile(&trusted(&authority()), &json!({}));
    for (name, profile) in [("m", true), ("n", false)] {
        let mut site = document["httpListeners"][0].clone();
        site["name"] = name.into();
        site["hostName"] = format!("{name}.test").into();
        if !profile {
            site.as_object_mut().unwrap().remove("sslProfile");
        }
        document["httpListeners"].as_array_mut().unwrap().insert(0, site);
        let mut rule = document["requestRoutingRules"][0].clone();
        rule["name"] = name.into();
        rule["httpListener"]["id"] = format!("/httpListeners/{name}").into();
        document["requestRoutingRules"].as_array_mut().unwrap().insert(0, rule);
    }
    let compiled = compile(&read(&document).0).unwrap();
    let snapshot = compiled.listeners.values().next().unwrap();
    assert_eq!(snapshot.tls_profiles.len(), 2);
    for site in &snapshot.sites {
        let profile = &snapshot.tls_profiles[usize::try_from(site.tls_profile).unwrap()];
        assert_eq!(profile.client_auth.is_some(), site.name != "n", "{}", site.name);
    }
}
