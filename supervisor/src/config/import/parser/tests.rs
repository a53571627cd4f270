//! What is an expression, how it is read, and where it goes wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::{Expression, Step, Target, Written, parse, written};

fn call(name: &str, arguments: Vec<Expression>) -> Expression {
    Expression::Call(name.to_owned(), arguments)
}

fn text(text: &str) -> Expression {
    Expression::Text(text.to_owned())
}

#[test]
fn only_what_stands_in_brackets_is_an_expression() {
    for (string, expected) in [
        ("", Written::Literal("")),
        ("plain", Written::Literal("plain")),
        ("[variables('a')]", Written::Expression("variables('a')")),
        ("[[a]", Written::Literal("[a]")),
        ("[[a", Written::Literal("[[a")),
        ("[a] b", Written::Literal("[a] b")),
        ("a [b]", Written::Literal("a [b]")),
        ("[", Written::Literal("[")),
        ("[]", Written::Expression("")),
        ("[[]", Written::Literal("[]")),
    ] {
        assert_eq!(written(string), expected, "{string}");
    }
}

#[test]
fn calls_texts_numbers_and_steps_are_read() {
    let member = |name: &str, may_miss| Step { to: Target::Member(name.to_owned()), may_miss };
    let index = |index, may_miss| Step { to: Target::Index(index), may_miss };
    for (string, expected) in [
        ("'it''s'", text("it's")),
        ("''", text("")),
        ("''''", text("'")),
        (" -5 ", Expression::Int(-5)),
        ("TRUE", Expression::Bool(true)),
        ("resourceGroup()", call("resourcegroup", vec![])),
        ("Concat( 'a' , 1 )", call("concat", vec![text("a"), Expression::Int(1)])),
        ("ns.fn('x')", call("ns.fn", vec![text("x")])),
        (
            "a().b[0].?c[?'d']",
            Expression::Access(
                Box::new(call("a", vec![])),
                vec![
                    member("b", false),
                    index(Expression::Int(0), false),
                    member("c", true),
                    index(text("d"), true),
                ],
            ),
        ),
    ] {
        assert_eq!(parse(string).unwrap(), expected, "{string}");
    }
}

#[test]
fn what_cannot_be_read_says_where() {
    for (string, reason) in [
        ("", "at its character 2, a value is missing"),
        ("a", "at its character 3, no ( follows"),
        ("a(", "at its character 4, a value is missing"),
        ("a('b'", "at its character 7, the end stands where ',' should"),
        ("a('b)", "a string has no end"),
        ("a() b", "at its character 6, 'b' stands after the expression's end"),
        ("a().", "a property's name is missing"),
        ("a()[1", "the end stands where ']' should"),
        ("1.5", "\"1.5\" is not a whole number"),
        ("99999999999999999999", "is not a whole number"),
        ("a(,)", "',' begins no value"),
        ("é'", "no ( follows"),
    ] {
        let fault = parse(string).unwrap_err();
        assert!(fault.reason.contains(reason), "{string}: {}", fault.reason);
        assert!(!fault.mend.is_empty());
    }
}

#[test]
fn depth_and_length_have_bounds_and_chains_do_not_nest() {
    let deep = format!("{}{}", "a(".repeat(20_000), ")".repeat(20_000));
    assert!(parse(&deep).unwrap_err().reason.contains("nested more than"));
    let indexes = format!("a(){}", "[a()".repeat(10_000));
    assert!(parse(&indexes).unwrap_err().reason.contains("nested more than"));
    assert!(parse(&format!("a(){}", ".b".repeat(30_000))).is_ok());
    assert!(parse(&"a".repeat(70_000)).unwrap_err().reason.contains("longer than"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        prop_assert!(parse(&text).map_or_else(|fault| !fault.reason.is_empty(), |_| true));
    }

    #[test]
    fn nothing_near_an_expression_makes_it_panic(text in "[a-c'()\\[\\],.?0-9é -]{0,40}") {
        prop_assert!(parse(&text).map_or_else(|fault| !fault.reason.is_empty(), |_| true));
    }

    #[test]
    fn texts_come_back_as_they_were(text in any::<String>()) {
        let quoted = format!("'{}'", text.replace('\'', "''"));
        if quoted.len() <= 65_536 {
            prop_assert_eq!(parse(&quoted).ok(), Some(Expression::Text(text)));
        }
    }
}
