//! Rewrite sets in documents: what is taken, what is refused and why, what comes out of `holdfast config`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::needless_pass_by_value, reason = "documents are written where they are used")]

use std::path::Path;

use holdfast_proto::control::{self, ServerVariable, rewrite_part, rewrite_source};
use serde_json::{Value, json};

use crate::compile::compile;
use crate::config::{Diagnostic, Gateway, Severity, effective, load};

/// A gateway with one Basic rule that has the set "s", whose rules these are.
fn document(rules: Value) -> Value {
    json!({
        "frontendIPConfigurations": [{"name": "f", "holdfast": {"address": "127.0.0.1"}}],
        "frontendPorts": [{"name": "p", "port": 8080}],
        "backendAddressPools": [{"name": "b", "backendAddresses": [{"fqdn": "b.test"}]}],
        "backendHttpSettingsCollection": [{"name": "s", "port": 80}],
        "httpListeners": [{"name": "l", "frontendIPConfiguration": {"id": "/frontendIPConfigurations/f"},
            "frontendPort": {"id": "/frontendPorts/p"}}],
        "rewriteRuleSets": [{"name": "s", "properties": {"rewriteRules": rules}}],
        "requestRoutingRules": [{"name": "r", "httpListener": {"id": "/httpListeners/l"},
            "backendAddressPool": {"id": "/backendAddressPools/b"},
            "backendHttpSettings": {"id": "/backendHttpSettingsCollection/s"},
            "rewriteRuleSet": {"id": "/rewriteRuleSets/s"}}],
    })
}

fn rule(conditions: Value, actions: Value) -> Value {
    json!({"name": "one", "ruleSequence": 100, "conditions": conditions, "actionSet": actions})
}

fn request(name: &str, value: &str) -> Value {
    json!({"requestHeaderConfigurations": [{"headerName": name, "headerValue": value}]})
}

fn response(name: &str, value: &str) -> Value {
    json!({"responseHeaderConfigurations": [{"headerName": name, "headerValue": value}]})
}

fn lines(found: &[Diagnostic]) -> String {
    let lines: Vec<_> = found.iter().map(|it| format!("{:?} {it}", it.severity)).collect();
    lines.join("\n")
}

fn loaded(document: &Value) -> (Gateway, Vec<Diagnostic>) {
    let loaded =
        load(&document.to_string(), Path::new(".")).unwrap_or_else(|it| panic!("{}", lines(&it)));
    (loaded.gateway, loaded.warnings)
}

const RULE: &str = "rewriteRuleSets[0].properties.rewriteRules[0]";

/// The document is refused for this alone, at this place within the first rule.
fn refuses(document: &Value, place: &str, reason: &str) {
    let found = load(&document.to_string(), Path::new(".")).expect_err(reason);
    let errors: Vec<_> = found.iter().filter(|it| it.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{reason}: {}", lines(&found));
    assert_eq!(errors[0].path, format!("{RULE}{place}"), "{reason}");
    assert!(errors[0].reason.contains(reason) || errors[0].mend.contains(reason), "{}", errors[0]);
    assert!(!errors[0].mend.is_empty() && errors[0].line > 0);
}

fn warns(document: &Value, path: &str, reason: &str) {
    let (_, warnings) = loaded(document);
    let hit = warnings.iter().any(|it| it.path == path && it.reason.contains(reason));
    assert!(hit, "no {path}: {reason} in\n{}", lines(&warnings));
}

/// As in Azure's own examples.
fn example() -> Value {
    document(json!([
        {"name": "late", "ruleSequence": "200", "conditions": [
            {"variable": "http_resp_Location", "pattern": "(https?):\\/\\/.*azurewebsites\\.net(.*)$",
             "ignoreCase": "true", "negate": false}],
         "actionSet": {"requestHeaderConfigurations": [], "responseHeaderConfigurations": [
            {"headerName": "Location", "headerValue": "{http_resp_Location_1}://contoso.com{http_resp_location_2}"},
            {"headerName": "Set-Cookie", "headerValue": "{capt_header_value_matcher_1}; Secure",
             "headerValueMatcher": {"pattern": "(cookie1=.*)", "ignoreCase": true, "negate": false}},
            {"headerName": "Server", "headerValue": ""}]}},
        {"name": "early", "ruleSequence": 100, "conditions": [
            {"variable": "var_uri_path", "pattern": "/(.+)/(.+)"}],
         "actionSet": {"requestHeaderConfigurations": [
            {"headerName": "X-Forwarded-For", "headerValue": "{var_add_x_forwarded_for_proxy}"}],
            "urlConfiguration": {"modifiedPath": "buy.aspx", "reroute": null,
             "modifiedQueryString": "category={var_uri_path_1}&product={var_uri_path_2}"}}},
    ]))
}

#[test]
fn azures_own_examples_are_taken_without_a_warning() {
    let (gateway, warnings) = loaded(&example());
    assert_eq!(lines(&warnings), "");
    let compiled = compile(&gateway).unwrap();
    let listener = compiled.listeners.values().next().unwrap();
    let set = &listener.rewrite_sets[0];
    let names: Vec<_> = set.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["early", "late"], "by ascending ruleSequence");
    assert_eq!(listener.sites[0].default_action.as_ref().unwrap().rewrite_set, Some(0));
    let parts = |value: &Option<control::RewriteValue>| -> Vec<rewrite_part::Kind> {
        value.as_ref().unwrap().parts.iter().map(|part| part.kind.clone().unwrap()).collect()
    };
    let capture =
        |group| rewrite_part::Kind::Capture(control::RewriteCapture { condition: 0, group });
    let text = |text: &str| rewrite_part::Kind::Text(text.to_owned());
    let url = set.rules[0].url.as_ref().unwrap();
    assert_eq!(parts(&url.path), [text("buy.aspx")]);
    assert_eq!(parts(&url.query), [text("category="), capture(1), text("&product="), capture(2)]);
    let variable = rewrite_source::Kind::Variable(ServerVariable::AddXForwardedForProxy.into());
    let source = control::RewriteSource { kind: Some(variable) };
    let forwarded = &set.rules[0].request_headers[0].value;
    assert_eq!(parts(forwarded), [rewrite_part::Kind::Source(source)]);
    let answer = &set.rules[1].response_headers;
    assert_eq!(parts(&answer[0].value), [capture(1), text("://contoso.com"), capture(2)]);
    assert_eq!(parts(&answer[1].value), [rewrite_part::Kind::Matched(1), text("; Secure")]);
    assert!(parts(&answer[2].value).is_empty(), "an empty value deletes");
}

