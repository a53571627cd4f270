//! The JSON Schema of documents, for editors: made of the tables below, in all shapes that a document may have. It refuses
//! nothing that the reader takes; what spans several places (references, names that are missing) is left to the
//! reader. Tests listen to the reader's questions and compare them with the tables, both ways.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::property::{Kind, Object, Property};

mod admin;
mod backend;
mod gateway;
mod property;
mod rewrite;
mod site;

#[cfg(test)]
mod tests;

/// Of draft 7, which every editor knows.
const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// The schema of a document.
pub fn schema() -> Value {
    let mut definitions = BTreeMap::new();
    let reference = json!({
        "description": "A reference to another entry, such as {\"id\": \"/probes/alive\"}: its last two segments count, without regard to case.",
        "type": ["object", "null"],
        "properties": { "id": { "type": ["string", "null"] } },
    });
    definitions.insert("reference".to_owned(), reference);
    define(&gateway::GATEWAY, &mut definitions);
    json!({
        "$schema": DIALECT,
        "title": "Holdfast gateway document",
        "description": "An Azure Application Gateway, as `holdfast run --config` reads it: as a resource, bare, or as `az network application-gateway show` prints it.",
        "type": "object",
        "allOf": [to(&gateway::GATEWAY)],
        "definitions": definitions,
    })
}

fn to(object: &Object) -> Value {
    json!({ "$ref": format!("#/definitions/{}", object.title) })
}

/// Adds an object's definition, and those of the objects in it.
fn define(object: &'static Object, definitions: &mut BTreeMap<String, Value>) {
    if definitions.contains_key(object.title) {
        return;
    }
    // Found again by an object in it, it is there.
    definitions.insert(object.title.to_owned(), Value::Null);
    let mut members = members(object.properties, definitions);
    if !object.own.is_empty() {
        let own = json!({
            "description": "What Azure has no words for.",
            "type": ["object", "null"],
            "properties": self::members(object.own, definitions),
        });
        members.insert("holdfast".to_owned(), own);
    }
    for name in object.passed {
        members
            .insert((*name).to_owned(), json!({ "description": "Azure's word; no effect here." }));
    }
    let wrapped = format!("{}.properties", object.title);
    let mut written = json!({ "description": object.about, "type": "object" });
    if object.named {
        let properties = json!({
            "name": { "description": "The name by which others refer to it.", "type": ["string", "number", "boolean", "null"] },
            "properties": { "$ref": format!("#/definitions/{wrapped}") },
        });
        put(&mut written, "properties", Some(properties));
        let all = json!([{ "$ref": format!("#/definitions/{wrapped}") }]);
        put(&mut written, "allOf", Some(all));
        let inner = json!({ "type": ["object", "null"], "properties": members });
        definitions.insert(wrapped, inner);
    } else {
        put(&mut written, "properties", Some(Value::Object(members)));
    }
    definitions.insert(object.title.to_owned(), written);
}

/// Adds a member that may be absent.
fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(members), Some(value)) = (object.as_object_mut(), value) {
        members.insert(name.to_owned(), value);
    }
}

fn members(
    properties: &'static [Property],
    definitions: &mut BTreeMap<String, Value>,
) -> Map<String, Value> {
    let mut members = Map::new();
    for property in properties {
        let mut written = value(property.kind, definitions);
        put(&mut written, "description", Some(json!(property.about)));
        members.insert(property.name.to_owned(), written);
    }
    members
}

/// What a property's value may be. Null is absence everywhere, and so is an empty text.
fn value(kind: Kind, definitions: &mut BTreeMap<String, Value>) -> Value {
    match kind {
        Kind::Flag(default) => json!({
            "type": ["boolean", "string", "null"],
            "pattern": any_case(&["true", "false"]),
            "default": default,
        }),
        Kind::Number { least, most, default } => {
            let mut written = json!({
                "type": ["integer", "string", "null"],
                "minimum": least,
                "maximum": most,
                "pattern": r"^\s*\+?[0-9]*(\.0)?\s*$",
            });
            put(&mut written, "default", default.map(|it| json!(it)));
            written
        }
        Kind::Share => json!({
            "type": ["number", "string", "null"],
            "minimum": 0,
            "maximum": 1,
            "default": 1,
        }),
        Kind::Word { words, default } => {
            let mut written = one_of(words);
            put(&mut written, "default", default.map(|it| json!(it)));
            written
        }
        Kind::Name(names) => one_of(&names()),
        Kind::Names(names) => json!({ "type": ["array", "null"], "items": one_of(&names()) }),
        Kind::Text(default) => {
            let mut written = json!({ "type": ["string", "number", "boolean", "null"] });
            put(&mut written, "default", default.map(|it| json!(it)));
            written
        }
        Kind::Texts => json!({ "type": ["array", "null"], "items": { "type": "string" } }),
        Kind::Statuses => json!({
            "type": ["array", "null"],
            "items": { "type": ["string", "integer"], "pattern": r"^[0-9+,\s-]*$" },
            "default": ["200-399"],
        }),
        Kind::Reference(collection) => json!({
            "allOf": [{ "$ref": "#/definitions/reference" }],
            "examples": [{ "id": format!("/{collection}/NAME") }],
        }),
        Kind::References(collection) => json!({
            "type": ["array", "null"],
            "items": { "$ref": "#/definitions/reference" },
            "examples": [[{ "id": format!("/{collection}/NAME") }]],
        }),
        Kind::Absent => json!({ "type": "null" }),
        Kind::Object(object) => {
            define(object, definitions);
            json!({ "anyOf": [to(object), { "type": "null" }] })
        }
        Kind::List(object) => {
            define(object, definitions);
            json!({ "type": ["array", "null"], "items": to(object) })
        }
    }
}

/// One of some words: as they are spelled, for what an editor suggests, and in any case.
fn one_of(words: &[&str]) -> Value {
    json!({
        "anyOf": [
            { "enum": words },
            { "type": "string", "pattern": any_case(words) },
            { "type": "null" },
        ],
    })
}

/// A pattern for words in any case, and for none; ECMA's patterns have no flag for that.
fn any_case(words: &[&str]) -> String {
    let letters = |word: &&str| -> String {
        let letter = |c: char| match (c.to_ascii_uppercase(), c.to_ascii_lowercase()) {
            (upper, lower) if upper == lower => c.to_string(),
            (upper, lower) => format!("[{upper}{lower}]"),
        };
        word.chars().map(letter).collect()
    };
    let words: Vec<String> = words.iter().map(letters).collect();
    format!(r"^\s*(?:{})?\s*$", words.join("|"))
}
