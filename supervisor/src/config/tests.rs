//! Whole documents, good and bad.
#![allow(clippy::unwrap_used, reason = "tests")]

mod admin;
mod azure;
mod client_side;
mod paths;
mod sites;

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity};
use super::{Loaded, certificate, effective, load};
use crate::compile::compile;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(fixtures().join(name)).unwrap()
}

fn loaded(name: &str) -> Loaded {
    load(&fixture(name), &fixtures()).unwrap_or_else(|found| panic!("{name}: {}", lines(&found)))
}

fn lines(found: &[Diagnostic]) -> String {
    let lines: Vec<String> = found.iter().map(|d| format!("{:?} {d}", d.severity)).collect();
    lines.join("\n")
}

#[test]
fn every_shape_of_one_gateway_compiles_equal() {
    let resource = loaded("gateway.resource.json");
    assert_eq!(lines(&resource.warnings), "");
    let expected = compile(&resource.gateway).unwrap();
    for other in ["gateway.bare.json", "gateway.show.json", "gateway.sloppy.jsonc"] {
        let other_loaded = loaded(other);
        assert_eq!(compile(&other_loaded.gateway).unwrap(), expected, "{other}");
        assert_eq!(lines(&other_loaded.warnings), "", "{other}");
        assert_eq!(effective(&other_loaded.gateway), effective(&resource.gateway), "{other}");
    }
}

#[test]
fn the_documents_of_the_websocket_article_load() {
    for name in ["article-snippets.jsonc", "article-oddities.jsonc"] {
        let compiled = compile(&loaded(name).gateway).unwrap();
        let addresses: Vec<String> = compiled.listeners.keys().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:8080", "127.0.0.1:8443"], "{name}");
        assert_eq!(compiled.targets.len(), 1, "{name}");
    }
}

#[test]
fn every_bad_document_is_refused_for_its_reason() {
    let mut count = 0;
    for entry in std::fs::read_dir(fixtures().join("bad")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let found = load(&text, path.parent().unwrap()).expect_err(&path.display().to_string());
        let expected = text.lines().filter_map(|line| line.strip_prefix("// expect: "));
        for (place, reason) in expected.map(|line| line.split_once(" :: ").unwrap()) {
            let hit = found.iter().any(|d| {
                d.severity == Severity::Error
                    && d.path == place
                    && d.reason.contains(reason)
                    && !d.mend.is_empty()
                    && d.line > 0
            });
            assert!(hit, "{}: no {place} :: {reason} in{}", path.display(), lines(&found));
        }
        // One mistake is told once: as many errors as are expected, not a flood that follows from them.
        let errors = found.iter().filter(|d| d.severity == Severity::Error).count();
        let wanted = text.lines().filter(|line| line.starts_with("// expect: ")).count();
        assert_eq!(errors, wanted, "{}: {}", path.display(), lines(&found));
        count += 1;
    }
    assert!(count > 25);
}

#[test]
fn a_document_cut_anywhere_is_refused_and_nothing_panics() {
    for name in ["gateway.show.json", "article-snippets.jsonc", "article-oddities.jsonc"] {
        let text = fixture(name);
        let end = text.trim_end().len();
        for cut in (0..end).filter(|cut| text.is_char_boundary(*cut)) {
            let found = load(&text[..cut], &fixtures()).expect_err("cut");
            assert!(found.iter().any(|d| d.severity == Severity::Error), "{name} at {cut}");
        }
    }
}

#[test]
fn a_byte_knocked_out_anywhere_never_panics() {
    let text = fixture("article-oddities.jsonc");
    for at in (0..text.len()).step_by(7) {
        let mut damaged = text.clone().into_bytes();
        damaged.remove(at);
        if let Ok(damaged) = String::from_utf8(damaged) {
            let outcome = load(&damaged, &fixtures());
            assert!(outcome.is_ok() || outcome.is_err_and(|found| !found.is_empty()));
        }
    }
}