#[test]
fn an_effective_configuration_with_rewrites_loads_again_the_same() {
    let (gateway, _) = loaded(&example());
    let (again, warnings) = loaded(&effective(&gateway));
    assert_eq!(again, gateway);
    assert_eq!(lines(&warnings), "");
}

#[test]
fn an_empty_query_removes_it_and_null_leaves_it_alone() {
    let url = |query: Value| {
        let url = json!({"urlConfiguration": {"modifiedPath": "/x", "modifiedQueryString": query}});
        let (gateway, _) = loaded(&document(json!([rule(json!([]), url)])));
        gateway.rewrite_sets[0].rules[0].url.clone().unwrap().query
    };
    assert_eq!(url(json!(null)), None);
    assert_eq!(url(json!("")).map(|it| it.parts.len()), Some(0));
}

#[test]
fn names_are_answered_with_what_may_be_meant() {
    let value = ".actionSet.requestHeaderConfigurations[0].headerValue";
    for (text, reason) in [
        ("{var_clientip}", "did you mean var_client_ip?"),
        ("{var_uri_path_1}", "no condition of this rule is on var_uri_path"),
        ("{http_req_}", "not a header's name"),
        ("{capt_header_value_matcher_1}", "no headerValueMatcher"),
        ("a\u{1}b", "control character"),
    ] {
        refuses(&document(json!([rule(json!([]), request("X-A", text))])), value, reason);
    }
    let variable = ".conditions[0].variable";
    for (text, reason) in [
        ("var_uripath", "did you mean var_uri_path?"),
        ("uri_path", "write var_uri_path"),
        ("{var_host}", "without braces"),
        ("http_req_a b", "not a header's name"),
        ("nonsense", "is no variable"),
    ] {
        let condition = json!([{"variable": text, "pattern": "."}]);
        refuses(&document(json!([rule(condition, request("X-A", "b"))])), variable, reason);
    }
}

#[test]
fn captures_must_be_there_to_be_used() {
    let unread = json!([{"variable": "var_uri_path", "pattern": "("}]);
    let document_of = |value| document(json!([rule(unread.clone(), request("X-A", value))]));
    // Told once: what follows from a condition that cannot be read is not told, too.
    refuses(&document_of("{var_uri_path_1}"), ".conditions[0].pattern", "unclosed");
    let value = ".actionSet.requestHeaderConfigurations[0].headerValue";
    let on = |pattern: &str, negate: bool| {
        let condition = json!([{"variable": "var_uri_path", "pattern": pattern, "negate": negate}]);
        document(json!([rule(condition, request("X-A", "{var_uri_path_2}"))]))
    };
    refuses(&on("(a)", false), value, "has 1 groups, not 2");
    refuses(&on("(a)(b)", true), value, "negated");
    assert_eq!(lines(&loaded(&on("(a)(b)", false)).1), "");
}

