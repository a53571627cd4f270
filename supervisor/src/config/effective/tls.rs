//! TLS with clients, as the effective configuration says it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{child, id, put};
use crate::config::gateway::{ClientAuth, TlsPolicy, TlsProfile, TrustedClients};

/// A policy in Azure's words: its name where it has one, else what is in force.
pub(super) fn policy(policy: &TlsPolicy) -> Value {
    if let Some(name) = policy.predefined {
        return json!({ "policyType": "Predefined", "policyName": name });
    }
    let suites: Vec<_> = policy.suites.iter().map(|suite| suite.name).collect();
    let disabled: &[&str] = if policy.tls13 { &[] } else { &["TLSv1_3"] };
    // Backends are told of clients' fingerprints with the newer kind only.
    let kind = if policy.fingerprint { "CustomV2" } else { "Custom" };
    json!({
        "policyType": kind,
        "minProtocolVersion": if policy.tls12 { "TLSv1_2" } else { "TLSv1_3" },
        "cipherSuites": suites,
        "disabledSslProtocols": disabled,
    })
}

pub(super) fn profile(profile: &TlsProfile) -> Value {
    let mut properties = json!({});
    put(&mut properties, "sslPolicy", profile.policy.as_ref().map(policy));
    if let Some(auth) = &profile.client_auth {
        let ClientAuth { mode, check_issuer, check_revocation, trusted } = auth;
        let trusted = trusted.iter().map(|it| id("trustedClientCertificates", &it.name));
        let trusted: Vec<_> = trusted.collect();
        put(&mut properties, "trustedClientCertificates", Some(json!(trusted)));
        let settings = json!({
            "verifyClientCertIssuerDN": check_issuer,
            "verifyClientRevocation": if *check_revocation { "OCSP" } else { "None" },
            "verifyClientAuthMode": mode.as_str(),
        });
        put(&mut properties, "clientAuthConfiguration", Some(settings));
    }
    child(&profile.name, properties)
}

pub(super) fn trusted(trusted: &TrustedClients) -> Value {
    if let Some(file) = &trusted.file {
        return json!({ "name": trusted.name, "holdfast": { "certificateFile": file } });
    }
    let mut pem = String::new();
    for der in trusted.roots.iter().chain(&trusted.intermediates) {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        pem.push_str(&STANDARD.encode(der));
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    child(&trusted.name, json!({ "data": STANDARD.encode(pem) }))
}