#[test]
fn an_effective_configuration_holds_no_secret_and_loads_again() {
    let first = loaded("article-oddities.jsonc").gateway;
    let again = load(&effective(&first).to_string(), &fixtures()).unwrap().gateway;
    assert_eq!(again, first);
    let pfx = loaded("gateway.resource.json").gateway;
    let text = effective(&pfx).to_string();
    assert!(!text.contains("correct-horse"));
    let (key, first) = (&pfx.certificates[0].key_der, &pfx.certificates[0].chain_der[0]);
    let base64 = |der: &[u8]| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(der)
    };
    assert!(text.contains(&base64(first)) && !text.contains(&base64(key)));
    let given: serde_json::Value = serde_json::from_str(&fixture("gateway.resource.json")).unwrap();
    let data = given["properties"]["sslCertificates"][0]["properties"]["data"].as_str().unwrap();
    assert!(!text.contains(data));
    assert!(!format!("{pfx:?}").contains("key_der"));
}

#[test]
fn an_effective_configuration_loads_again_with_every_default_written_out() {
    for name in ["gateway.resource.json", "article-snippets.jsonc", "article-oddities.jsonc"] {
        let first = loaded(name).gateway;
        let mut document = effective(&first);
        // Azure never prints a private key, and neither do we.
        for certificate in document["properties"]["sslCertificates"].as_array_mut().unwrap() {
            if certificate["holdfast"].is_null() {
                certificate["holdfast"] = serde_json::json!({
                    "certificateFile": "certs/site.pem", "privateKeyFile": "certs/site.key",
                });
            }
        }
        let again =
            load(&document.to_string(), &fixtures()).unwrap_or_else(|f| panic!("{}", lines(&f)));
        let twice = effective(&again.gateway);
        let (mut document, mut twice) = (document, twice);
        for it in [&mut document, &mut twice] {
            it["properties"].as_object_mut().unwrap().remove("sslCertificates");
        }
        assert_eq!(twice, document, "{name}");
    }
}