#[test]
fn a_pattern_that_is_none_is_told_with_its_reason() {
    for (pattern, reason) in
        [("(", "unclosed group"), ("(?=x)", "look-around"), ("((a{500}){500})", "size limit")]
    {
        let condition = json!([{"variable": "var_host", "pattern": pattern}]);
        let document = document(json!([rule(condition, request("X-A", "b"))]));
        refuses(&document, ".conditions[0].pattern", reason);
    }
    let condition = json!([{"variable": "var_host"}]);
    refuses(
        &document(json!([rule(condition, request("X-A", "b"))])),
        ".conditions[0]",
        "no pattern",
    );
}

#[test]
fn headers_that_are_the_gateways_own_cannot_be_rewritten() {
    let name = ".actionSet.requestHeaderConfigurations[0].headerName";
    for (header, value, reason) in [
        ("Connection", "close", "belongs to the connection"),
        ("upgrade", "", "belongs to the connection"),
        ("Content-Length", "5", "frames the message"),
        ("Transfer-Encoding", "chunked", "frames the message"),
        ("Sec-WebSocket-Key", "x", "opening handshake"),
        ("Sec-WebSocket-Protocol", "mqtt", "may be deleted, but not set"),
        ("X-Original-Host", "x", "what the client has sent"),
        ("Host", "", "Host cannot be deleted"),
        ("X A", "b", "not a header's name"),
        ("X-A\r\nX-B", "b", "not a header's name"),
    ] {
        refuses(&document(json!([rule(json!([]), request(header, value))])), name, reason);
    }
    let name = ".actionSet.responseHeaderConfigurations[0].headerName";
    for header in ["Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Connection"] {
        let document = document(json!([rule(json!([]), response(header, ""))]));
        refuses(&document, name, "cannot be rewritten");
    }
    let fine = document(json!([rule(json!([]), request("Sec-WebSocket-Extensions", ""))]));
    assert_eq!(lines(&loaded(&fine).1), "");
}

#[test]
fn a_matcher_is_for_set_cookie_of_an_answer() {
    for (list, header) in
        [("requestHeaderConfigurations", "Set-Cookie"), ("responseHeaderConfigurations", "X-A")]
    {
        let actions = json!({list: [{"headerName": header, "headerValue": "b",
            "headerValueMatcher": {"pattern": "c"}}]});
        let place = format!(".actionSet.{list}[0].headerValueMatcher");
        refuses(&document(json!([rule(json!([]), actions)])), &place, "Set-Cookie");
    }
}

#[test]
fn paths_and_queries_are_kept_apart() {
    let url = |key: &str, value: &str| {
        document(json!([rule(json!([]), json!({"urlConfiguration": {key: value}}))]))
    };
    let at = |key: &str| format!(".actionSet.urlConfiguration.{key}");
    refuses(&url("modifiedPath", "/a?b=c"), &at("modifiedPath"), "a ? cannot stand here");
    refuses(&url("modifiedPath", "/a#b"), &at("modifiedPath"), "a # cannot stand here");
    refuses(
        &url("modifiedQueryString", "a#b"),
        &at("modifiedQueryString"),
        "a # cannot stand here",
    );
}

#[test]
fn azures_limits_hold() {
    let many = |count: usize| {
        let headers: Vec<_> = (0..count)
            .map(|i| json!({"headerName": format!("X-{i}"), "headerValue": "a"}))
            .collect();
        document(json!([rule(json!([]), json!({"requestHeaderConfigurations": headers}))]))
    };
    assert_eq!(lines(&loaded(&many(40)).1), "");
    let refused = |document: &Value, reason: &str| {
        let found = load(&document.to_string(), Path::new(".")).expect_err(reason);
        // The line that says how many findings were left out has no place.
        let placed = found.iter().filter(|it| it.severity == Severity::Error && it.line > 0);
        let errors: Vec<_> = placed.collect();
        assert!(errors.len() == 1 && errors[0].reason.contains(reason), "{}", lines(&found));
    };
    refused(&many(41), "has 41 changes; 40 are the most");
    let conditions: Vec<_> =
        (0..41).map(|_| json!({"variable": "var_host", "pattern": "a"})).collect();
    refused(
        &document(json!([rule(json!(conditions), request("X-A", "b"))])),
        "has 41 conditions; 40 are the most",
    );
    let mut crowded = document(json!([rule(json!([]), request("X-A", "b"))]));
    let sets = crowded["rewriteRuleSets"].as_array_mut().unwrap();
    sets.extend((0..400).map(|i| json!({"name": format!("t{i}"), "rewriteRules": []})));
    refused(&crowded, "more than 400 rewrite sets");
}

#[test]
fn rules_of_a_set_have_numbers_of_their_own() {
    let mut two =
        json!([rule(json!([]), request("X-A", "b")), rule(json!([]), request("X-B", "b"))]);
    two[1]["name"] = json!("two");
    let found = load(&document(two).to_string(), Path::new(".")).unwrap_err();
    assert!(
        found.iter().any(|it| it.path.ends_with("rewriteRules[1].ruleSequence")
            && it.reason.contains("\"one\" and \"two\" have the same ruleSequence 100")),
        "{}",
        lines(&found)
    );
}

