//! The schema beside the reader: whatever the reader asks for is in the schema with the same range, words and default, and
//! whatever is in the schema is asked for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::gateway::GATEWAY;
use super::property::{Kind, Object};
use super::schema;
use crate::config::questions::{self, Asked, Question};
use crate::config::{effective, load};

/// A collection's other name, and the one that its entries are compared under.
const SECOND_NAME: (&str, &str) = ("backendHttpSettingsList", "backendhttpsettingscollection");

/// By path and name, in lower case; without a kind where it is passed over.
type Rows = BTreeMap<(String, String), Option<Kind>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Everything that the tables say.
fn rows() -> Rows {
    let mut rows = Rows::new();
    collect(&GATEWAY, "", &mut rows);
    rows
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn collect(object: &'static Object, path: &str, rows: &mut Rows) {
    let mut add = |path: &str, name: &str, kind: Option<Kind>| {
        let before = rows.insert((path.to_owned(), name.to_ascii_lowercase()), kind);
        assert!(before.is_none(), "{name} is twice in {}", object.title);
    };
    if object.named {
        add(path, "name", Some(Kind::Text(None)));
    }
    for name in object.passed {
        add(path, name, None);
    }
    if !object.own.is_empty() {
        add(path, "holdfast", None);
    }
    let own = below(path, "holdfast");
    let properties = object.properties.iter().map(|it| (path, it));
    let properties: Vec<_> =
        properties.chain(object.own.iter().map(|it| (own.as_str(), it))).collect();
    for (path, property) in &properties {
        add(path, property.name, Some(property.kind));
    }
    let second = |name: &str| name == SECOND_NAME.0;
    for (path, property) in properties.into_iter().filter(|(_, it)| !second(it.name)) {
        if let Kind::Object(inner) | Kind::List(inner) = property.kind {
            collect(inner, &below(path, &property.name.to_ascii_lowercase()), rows);
        }
    }
}

/// Every document that there is, good and bad: what the reader asks hangs on what it is answered.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["tests/fixtures", "tests/fixtures/bad", "examples"] {
        for entry in std::fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "json" || ending == "jsonc") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 40, "{found:?}");
    found
}

fn asked() -> BTreeSet<Asked> {
    let heard = questions::during(|| {
        for path in documents() {
            let text = std::fs::read_to_string(&path).unwrap();
            // Whether it is a good one is for others to test.
            drop(load(&text, path.parent().unwrap()));
        }
    });
    let second = SECOND_NAME.0.to_ascii_lowercase();
    let renamed = heard.into_iter().map(|asked| {
        let path = asked.path.replace(&second, SECOND_NAME.1);
        Asked { path, ..asked }
    });
    renamed.collect()
}

/// What is asked of every object, or only to refuse the document.
fn is_apart(asked: &Asked) -> bool {
    asked.name == "id" || (asked.path.is_empty() && asked.name == "resources")
}

#[test]
fn what_the_reader_asks_for_is_in_the_schema() {
    let rows = rows();
    for asked in asked() {
        if is_apart(&asked) || asked.question == Question::Passed {
            continue;
        }
        let Some(row) = rows.get(&(asked.path.clone(), asked.name.clone())) else {
            panic!("the schema lacks {asked:?}");
        };
        let Some(kind) = row else { continue };
        let fits = match &asked.question {
            Question::Passed | Question::Known => true,
            Question::Number(from, to) => {
                matches!(kind, Kind::Number { least, most, .. } if (least, most) == (from, to))
            }
            Question::Flag(meant) => matches!(kind, Kind::Flag(default) if default == meant),
            Question::Word(known) => matches!(kind, Kind::Word { words, .. } if known == words),
            Question::List => matches!(
                kind,
                Kind::List(_) | Kind::References(_) | Kind::Texts | Kind::Names(_) | Kind::Statuses
            ),
            Question::Object => {
                matches!(kind, Kind::Object(_) | Kind::Reference(_) | Kind::Absent)
            }
        };
        assert!(fits, "the schema says {kind:?} of {asked:?}");
    }
}

#[test]
fn what_is_in_the_schema_is_asked_for() {
    let asked = asked();
    for ((path, name), kind) in rows() {
        let mut questions =
            asked.iter().filter(|it| it.path == path && it.name == name).map(|it| &it.question);
        let is_asked = match kind {
            None => questions.next().is_some(),
            Some(Kind::Number { .. }) => questions.any(|it| matches!(it, Question::Number(..))),
            Some(Kind::Flag(_)) => questions.any(|it| matches!(it, Question::Flag(_))),
            Some(Kind::Word { .. }) => questions.any(|it| matches!(it, Question::Word(_))),
            Some(Kind::List(_) | Kind::References(_) | Kind::Texts | Kind::Names(_)) => {
                questions.any(|it| matches!(it, Question::List))
            }
            Some(_) => questions.any(|it| *it != Question::Passed),
        };
        assert!(is_asked, "nobody asks {path:?} for {name} as {kind:?}");
    }
}

