//! The JSON Schema that `holdfast schema` prints, as an editor's validator sees it: it takes every document that the
//! gateway takes, and marks what the gateway refuses of a single value.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Document, HOLDFAST, directory, script, tools, words};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_valid(file: &Path) -> bool {
    let output = Command::new(HOLDFAST).arg("validate").arg(file).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", words(&output));
    output.status.success()
}

/// Prints the schema into a file and holds documents against it.
fn check(tools: &Path, directory: &Path, taken: &[PathBuf], refused: &[PathBuf]) {
    let schema = Command::new(HOLDFAST).arg("schema").output().unwrap();
    assert!(schema.status.success(), "{}", words(&schema));
    let file = directory.join("schema.json");
    fs::write(&file, schema.stdout).unwrap();
    let mut arguments: Vec<&str> = vec![file.to_str().unwrap()];
    arguments.extend(taken.iter().map(|path| path.to_str().unwrap()));
    arguments.push("--refused");
    arguments.extend(refused.iter().map(|path| path.to_str().unwrap()));
    let output = script(tools, "check_schema.py", &arguments);
    assert!(output.status.success(), "{}", words(&output));
}

/// Documents of the repository that the gateway takes where they stand.
fn valid_documents() -> Vec<PathBuf> {
    let directories = ["tests/fixtures", "tests/fixtures/bad", "tests/fixtures/import", "examples"];
    let entries = directories.iter().flat_map(|name| fs::read_dir(root().join(name)).unwrap());
    let files = entries.map(|entry| entry.unwrap().path());
    let json = files
        .filter(|path| path.extension().is_some_and(|it| it == "json" || it == "jsonc"))
        .filter(|path| is_valid(path));
    json.collect()
}

#[test]
fn every_valid_document_is_one_for_an_editor() {
    let Some(tools) = tools("the schema and the documents") else { return };
    let directory = directory();
    let mut taken = valid_documents();
    assert!(taken.len() > 15, "{taken:?}");
    // What is printed of them, with every default, too.
    for (number, path) in (0..).zip(taken.clone()) {
        let output = Command::new(HOLDFAST).arg("validate").arg(path).output().unwrap();
        let file = directory.path().join(format!("{number}.json"));
        fs::write(&file, output.stdout).unwrap();
        taken.push(file);
    }
    check(&tools, directory.path(), &taken, &[]);
}

#[test]
fn what_a_single_value_may_not_be_is_marked_by_both() {
    let Some(tools) = tools("the schema and wrong values") else { return };
    let directory = directory();
    let address = ([127, 0, 0, 1], 9000).into();
    let good = Document::simple(8080, &[address]);
    let settings = |value: Value| ("backendHttpSettingsCollection", value);
    let wrong = [
        settings(json!({"port": 0})),
        settings(json!({"port": 65_536})),
        settings(json!({"port": 80.5})),
        settings(json!({"port": "eighty"})),
        settings(json!({"protocol": "Tcp"})),
        settings(json!({"requestTimeout": 86_401})),
        settings(json!({"requestTimeout": true})),
        settings(json!({"cookieBasedAffinity": "On"})),
        settings(json!({"dedicatedBackendConnection": "yes"})),
        settings(json!({"dedicatedBackendConnection": 1})),
        settings(json!({"connectionDraining": {"enabled": true, "drainTimeoutInSec": 0}})),
        settings(json!({"connectionDraining": []})),
        settings(json!({"probe": "alive"})),
        settings(json!({"trustedRootCertificates": {}})),
        ("probes", json!({"unhealthyThreshold": 21})),
        ("probes", json!({"match": {"statusCodes": ["good"]}})),
        ("httpListeners", json!({"hostNames": [7]})),
        ("httpListeners", json!({"hostNames": "www.example.com"})),
        ("httpListeners", json!({"holdfast": {"proxyProtocol": "maybe"}})),
        ("requestRoutingRules", json!({"ruleType": "Fancy"})),
        ("requestRoutingRules", json!({"priority": 20_001})),
    ];
    let own = [
        json!({"threads": 0}),
        json!({"threads": 257}),
        json!({"maxHeaderBytes": 100}),
        json!({"accessLog": {"destination": "syslog"}}),
        json!({"accessLog": {"destination": "stdout", "sampleRate": 1.5}}),
    ];
    let mut documents: Vec<Value> = Vec::new();
    for (collection, members) in wrong {
        let Document(mut document) = good.clone();
        for (name, value) in members.as_object().unwrap() {
            document["properties"][collection][0]["properties"][name] = value.clone();
        }
        documents.push(document);
    }
    for members in own {
        let Document(mut document) = good.clone();
        document["holdfast"] = members;
        documents.push(document);
    }
    let file = |name: &str, document: &Value| {
        let path = directory.path().join(name);
        fs::write(&path, document.to_string()).unwrap();
        path
    };
    let good = file("good.json", &good.0);
    assert!(is_valid(&good));
    let refused: Vec<PathBuf> = (0..)
        .zip(&documents)
        .map(|(number, document)| file(&format!("wrong{number}.json"), document))
        .collect();
    for (path, document) in refused.iter().zip(&documents) {
        assert!(!is_valid(path), "{document}");
    }
    check(&tools, directory.path(), &[good], &refused);
}