#[test]
fn a_reference_to_no_set_is_refused() {
    let mut document = document(json!([rule(json!([]), request("X-A", "b"))]));
    document["requestRoutingRules"][0]["rewriteRuleSet"]["id"] = json!("/rewriteRuleSets/t");
    let found = load(&document.to_string(), Path::new(".")).unwrap_err();
    let errors: Vec<_> = found.iter().filter(|it| it.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{}", lines(&found));
    assert_eq!(errors[0].path, "requestRoutingRules[0].rewriteRuleSet.id");
}

#[test]
fn what_changes_nothing_is_said() {
    let plain = || document(json!([rule(json!([]), request("X-A", "b"))]));
    let mut unused = plain();
    unused["requestRoutingRules"][0].as_object_mut().unwrap().remove("rewriteRuleSet");
    warns(&unused, "rewriteRuleSets[0]", "nothing refers to the rewrite set \"s\"");

    let mut redirected = unused.clone();
    redirected["redirectConfigurations"] = json!([{"name": "d", "targetUrl": "https://a.test"}]);
    redirected["requestRoutingRules"][0] = json!({"name": "r", "httpListener": {"id": "/httpListeners/l"},
        "redirectConfiguration": {"id": "/redirectConfigurations/d"},
        "rewriteRuleSet": {"id": "/rewriteRuleSets/s"}});
    warns(&redirected, "requestRoutingRules[0].rewriteRuleSet", "is not rewritten");

    let mut by_path = plain();
    by_path["urlPathMaps"] = json!([{"name": "m",
        "defaultBackendAddressPool": {"id": "/backendAddressPools/b"},
        "defaultBackendHttpSettings": {"id": "/backendHttpSettingsCollection/s"}}]);
    by_path["requestRoutingRules"][0]["ruleType"] = json!("PathBasedRouting");
    by_path["requestRoutingRules"][0]["urlPathMap"] = json!({"id": "/urlPathMaps/m"});
    warns(&by_path, "requestRoutingRules[0].rewriteRuleSet", "in a rule that routes by path");

    for (actions, at, reason) in [
        (json!({"urlConfiguration": {"modifiedPath": "/a", "reroute": true}}), "", "Basic rule"),
        (
            json!({"urlConfiguration": {"reroute": true}}),
            ".actionSet.urlConfiguration",
            "changes nothing",
        ),
        (json!({}), ".actionSet", "changes nothing"),
        (
            request("X-A", "{var_client_user}"),
            ".actionSet.requestHeaderConfigurations[0].headerValue",
            "client_user has no meaning here",
        ),
        (
            request("X-A", "{http_resp_X-B}"),
            ".actionSet.requestHeaderConfigurations[0].headerValue",
            "not known while the request is changed",
        ),
        (
            request("X-A", "{client_ip}"),
            ".actionSet.requestHeaderConfigurations[0].headerValue",
            "is no reference",
        ),
        (
            request("X-A", "{http_req_X-B_1}"),
            ".actionSet.requestHeaderConfigurations[0].headerValue",
            "taken for a name as a whole",
        ),
        (
            response("Date", ""),
            ".actionSet.responseHeaderConfigurations[0].headerName",
            "Date stays",
        ),
    ] {
        let path = match at {
            "" => "requestRoutingRules[0].rewriteRuleSet".to_owned(),
            at => format!("{RULE}{at}"),
        };
        warns(&document(json!([rule(json!([]), actions)])), &path, reason);
    }
    for variable in ["ciphers_supported", "client_tcp_rtt", "client_user", "sent_bytes"] {
        let value = format!("{{var_{variable}}}");
        let place = format!("{RULE}.actionSet.responseHeaderConfigurations[0].headerValue");
        let document = document(json!([rule(json!([]), response("X-A", &value))]));
        warns(&document, &place, &format!("{variable} has no meaning here"));
    }
    let late = json!([{"variable": "var_http_status", "pattern": "200"}]);
    warns(&document(json!([rule(late, request("X-A", "b"))])), RULE, "comes too late");
}

#[test]
fn braces_that_refer_to_nothing_are_text() {
    let json_value = r#"{"group":"default","max_age":1,"url":"https://{var_host}/r"}"#;
    let (gateway, warnings) =
        loaded(&document(json!([rule(json!([]), response("Report-To", json_value))])));
    assert_eq!(lines(&warnings), "");
    let parts = &gateway.rewrite_sets[0].rules[0].response_headers[0].value.parts;
    assert_eq!(parts.len(), 3, "{parts:?}");
}
