//! Whole documents, each with what is expected of it in its first lines; hostile ones; and texts that nobody wrote.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::{Finding, FindingKind, Given, Imported, Wanted, import};
use crate::config;

mod hostile;
mod linked;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn lines(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|f| {
        format!("{:?} {}:{} {} :: {}; {}", f.kind, f.line, f.column, f.path, f.reason, f.mend)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What a fixture's first lines say.
struct Fixture {
    given: Given,
    tells: Vec<(FindingKind, String, String)>,
    refused: Option<String>,
    is_incomplete: bool,
}

fn kind(word: &str) -> FindingKind {
    match word {
        "error" => FindingKind::Error,
        "missing" => FindingKind::Missing,
        "warning" => FindingKind::Warning,
        "left out" => FindingKind::LeftOut,
        other => panic!("{other} is no kind of finding"),
    }
}

fn read(text: &str) -> Fixture {
    let template_dir = Some(fixtures().join("import"));
    let mut given = Given::default();
    given.template_dir = template_dir;
    let mut fixture = Fixture { given, tells: Vec::new(), refused: None, is_incomplete: false };
    for line in text.lines().map_while(|line| line.strip_prefix("// ")) {
        let (word, rest) = line.split_once(": ").unwrap_or((line, ""));
        let pair = || rest.split_once('=').unwrap();
        match word {
            "set" => fixture.given.set(pair().0, pair().1.to_owned()),
            "set-file" => {
                let bytes = std::fs::read(fixtures().join(pair().1)).unwrap();
                let text = String::from_utf8(bytes).map(|text| text.trim_end().to_owned());
                let text = text.unwrap_or_else(|e| STANDARD.encode(e.as_bytes()));
                fixture.given.set(pair().0, text);
            }
            "parameters" => {
                let file = fixtures().join("import").join(rest);
                fixture.given.add_parameters(&std::fs::read_to_string(file).unwrap()).unwrap();
            }
            "linked" => {
                let (name, file) = rest.rsplit_once('=').unwrap();
                fixture.given.link(name, fixtures().join("import").join(file));
            }
            "gateway" => fixture.given.gateway = Some(rest.to_owned()),
            "certificates-dir" => fixture.given.certificates_dir = Some(rest.into()),
            "listen" => match rest.split_once('=') {
                Some((name, address)) => {
                    fixture.given.listen_on.insert(name.to_owned(), address.parse().unwrap());
                }
                None => fixture.given.listen = Some(rest.parse().unwrap()),
            },
            "incomplete" => fixture.is_incomplete = true,
            "refused" => fixture.refused = Some(rest.to_owned()),
            "tells" => {
                let parts: Vec<&str> = rest.splitn(3, " :: ").collect();
                fixture.tells.push((kind(parts[0]), parts[1].to_owned(), parts[2].to_owned()));
            }
            _ => {}
        }
    }
    fixture
}

fn one(text: &str, given: &Given) -> Result<Imported, Vec<Finding>> {
    import(text, given, Wanted::One, &fixtures()).map(|all| all.into_iter().next().unwrap())
}

#[test]
fn every_fixture_becomes_the_document_beside_it() {
    let mut count = 0;
    for entry in std::fs::read_dir(fixtures().join("import")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.contains(".expected.") || name.contains(".parameters.") || path.is_dir() {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let fixture = read(&text);
        let imported = match (one(&text, &fixture.given), &fixture.refused) {
            (Ok(imported), None) => imported,
            (Err(found), Some(reason)) => {
                assert!(lines(&found).contains(reason.as_str()), "{name}: {}", lines(&found));
                continue;
            }
            (other, _) => {
                panic!("{name}: {:?}", other.map(|one| one.document).map_err(|f| lines(&f)))
            }
        };
        let told = lines(&imported.findings);
        assert_eq!(imported.is_complete, !fixture.is_incomplete, "{name}: {told}");
        for (kind, place, reason) in &fixture.tells {
            let hit = imported.findings.iter().any(|f| {
                f.kind == *kind && f.path == *place && f.reason.contains(reason) && f.line > 0
            });
            assert!(hit, "{name}: no {kind:?} {place} :: {reason} in\n{told}");
        }
        // What must be done is told whole: neither more nor less than is expected.
        let grave = |kind: FindingKind| kind <= FindingKind::Missing;
        let wanted = fixture.tells.iter().filter(|(kind, ..)| grave(*kind)).count();
        let found = imported.findings.iter().filter(|f| grave(f.kind)).count();
        assert_eq!(found, wanted, "{name}: {told}");
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let expected = path.with_file_name(format!("{stem}.expected.json"));
        let expected = std::fs::read_to_string(expected).unwrap();
        assert_eq!(imported.document, expected, "{name}");
        if imported.is_complete {
            let loaded = config::load(&imported.document, &fixtures());
            assert!(loaded.is_ok(), "{name}");
        }
    }
    assert!(count >= 16, "{count}");
}

#[test]
fn a_complete_document_is_imported_as_itself() {
    for name in ["quickstart", "bicep", "loops", "show-new", "rest", "dual-stack", "pfx"] {
        let path = fixtures().join(format!("import/{name}.expected.json"));
        let text = std::fs::read_to_string(path).unwrap();
        let again = one(&text, &Given::default()).unwrap();
        assert_eq!(again.document, text, "{name}");
        assert!(again.is_complete);
        assert!(again.findings.iter().all(|f| f.kind >= FindingKind::Warning), "{name}");
    }
}

#[test]
fn what_the_first_generation_trusted_is_left_out_and_not_asked_for() {
    let text = std::fs::read_to_string(fixtures().join("import/quickstart.json")).unwrap();
    let text = text
        .replacen("\"parameters\": {", "\"parameters\": { \"own\": { \"type\": \"SecureString\" },", 1)
        .replacen(
            "\"BackendAddressPools\": [",
            "\"AuthenticationCertificates\": [{ \"Name\": \"own\", \"Properties\": { \"Data\": \"[parameters('own')]\" } }],
            \"BackendAddressPools\": [",
            1,
        )
        .replacen(
            "\"CookieBasedAffinity\":",
            "\"AuthenticationCertificates\": [{ \"Id\": \"/authenticationCertificates/own\" }], \"CookieBasedAffinity\":",
            1,
        );
    let imported = one(&text, &Given::default()).unwrap();
    let told = lines(&imported.findings);
    assert!(imported.is_complete, "{told}");
    assert!(!imported.document.contains("authenticationCertificates"), "{}", imported.document);
    for place in ["properties", "properties.backendHttpSettingsCollection[0].properties"] {
        let path = format!("{place}.authenticationCertificates");
        let found = imported.findings.iter().find(|finding| finding.path == path).unwrap();
        assert_eq!(found.kind, FindingKind::LeftOut);
        assert!(found.line > 0 && found.mend.contains("trustedRootCertificates"), "{told}");
    }
}

#[test]
fn what_does_something_is_not_left_out_with_what_does_nothing() {
    let text = std::fs::read_to_string(fixtures().join("import/quickstart.expected.json")).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let properties = &mut document["properties"];
    properties["rewriteRuleSets"] = serde_json::json!([{ "name": "set", "properties": { "rewriteRules": [
        { "name": "one", "ruleSequence": 1, "actionSet": {
            "urlConfiguration": { "modifiedPath": "/new", "reroute": true } } } ] } }]);
    properties["requestRoutingRules"][0]["properties"]["rewriteRuleSet"] =
        serde_json::json!({ "id": "/rewriteRuleSets/set" });
    properties["customErrorConfigurations"] = serde_json::json!([
        { "statusCode": "HttpStatus403", "customErrorPageUrl": "https://pages.test/403.html" }]);
    properties["probes"] =
        serde_json::json!([{ "name": "four", "properties": { "protocol": "Tcp", "port": 5432 } }]);
    let imported = one(&document.to_string(), &Given::default()).unwrap();
    let told = lines(&imported.findings);
    assert!(imported.is_complete, "{told}");
    let made: serde_json::Value = serde_json::from_str(&imported.document).unwrap();
    let properties = &made["properties"];
    let rule = &properties["requestRoutingRules"][0]["properties"];
    assert_eq!(rule["rewriteRuleSet"]["id"], "/rewriteRuleSets/set", "{told}");
    assert_eq!(properties["customErrorConfigurations"][0]["statusCode"], "HttpStatus403");
    assert_eq!(properties["probes"][0]["properties"]["protocol"], "Tcp");
    let warned = imported.findings.iter().filter(|it| it.kind == FindingKind::Warning);
    let warned: Vec<&str> = warned.map(|it| it.path.as_str()).collect();
    assert_eq!(warned.len(), 3, "{told}");
    assert!(
        warned.contains(&"properties.requestRoutingRules[0].properties.rewriteRuleSet"),
        "{told}"
    );
}

#[test]
fn no_secret_is_in_a_finding() {
    let text = std::fs::read_to_string(fixtures().join("import/pfx.json")).unwrap();
    let mut given = read(&text).given;
    given.set("certificatePassword", "not-the-password".to_owned());
    let imported = one(&text, &given).unwrap();
    let told = lines(&imported.findings);
    assert!(!imported.is_complete && imported.has_secret);
    assert!(told.contains("the password does not open the PFX data"), "{told}");
    assert!(!told.contains("not-the-password"), "{told}");
}

#[test]
fn a_name_that_nothing_asks_for_is_told() {
    let text = std::fs::read_to_string(fixtures().join("import/quickstart.json")).unwrap();
    let mut given = Given::default();
    given.set("gatewayNam", "x".to_owned());
    // Declared, though never looked at: no reason to doubt it.
    given.set("addressPrefix", "10.9.0.0/16".to_owned());
    given.listen_on.insert("outsid".to_owned(), "127.0.0.1".parse().unwrap());
    let imported = one(&text, &given).unwrap();
    let warned: Vec<&str> = imported
        .findings
        .iter()
        .filter(|f| f.kind == FindingKind::Warning)
        .map(|f| f.reason.as_str())
        .collect();
    assert_eq!(
        warned,
        [
            "no frontend is named \"outsid\", as --listen has it",
            "nothing asks for \"gatewayNam\", as --set has it"
        ]
    );
}

#[test]
fn what_is_no_gateway_is_refused_with_what_to_give_instead() {
    for (text, reason) in [
        ("{}", "the document has no application gateway"),
        ("[]", "the document has no application gateway"),
        ("3", "the document has no application gateway"),
        ("{\"parameters\": {\"a\": {\"value\": 1}}}", "this is a parameter file"),
        ("{\"resources\": []}", "has no resource of type Microsoft.Network/applicationGateways"),
        ("param x string", "param is not a value"),
        (
            "{\"type\": \"Microsoft.Web/sites\", \"properties\": {\"probes\": []}}",
            "no application gateway",
        ),
    ] {
        let found = one(text, &Given::default()).unwrap_err();
        assert!(lines(&found).contains(reason), "{text}: {}", lines(&found));
    }
}

#[test]
fn all_gateways_are_imported_where_all_are_wanted() {
    let text = std::fs::read_to_string(fixtures().join("import/list.json")).unwrap();
    let all = import(&text, &Given::default(), Wanted::All, &fixtures()).unwrap();
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["lobby", "Annex"]);
    assert!(all.iter().all(|one| one.is_complete));
}

#[test]
fn what_uniquestring_made_is_told_where_it_matters() {
    let text = std::fs::read_to_string(fixtures().join("import/quickstart.json")).unwrap();
    let host =
        "[concat('shop', substring(uniqueString(resourceGroup().id), 0, 6), '.example.test')]";
    let text =
        text.replacen("10.8.1.4", host, 1).replacen("\"lounge\"", "\"[uniqueString('a')]\"", 1);
    let imported = one(&text, &Given::default()).unwrap();
    let warned: Vec<&Finding> =
        imported.findings.iter().filter(|f| f.kind == FindingKind::Warning).collect();
    assert_eq!(warned.len(), 1, "{}", lines(&imported.findings));
    assert_eq!(
        warned[0].path,
        "properties.backendAddressPools[0].properties.backendAddresses[0].ipAddress"
    );
    let again = one(&text, &Given::default()).unwrap();
    assert_eq!(again.document, imported.document);
    let mut given = Given::default();
    given.set("uniqueString", "abcdefghijklm".to_owned());
    let known = one(&text, &given).unwrap();
    assert!(known.document.contains("shopabcdef.example.test"), "{}", known.document);
    assert!(known.findings.iter().all(|f| f.kind == FindingKind::LeftOut));
}

#[test]
fn a_document_cut_anywhere_is_refused_and_nothing_panics() {
    let text = std::fs::read_to_string(fixtures().join("import/bicep.json")).unwrap();
    let end = text.trim_end().len();
    for cut in (0..end).step_by(5).filter(|cut| text.is_char_boundary(*cut)) {
        assert!(one(&text[..cut], &Given::default()).is_err(), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_expression_in_a_template_makes_it_panic(inside in "\\[[a-zA-Z0-9'(),.\\[\\]?{} /-]{0,60}\\]") {
        let quoted = serde_json::to_string(&inside).unwrap();
        let text = format!(
            "{{\"resources\": [{{\"type\": \"Microsoft.Network/applicationGateways\", \"name\": {quoted}, \
             \"properties\": {{\"httpListeners\": {quoted}, \"probes\": [{{\"name\": {quoted}}}]}}}}]}}"
        );
        let imported = one(&text, &Given::default()).unwrap();
        prop_assert!(!imported.is_complete);
        prop_assert!(!imported.findings.is_empty());
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        prop_assert!(one(&text, &Given::default()).is_err());
    }
}