/// Leaves by their paths, without positions; of several equal paths the first.
fn leaves(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                leaves(value, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| leaves(entry, path, found)),
        leaf => {
            let path = questions::plain(path.trim_start_matches('.'));
            found.entry(path).or_insert_with(|| leaf.clone());
        }
    }
}

fn effective_leaves(text: &str, base: &Path) -> BTreeMap<String, Value> {
    let loaded = load(text, base).unwrap_or_else(|found| panic!("{found:?}"));
    let mut found = BTreeMap::new();
    leaves(&effective(&loaded.gateway), "", &mut found);
    found
}

#[test]
fn defaults_are_what_the_effective_configuration_says() {
    let link = |collection: &str| json!({ "id": format!("/{collection}/x") });
    let least = json!({
        "frontendIPConfigurations": [{ "name": "x" }],
        "frontendPorts": [{ "name": "x", "port": 8080 }],
        "backendAddressPools": [{ "name": "x", "backendAddresses": [{ "ipAddress": "127.0.0.2" }] }],
        "probes": [{ "name": "x" }],
        "backendHttpSettingsCollection": [{ "name": "x", "port": 9000, "probe": link("probes") }],
        "loadDistributionPolicies": [{ "name": "x", "loadDistributionTargets":
            [{ "name": "x", "backendAddressPool": link("backendAddressPools") }] }],
        "rewriteRuleSets": [{ "name": "x", "rewriteRules": [{ "name": "x",
            "conditions": [{ "variable": "var_uri_path", "pattern": "." }],
            "actionSet": { "urlConfiguration": { "modifiedPath": "/x" } } }] }],
        "redirectConfigurations": [{ "name": "x", "targetUrl": "https://x.test/" }],
        "httpListeners": [{ "name": "x", "frontendIPConfiguration": link("frontendIPConfigurations"),
            "frontendPort": link("frontendPorts") }],
        "requestRoutingRules": [{ "name": "x", "httpListener": link("httpListeners"),
            "backendAddressPool": link("backendAddressPools"),
            "backendHttpSettings": link("backendHttpSettingsCollection") }],
    });
    let written = effective_leaves(&least.to_string(), &root());
    let mut compared = 0;
    for ((path, name), kind) in rows() {
        let default = match kind {
            Some(Kind::Number { default: Some(default), .. }) => json!(default),
            Some(Kind::Flag(default)) => json!(default),
            Some(Kind::Word { default: Some(word), .. } | Kind::Text(Some(word))) => json!(word),
            Some(Kind::Share) => json!(1.0),
            Some(Kind::Statuses) => json!("200-399"),
            _ => continue,
        };
        let path = below(&path, &name);
        if let Some(written) = written.get(&path) {
            assert_eq!(*written, default, "{path}");
            compared += 1;
        }
    }
    assert!(compared >= 40, "only {compared} defaults were compared");
}

#[test]
fn everything_that_is_printed_is_in_the_schema() {
    let text = std::fs::read_to_string(root().join("tests/fixtures/everything.jsonc")).unwrap();
    let rows = rows();
    let written = effective_leaves(&text, &root().join("tests/fixtures"));
    assert!(written.len() > 80, "{written:?}");
    for path in written.keys().map(|path| path.strip_suffix(".id").unwrap_or(path)) {
        let (object, name) = path.rsplit_once('.').unwrap_or(("", path));
        assert!(rows.contains_key(&(object.to_owned(), name.to_owned())), "{path}");
    }
}

#[test]
fn the_schema_in_the_documentation_is_this_one() {
    let written = std::fs::read_to_string(root().join("docs/schema/holdfast.schema.json"));
    let same = written.is_ok_and(|written| written == format!("{:#}\n", schema()));
    assert!(same, "run `holdfast schema >docs/schema/holdfast.schema.json`");
}

#[test]
fn every_reference_in_the_schema_leads_somewhere() {
    fn look(value: &Value, definitions: &Value, seen: &mut usize) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(at)) = members.get("$ref") {
                    let title = at.strip_prefix("#/definitions/").unwrap();
                    assert!(definitions[title].is_object(), "{at}");
                    *seen += 1;
                }
                members.values().for_each(|it| look(it, definitions, seen));
            }
            Value::Array(entries) => entries.iter().for_each(|it| look(it, definitions, seen)),
            _ => {}
        }
    }
    let (schema, mut seen) = (schema(), 0);
    look(&schema, &schema["definitions"], &mut seen);
    assert!(seen > 60, "{seen}");
}
