//! What the reader takes and what it refuses, and where.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::{Node, SyntaxError, Value, parse};

fn to_serde(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(text) => serde_json::from_str(text).unwrap(),
        Value::Text(text) => text.clone().into(),
        Value::List(entries) => entries.iter().map(to_serde).collect(),
        Value::Object(members) => {
            members.iter().map(|m| (m.name.clone(), to_serde(&m.value))).collect()
        }
    }
}

#[test]
fn comments_trailing_commas_and_a_byte_order_mark_are_taken() {
    let text =
        "\u{feff}// x\n{ /* a */ \"a\": [1, 2,], // b\n \"b\": \"\\u00e9\\ud83d\\ude00\", }\n";
    let expected = serde_json::json!({"a": [1, 2], "b": "é😀"});
    assert_eq!(to_serde(&parse(text).unwrap()), expected);
}

#[test]
fn every_value_knows_its_place() {
    let root = parse("{\n  \"a\": [1,\n    true]\n}").unwrap();
    let Value::Object(members) = &root.value else { panic!() };
    let member = members.first().unwrap();
    assert_eq!((member.line, member.column), (2, 3));
    let Value::List(entries) = &member.value.value else { panic!() };
    assert_eq!((entries[1].line, entries[1].column), (3, 5));
}

#[test]
fn what_is_not_json_is_refused_where_it_stands() {
    for (text, line, column) in [
        ("", 1, 1),
        ("{", 1, 2),
        ("{\"a\" 1}", 1, 6),
        ("[1 2]", 1, 4),
        ("[,]", 1, 2),
        ("nul", 1, 1),
        ("[1]]", 1, 4),
        ("\"a\nb\"", 1, 3),
        ("/* x", 1, 5),
        ("/x", 1, 3),
        ("\"\\q\"", 1, 4),
        ("\"\\ud800x\"", 1, 9),
        ("1e999", 1, 6),
        ("--1", 1, 4),
    ] {
        let SyntaxError { line: l, column: c, reason, mend } = parse(text).unwrap_err();
        assert_eq!((l, c), (line, column), "{text:?}: {reason}");
        assert!(!reason.is_empty() && !mend.is_empty());
    }
}

#[test]
fn ten_megabytes_of_brackets_are_refused() {
    for bracket in ["[", "{\"a\":", "[{\"a\":"] {
        let error = parse(&bracket.repeat(10_000_000 / bracket.len())).unwrap_err();
        assert!(error.reason.contains("nested more than 128 deep"), "{}", error.reason);
    }
    let fits = format!("{}{}", "[".repeat(128), "]".repeat(128));
    assert!(parse(&fits).is_ok());
}

proptest! {
    #[test]
    fn it_reads_what_serde_reads(text in "[\\[\\]{}:,\"a0-9.eE+\\-tfn\\\\ /*]{0,40}") {
        let ours = parse(&text);
        if let Ok(theirs) = serde_json::from_str::<serde_json::Value>(&text) {
            prop_assert_eq!(ours.as_ref().map(to_serde), Ok(theirs));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        prop_assert!(parse(&text).map_or_else(|e| !e.reason.is_empty(), |_| true));
    }
}