#[test]
fn a_certificate_without_its_key_matters_only_where_it_is_used() {
    let text = fixture("gateway.show.json");
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let unused = serde_json::json!([
        { "name": "bare", "id": "/sslCertificates/bare", "publicCertData": "MIIB", "password": null },
        { "name": "vault", "keyVaultSecretId": "https://v.example/secrets/c" },
        { "name": "hsm", "hsm": { "keyId": "https://h.example/keys/c" } },
    ]);
    let all = document["sslCertificates"].as_array_mut().unwrap();
    let first = all.len();
    all.extend(unused.as_array().unwrap().clone());
    let read = load(&document.to_string(), &fixtures()).unwrap_or_else(|f| panic!("{}", lines(&f)));
    let warned: Vec<&str> = read.warnings.iter().map(|d| d.path.as_str()).collect();
    assert_eq!(
        warned,
        [
            format!("sslCertificates[{first}]"),
            format!("sslCertificates[{}].keyVaultSecretId", first + 1),
            format!("sslCertificates[{}].hsm", first + 2),
        ]
    );
    assert_eq!(read.gateway.certificates.len(), first);

    for name in ["bare", "vault", "hsm"] {
        let listeners = document["httpListeners"].as_array_mut().unwrap();
        for site in listeners.iter_mut().filter(|site| !site["sslCertificate"].is_null()) {
            site["sslCertificate"]["id"] = format!("/sslCertificates/{name}").into();
        }
        let found = load(&document.to_string(), &fixtures()).unwrap_err();
        let errors: Vec<_> = found.iter().filter(|d| d.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{name}: {}", lines(&found));
        assert!(errors.iter().all(|d| d.mend.contains("certificateFile")));
    }
}

/// A gateway with so many listeners, each with a rule, a redirect to the next and a path map of its own.
fn crowd(size: usize) -> String {
    let each = |write: &dyn Fn(usize) -> String| (0..size).map(write).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"frontendIPConfigurations":[{{"name":"f","holdfast":{{"address":"127.0.0.1"}}}}],
        "frontendPorts":[{{"name":"p","port":8080}}],
        "backendAddressPools":[{{"name":"b","backendAddresses":[{}]}}],
        "backendHttpSettingsCollection":[{{"name":"s","port":80}}],
        "httpListeners":[{}],"redirectConfigurations":[{}],
        "urlPathMaps":[{{"name":"m","defaultBackendAddressPool":{{"id":"/backendAddressPools/b"}},
          "defaultBackendHttpSettings":{{"id":"/backendHttpSettingsCollection/s"}},"pathRules":[{}]}}],
        "requestRoutingRules":[{}],{}}}"#,
        each(&|i| format!(r#"{{"fqdn":"b{i}.test"}}"#)),
        each(&|i| format!(
            r#"{{"name":"l{i}","hostName":"h{i}.test","frontendIPConfiguration":{{"id":"/frontendIPConfigurations/f"}},"frontendPort":{{"id":"/frontendPorts/p"}}}}"#
        )),
        each(&|i| format!(
            r#"{{"name":"d{i}","targetListener":{{"id":"/httpListeners/l{}"}}}}"#,
            (i + 1).min(size - 1)
        )),
        each(&|i| format!(
            r#"{{"name":"q{i}","paths":["/{i}/*"],"backendAddressPool":{{"id":"/backendAddressPools/b"}},"backendHttpSettings":{{"id":"/backendHttpSettingsCollection/s"}}}}"#
        )),
        each(&|i| format!(
            r#"{{"name":"r{i}","httpListener":{{"id":"/httpListeners/l{i}"}},"redirectConfiguration":{{"id":"/redirectConfigurations/d{i}"}}}}"#
        )),
        each(&|i| format!(r#""prot{i}":1"#)),
    )
}

#[test]
fn the_time_for_a_document_grows_with_its_length_and_not_faster() {
    // Compared with each other, these entries would take many minutes.
    let found = load(&crowd(20_000), Path::new(".")).unwrap_err();
    let errors: Vec<_> =
        found.iter().filter(|d| d.severity == Severity::Error && d.line > 0).collect();
    assert_eq!(errors.len(), 1, "{}", lines(&found));
    assert!(errors.iter().all(|d| d.reason.contains("leads back to its own listener \"l19999\"")));
}

#[test]
fn what_refers_to_an_entry_may_be_listed_in_it_as_azure_does() {
    let mut document: serde_json::Value =
        serde_json::from_str(&fixture("gateway.show.json")).unwrap();
    let listed = serde_json::json!([{ "id": "/requestRoutingRules/x", "resourceGroup": "rg" }]);
    for (collection, name) in [
        ("backendAddressPools", "requestRoutingRules"),
        ("backendAddressPools", "urlPathMaps"),
        ("backendHttpSettingsCollection", "requestRoutingRules"),
        ("frontendPorts", "httpListeners"),
        ("httpListeners", "requestRoutingRules"),
        ("probes", "backendHttpSettings"),
    ] {
        document[collection][0][name] = listed.clone();
    }
    let read = load(&document.to_string(), &fixtures()).unwrap_or_else(|f| panic!("{}", lines(&f)));
    assert_eq!(lines(&read.warnings), "");
}

#[test]
fn a_number_that_is_none_is_told_apart_from_one_out_of_range() {
    for (written, reason) in [
        ("\"eighty\"", "\"eighty\" is not a whole number"),
        ("80.5", "80.5 is not a whole number"),
        ("0", "0 is out of range for port"),
        ("-1", "-1 is out of range for port"),
        ("\"70000\"", "70000 is out of range for port"),
        ("{}", "an object stands where a number should"),
        ("true", "a boolean stands where a number should"),
    ] {
        let text = format!("{{\"frontendPorts\": [{{\"name\": \"p\", \"port\": {written}}}]}}");
        let found = load(&text, Path::new(".")).unwrap_err();
        let port = found.iter().find(|d| d.path == "frontendPorts[0].port").unwrap();
        assert_eq!(port.reason, reason);
        assert_eq!(port.mend, "write a whole number from 1 to 65535");
    }
}

#[test]
fn every_example_is_taken_without_a_warning() {
    let examples = fixtures().join("../../examples");
    let mut minimal = Vec::new();
    for entry in std::fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Needs files that its reader makes; tests/process/docs.rs does as it is told.
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let read = load(&text, &examples).unwrap_or_else(|f| panic!("{path:?}: {}", lines(&f)));
        assert_eq!(lines(&read.warnings), "", "{path:?}");
        if path.to_string_lossy().contains("minimal") {
            minimal.push(compile(&read.gateway).unwrap());
        }
    }
    assert_eq!(minimal.len(), 3);
    assert!(minimal.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn an_endless_list_of_findings_is_cut() {
    let pools = "{},".repeat(5000);
    let text = format!("{{\"backendAddressPools\": [{pools}]}}");
    let found = load(&text, Path::new(".")).unwrap_err();
    assert!(found.len() <= 201);
    assert!(found.last().unwrap().reason.contains("not shown"));
}

#[test]
fn what_has_no_effect_is_said() {
    let text = fixture("article-snippets.jsonc").replacen(
        "\"properties\": {",
        "\"properties\": { \"httpListner\": [], \
         \"webApplicationFirewallConfiguration\": { \"enabled\": true, \"firewallMode\": \"prevention\" },",
        1,
    );
    let warnings = load(&text, &fixtures()).unwrap().warnings;
    for (path, reason) in [
        ("properties.httpListner", "not known here"),
        ("properties.webApplicationFirewallConfiguration", "NOTHING IS BLOCKED"),
    ] {
        assert!(
            warnings.iter().any(|d| d.path == path && d.reason.contains(reason)),
            "{path}: {}",
            lines(&warnings)
        );
    }
}

#[test]
fn unknown_names_are_answered_with_the_near_one() {
    let text = fixture("bad/unknown-pool.jsonc");
    let found = load(&text, &fixtures()).unwrap_err();
    assert!(found.iter().any(|d| d.mend == "did you mean \"pool\"?"), "{}", lines(&found));
}

#[test]
fn a_diagnostic_reads_as_a_sentence() {
    let found = load("{\n  \"a\": tru }", Path::new(".")).unwrap_err();
    assert_eq!(
        found.first().unwrap().to_string(),
        "document (line 2, column 8): tru is not a value; put text in double quotes"
    );
}

#[test]
fn rules_without_priorities_are_numbered_as_azure_does() {
    let gateway = loaded("gateway.resource.json").gateway;
    let mut document = effective(&gateway);
    for rule in document["properties"]["requestRoutingRules"].as_array_mut().unwrap() {
        rule["properties"].as_object_mut().unwrap().remove("priority");
    }
    document["properties"]["sslCertificates"][0] = serde_json::json!({
        "name": "site",
        "holdfast": { "certificateFile": "certs/site.pem", "privateKeyFile": "certs/site-sec1.key" },
    });
    let gateway = load(&document.to_string(), &fixtures()).unwrap().gateway;
    let numbers: Vec<_> = gateway.rules.iter().map(|r| (r.name.as_str(), r.priority)).collect();
    assert_eq!(numbers, [("secureRule", 19000), ("oldRule", 19005), ("openRule", 19500)]);
}

#[test]
fn every_kind_of_key_is_read() {
    let certs = fixtures().join("certs");
    for (chain, key) in [
        ("site.pem", "site.key"),
        ("site.pem", "site-sec1.key"),
        ("rsa.pem", "rsa.key"),
        ("rsa.pem", "rsa-pkcs1.key"),
    ] {
        let identity = certificate::from_files(&certs.join(chain), &certs.join(key)).unwrap();
        assert_eq!((identity.chain_der.len(), identity.out_of_date), (1, None), "{key}");
    }
    for name in ["site.pfx", "rsa-legacy.pfx"] {
        use base64::Engine;
        let data = std::fs::read(certs.join(name)).unwrap();
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        let identity = certificate::from_pfx(&data, "correct-horse").unwrap();
        assert_eq!(identity.chain_der.len(), 1, "{name}");
        let wrong = certificate::from_pfx(&data, "wrong").err().unwrap();
        assert!(matches!(wrong, certificate::CertificateError::WrongPassword), "{name}: {wrong}");
        let cut =
            certificate::from_pfx(&data[..data.len() / 8 * 4], "correct-horse").err().unwrap();
        assert!(matches!(cut, certificate::CertificateError::NotPfx(_)), "{name}: {cut}");
    }
}

#[test]
fn an_expired_certificate_is_a_warning_and_a_chain_is_put_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (root_key, leaf_key) =
        (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "root");
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let mut leaf = rcgen::CertificateParams::new(vec!["old.test".to_owned()]).unwrap();
    leaf.not_before = rcgen::date_time_ymd(2001, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let issuer = rcgen::Issuer::from_params(&root, &root_key);
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let chain = dir.path().join("chain.pem");
    std::fs::write(&chain, format!("{root_pem}{}", leaf.pem())).unwrap();
    let key = dir.path().join("key.pem");
    std::fs::write(&key, leaf_key.serialize_pem()).unwrap();
    let identity = certificate::from_files(&chain, &key).unwrap();
    assert_eq!(identity.chain_der.len(), 2);
    assert_eq!(identity.chain_der.first().unwrap().as_slice(), leaf.der().as_ref());
    assert!(identity.out_of_date.is_some());
    assert!(certificate::root(&root_pem).is_ok());
    assert!(certificate::root("bm90IGEgY2VydGlmaWNhdGU=").is_err());
}
