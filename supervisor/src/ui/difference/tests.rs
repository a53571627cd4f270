//! Changes as the page lists them, and what it never shows.
#![allow(
    clippy::needless_pass_by_value,
    reason = "tests: documents are written where they are needed"
)]

use super::*;

fn told(before: Value, after: Value) -> Vec<(String, Value, Value)> {
    let told = between(&before, &after);
    let changes = told["changes"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    changes
        .iter()
        .map(|it| (text(&it["path"]), it["before"].clone(), it["after"].clone()))
        .collect()
}

fn one(
    path: &str,
    before: impl Into<Value>,
    after: impl Into<Value>,
) -> Vec<(String, Value, Value)> {
    vec![(path.to_owned(), before.into(), after.into())]
}

#[test]
fn the_same_has_no_changes() {
    let document = json!({"a": [{"name": "x", "properties": {"n": 1}}], "b": null});
    assert_eq!(told(document.clone(), document), []);
}

#[test]
fn places_are_told_without_what_stands_there() {
    let before = json!({"a": "secret", "b": [{"name": "x", "n": 1}], "c": 1});
    let after = json!({"a": "other", "b": [{"name": "x", "n": 2}, {"name": "y"}], "c": 2});
    assert_eq!(places(&before, &after, 9), ["a", "b[x].n", "b[y]", "c"]);
    assert_eq!(places(&before, &after, 2), ["a", "b[x].n", "2 more"]);
    assert_eq!(places(&before, &before, 2), Vec::<String>::new());
}

#[test]
fn children_are_told_apart_by_name() {
    let pool = |name: &str, port: u16| json!({"name": name, "properties": {"port": port}});
    let list = |items: &[Value]| json!({"properties": {"pools": items}});
    let one_more = told(
        list(&[pool("a", 1), pool("b", 2)]),
        list(&[pool("new", 9), pool("a", 1), pool("b", 3)]),
    );
    assert_eq!(one_more.len(), 2, "{one_more:?}");
    assert_eq!(one_more[0], ("properties.pools[b].properties.port".into(), "2".into(), "3".into()));
    assert_eq!(one_more[1].0, "properties.pools[new]");
    assert_eq!(one_more[1].1, Value::Null);
    let moved = told(list(&[pool("a", 1), pool("b", 2)]), list(&[pool("b", 2), pool("a", 1)]));
    assert_eq!(moved[0].0, "properties.pools (order)");
}

#[test]
fn of_lists_without_names_it_is_told_what_went_and_what_came() {
    let hosts = |names: &[&str]| json!({"hosts": names});
    let changes = told(hosts(&["a", "b", "b"]), hosts(&["b", "c"]));
    assert_eq!(changes.len(), 1);
    let text = |value: &Value| serde_json::from_str::<Value>(value.as_str().unwrap_or("")).ok();
    assert_eq!(text(&changes[0].1), Some(json!(["a", "b"])));
    assert_eq!(text(&changes[0].2), Some(json!(["c"])));
    let turned = told(hosts(&["a", "b"]), hosts(&["b", "a"]));
    assert_eq!(text(&turned[0].2), Some(json!(["b", "a"])));
}

#[test]
fn a_value_that_becomes_another_kind_is_one_change() {
    assert_eq!(told(json!({"a": [1]}), json!({"a": "x"})).len(), 1);
    assert_eq!(told(json!({"a": {"b": 1}}), json!({"a": null})).len(), 1);
    assert_eq!(told(json!({}), json!({"a": "x"})), one("a", Value::Null, "x"));
}

#[test]
fn what_may_be_a_secret_is_not_shown_and_its_change_is() {
    let page = |url: &str| json!({"pages": [{"name": "p", "customErrorPageUrl": url}]});
    let before = "https://user:word@host.example/page.html?sig=first";
    let after = "https://host.example/page.html?sig=second#x";
    assert_eq!(
        told(page(before), page(after)),
        one(
            "pages[p].customErrorPageUrl",
            "https://…@host.example/page.html?(not shown)",
            "https://host.example/page.html?(not shown)"
        )
    );
    let header = |value: &str| {
        let header = json!({"headerName": "Authorization", "headerValue": value});
        json!({"sets": [{"name": "s", "actionSet": {
            "requestHeaderConfigurations": [header],
            "responseHeaderConfigurations": [{"headerName": "Server", "headerValue": value}],
        }}]})
    };
    let changes = told(header("Basic first"), header("Basic second"));
    assert_eq!(changes.len(), 2);
    let request = format!("{:?}", changes[0]);
    assert!(request.contains("(not shown)") && !request.contains("Basic"), "{request}");
    assert!(format!("{:?}", changes[1]).contains("Basic second"));
    for (key, value) in [("path", "/healthz?key=1"), ("modifiedQueryString", "key=1")] {
        let whole = format!("{:?}", told(json!({}), json!({"probe": {key: value}})));
        assert!(whole.contains("(not shown)") && !whole.contains("key=1"), "{whole}");
    }
    let condition = json!({"conditions": [{"variable": "http_req_X-Key", "pattern": "^word$"}]});
    let whole = format!("{:?}", told(json!({}), condition));
    assert!(whole.contains("http_req_X-Key") && !whole.contains("word"), "{whole}");
    // The whole set is new.
    let whole = format!("{:?}", told(json!({}), header("Basic first")));
    assert!(whole.contains("(not shown)"), "{whole}");
    assert_eq!(whole.matches("Basic first").count(), 1, "{whole}");
}

#[test]
fn what_is_listed_is_bounded() {
    let many: Map<String, Value> = (0..MOST + 7).map(|n| (format!("k{n}"), json!(n))).collect();
    let told = between(&json!({}), &Value::Object(many));
    assert_eq!(told["changes"].as_array().map(Vec::len), Some(MOST));
    assert_eq!(told["more"], 7);
    let long = between(&json!({}), &json!({"a": "ä".repeat(LONGEST + 1)}));
    let shown = long["changes"][0]["after"].as_str().unwrap_or_default().to_owned();
    assert_eq!(shown.chars().count(), LONGEST + 1);
    assert!(shown.ends_with('…'));
}
