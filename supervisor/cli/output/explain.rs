//! What `explain` prints: the way of a request from the listener to the backends, in the order in which it goes it.
//!
//! Pure. Headers came from anybody, so that none reaches the terminal as it is.

use std::net::{IpAddr, SocketAddr};

use holdfast_proto::admin::explain_rewrite::Effect;
use holdfast_proto::admin::{
    ExplainBackend, ExplainForward, ExplainHeader, ExplainRequest, ExplainResponse, ExplainRewrite,
    ExplainStep,
};
use holdfast_supervisor::facts::seconds;
use serde_json::{Value, json};

use super::endpoint;
use super::table::{Table, look, printable};

/// Width of what stands before each line.
const LABEL: usize = 10;

/// The command's JSON. `known`: the answer comes from a gateway that knows its backends' health.
pub(crate) fn explain_json(answer: &ExplainResponse, known: bool) -> Value {
    let steps: Vec<_> = answer.steps.iter().map(step_json).collect();
    let refusal = answer
        .refusal
        .as_ref()
        .map(|it| json!({"status": it.status, "word": it.word, "reason": it.reason}));
    let redirect =
        answer.redirect.as_ref().map(|it| json!({"status": it.status, "location": it.location}));
    json!({
        "revision": known.then_some(answer.revision),
        "listener": answer.listener,
        "client": answer.client,
        "websocket": answer.websocket,
        "handshake_site": some(&answer.handshake_site),
        "client_certificate": some(&answer.client_certificate),
        "site": some(&answer.site),
        "steps": steps,
        "refusal": refusal,
        "redirect": redirect,
        "forward": answer.forward.as_ref().map(|forward| forward_json(forward, known)),
    })
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn step_json(step: &ExplainStep) -> Value {
    let rewrites: Vec<_> = step
        .rewrites
        .iter()
        .map(|it| json!({"rule": it.rule, "effect": effect_word(it)}))
        .collect();
    json!({
        "rule": step.rule,
        "path_rule": some(&step.path_rule),
        "rewrite_set": some(&step.rewrite_set),
        "rewrites": rewrites,
    })
}

fn effect_word(rewrite: &ExplainRewrite) -> &'static str {
    match rewrite.effect() {
        Effect::Applies => "applies",
        Effect::Waits => "waits",
        Effect::DoesNotApply | Effect::Unspecified => "does_not_apply",
    }
}

fn forward_json(forward: &ExplainForward, known: bool) -> Value {
    let headers: Vec<_> =
        forward.headers.iter().map(|it| json!({"name": it.name, "value": it.value})).collect();
    let backend = |it: &ExplainBackend| {
        json!({
            "pool": it.pool,
            "address": it.address,
            "port": it.port,
            "weight": it.weight,
            "in_rotation": known.then_some(it.in_rotation),
            "state": some(&it.state),
            "last": some(&it.last),
            "host": it.host,
            "server_name": some(&it.server_name),
        })
    };
    let timeout = Some(forward.request_timeout_ms).filter(|ms| *ms > 0);
    json!({
        "pool": forward.pool,
        "settings": forward.settings,
        "scheme": forward.scheme,
        "algorithm": forward.algorithm,
        "affinity": forward.affinity,
        "request_timeout_seconds": timeout.map(seconds),
        "target": forward.target,
        "headers": headers,
        "backends": forward.backends.iter().map(backend).collect::<Vec<_>>(),
        "certain": some(&forward.certain),
    })
}

/// Lines with a label each.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, label: &str, text: &str) {
        self.0.push(format!("{label:<LABEL$} {}\n", printable(text)));
    }
}

/// The command's text.
pub(crate) fn explain_text(
    question: &ExplainRequest,
    answer: &ExplainResponse,
    known: bool,
) -> String {
    let mut lines = Lines::default();
    let kind = if answer.websocket { " (opening handshake of a WebSocket)" } else { "" };
    let (method, target) = (&question.method, &question.target);
    lines.add("request", &format!("{method} {target} for {}{kind}", question.host));
    let by =
        if known { format!("revision {}", answer.revision) } else { "by the document".to_owned() };
    lines.add("listener", &format!("{}, {by}", answer.listener));
    if let Some(client) = other_client(question, answer) {
        lines.add("client", &client);
    }
    if !answer.handshake_site.is_empty() && answer.handshake_site != answer.site {
        lines.add("handshake", &format!("shows the certificate of site {}", answer.handshake_site));
    }
    if !answer.site.is_empty() {
        lines.add("site", &answer.site);
    }
    match answer.client_certificate.as_str() {
        "" => {}
        "demanded" => lines.add(
            "",
            "demands a certificate of its clients: 400 without one that passes (not looked at here)",
        ),
        _ => lines.add("", "asks its clients for a certificate, and serves those without one"),
    }
    for (place, step) in answer.steps.iter().enumerate() {
        add_step(&mut lines, step, place > 0);
    }
    if let Some(redirect) = &answer.redirect {
        lines.add("answer", &format!("{} to {}", redirect.status, redirect.location));
    }
    let mut text = lines.0.concat();
    if let Some(forward) = &answer.forward {
        text.push_str(&forward_text(question, forward, known));
    }
    if let Some(refusal) = &answer.refusal {
        let mut lines = Lines::default();
        lines.add("answer", &format!("{} ({}): {}", refusal.status, refusal.word, refusal.reason));
        text.push_str(&lines.0.concat());
    }
    text
}

/// Whom the request counts as, where that is not the client that was asked for.
fn other_client(question: &ExplainRequest, answer: &ExplainResponse) -> Option<String> {
    let ip = |text: &str| {
        let whole = text.parse::<IpAddr>().ok();
        whole.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
    };
    let asked = if question.client.is_empty() { "127.0.0.1" } else { &question.client };
    let told = ip(&answer.client)?;
    (Some(told) != ip(asked)).then(|| format!("{told}, as a trusted proxy says"))
}

fn add_step(lines: &mut Lines, step: &ExplainStep, again: bool) {
    let rule = match step.path_rule.as_str() {
        "" => step.rule.clone(),
        path_rule => format!("{}, path rule {path_rule}", step.rule),
    };
    lines.add(if again { "then rule" } else { "rule" }, &rule);
    if step.rewrite_set.is_empty() {
        return;
    }
    let rules: Vec<String> = step
        .rewrites
        .iter()
        .map(|it| match it.effect() {
            Effect::Applies => format!("{} applies", it.rule),
            Effect::Waits => format!("{} waits for the answer", it.rule),
            Effect::DoesNotApply | Effect::Unspecified => format!("{} does not apply", it.rule),
        })
        .collect();
    lines.add("rewrites", &format!("{}: {}", step.rewrite_set, rules.join(", ")));
}

fn forward_text(question: &ExplainRequest, forward: &ExplainForward, known: bool) -> String {
    let mut lines = Lines::default();
    let limit = match forward.request_timeout_ms {
        0 => "no time limit".to_owned(),
        ms => format!("at most {} s", seconds(ms)),
    };
    let affinity = if forward.affinity { ", cookie affinity" } else { "" };
    lines.add(
        "pool",
        &format!(
            "{} under settings {}: {}{affinity}, {}, {limit}",
            forward.pool, forward.settings, forward.algorithm, forward.scheme
        ),
    );
    if forward.target != question.target {
        lines.add("path", &format!("becomes {}", forward.target));
    }
    let one = |of: fn(&ExplainBackend) -> &str| {
        let first = forward.backends.first().map(of).unwrap_or_default();
        forward.backends.iter().all(|it| of(it) == first).then(|| first.to_owned())
    };
    let (host, name) = (one(|it| it.host.as_str()), one(|it| it.server_name.as_str()));
    if let Some(host) = host.as_ref().filter(|host| !host.is_empty()) {
        lines.add("Host", host);
    }
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        lines.add("TLS name", &name);
    }
    for (sign, header) in changes(&question.headers, &forward.headers) {
        lines.add("header", &format!("{sign} {}: {}", header.name, header.value));
    }
    if !forward.certain.is_empty() {
        lines.add("goes to", &forward.certain);
    }
    let mut text = lines.0.concat();
    text.push('\n');
    text.push_str(&backends_text(forward, known, host.is_none()));
    text
}

fn backends_text(forward: &ExplainForward, known: bool, hosts: bool) -> String {
    let mut heading = vec!["BACKEND", "POOL", "WEIGHT", "STATE", "IN ROTATION"];
    if hosts {
        heading.push("HOST");
    }
    heading.push("LAST CHECK");
    let mut table = Table::new(&heading);
    for backend in &forward.backends {
        let address = endpoint(&backend.address, backend.port);
        let weight = backend.weight.to_string();
        let state = some(&backend.state).unwrap_or("not known");
        let rotation = match (known, backend.in_rotation) {
            (false, _) => "not known",
            (true, true) => "yes",
            (true, false) => "no",
        };
        let mut row = vec![address.as_str(), &backend.pool, &weight, state, rotation];
        if hosts {
            row.push(&backend.host);
        }
        row.push(&backend.last);
        table.row(row);
    }
    table.render_or(look(), "the pool has no backends\n")
}

/// What of the headers is taken away and what is added on the way to a backend.
fn changes<'a>(
    sent: &'a [ExplainHeader],
    got: &'a [ExplainHeader],
) -> Vec<(char, &'a ExplainHeader)> {
    let same = |one: &ExplainHeader, other: &ExplainHeader| {
        one.name.eq_ignore_ascii_case(&other.name) && one.value == other.value
    };
    let missing = |from: &'a [ExplainHeader], these: &'a [ExplainHeader]| {
        these.iter().filter(move |it| !from.iter().any(|other| same(it, other)))
    };
    let gone = missing(got, sent).map(|it| ('-', it));
    let added = missing(sent, got).map(|it| ('+', it));
    gone.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_proto::admin::{ExplainRedirect, ExplainRefusal};

    use super::*;

    fn header(name: &str, value: &str) -> ExplainHeader {
        ExplainHeader { name: name.to_owned(), value: value.to_owned() }
    }

    fn question() -> ExplainRequest {
        ExplainRequest {
            method: "GET".into(),
            target: "/room".into(),
            host: "chat.test".into(),
            headers: vec![header("Connection", "Upgrade"), header("X-Kept", "1")],
            ..ExplainRequest::default()
        }
    }

    fn answer() -> ExplainResponse {
        let backend = ExplainBackend {
            pool: "chat".into(),
            address: "::1".into(),
            port: 80,
            weight: 1,
            in_rotation: true,
            state: "Healthy".into(),
            last: "200".into(),
            host: "chat.test".into(),
            server_name: String::new(),
        };
        let rewrite = ExplainRewrite { rule: "mark".into(), effect: Effect::Applies.into() };
        ExplainResponse {
            revision: 3,
            listener: "0.0.0.0:80".into(),
            client: "127.0.0.1:0".into(),
            site: "chat".into(),
            steps: vec![ExplainStep {
                rule: "all".into(),
                path_rule: "rooms".into(),
                rewrite_set: "set".into(),
                rewrites: vec![rewrite],
            }],
            forward: Some(ExplainForward {
                pool: "chat".into(),
                settings: "plain".into(),
                scheme: "http".into(),
                algorithm: "RoundRobin".into(),
                request_timeout_ms: 60_000,
                target: "/v2/room".into(),
                headers: vec![header("x-kept", "1"), header("x-bad", "a\u{1b}[2Jb")],
                backends: vec![backend],
                ..ExplainForward::default()
            }),
            ..ExplainResponse::default()
        }
    }

    #[test]
    fn the_text_tells_the_way_and_what_changes() {
        let text = explain_text(&question(), &answer(), true);
        for part in [
            "GET /room for chat.test",
            "0.0.0.0:80, revision 3",
            "all, path rule rooms",
            "set: mark applies",
            "chat under settings plain: RoundRobin, http, at most 60 s",
            "becomes /v2/room",
            "- Connection: Upgrade",
            "[::1]:80",
            "Healthy",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains("X-Kept"), "what stays is not told:\n{text}");
        assert!(!text.contains("trusted proxy"), "the client is who was asked for:\n{text}");
        let told = ExplainResponse { client: "203.0.113.9:0".into(), ..answer() };
        let text = explain_text(&question(), &told, true);
        assert!(text.contains("203.0.113.9, as a trusted proxy says"), "{text}");
        let text = explain_text(&question(), &answer(), true);
        assert!(!text.contains('\u{1b}'), "a header cannot drive the terminal");
    }

    #[test]
    fn without_a_gateway_no_health_is_claimed() {
        let mut answer = answer();
        for backend in answer.forward.iter_mut().flat_map(|it| &mut it.backends) {
            backend.state.clear();
            backend.in_rotation = false;
        }
        let text = explain_text(&question(), &answer, false);
        assert!(text.contains("by the document") && text.contains("not known"), "{text}");
        let told = explain_json(&answer, false);
        assert_eq!(told["forward"]["backends"][0]["in_rotation"], Value::Null);
        assert_eq!(told["revision"], Value::Null);
    }

    #[test]
    fn the_json_has_its_contracted_shape() {
        let expected = json!({
            "revision": 3, "listener": "0.0.0.0:80", "client": "127.0.0.1:0", "websocket": false,
            "handshake_site": null, "client_certificate": null, "site": "chat",
            "steps": [{
                "rule": "all", "path_rule": "rooms", "rewrite_set": "set",
                "rewrites": [{"rule": "mark", "effect": "applies"}],
            }],
            "refusal": null,
            "redirect": null,
            "forward": {
                "pool": "chat", "settings": "plain", "scheme": "http", "algorithm": "RoundRobin",
                "affinity": false, "request_timeout_seconds": 60.0, "target": "/v2/room",
                "headers": [
                    {"name": "x-kept", "value": "1"}, {"name": "x-bad", "value": "a\u{1b}[2Jb"},
                ],
                "backends": [{
                    "pool": "chat", "address": "::1", "port": 80, "weight": 1, "in_rotation": true,
                    "state": "Healthy", "last": "200", "host": "chat.test", "server_name": null,
                }],
                "certain": null,
            },
        });
        assert_eq!(explain_json(&answer(), true), expected);
    }

    #[test]
    fn answers_of_the_gateway_s_own_are_told() {
        let refusal = ExplainRefusal {
            status: 404,
            word: "no_site".into(),
            reason: "no site matches the host".into(),
        };
        let refused = ExplainResponse { refusal: Some(refusal), ..ExplainResponse::default() };
        let text = explain_text(&question(), &refused, true);
        assert!(text.contains("404 (no_site): no site matches the host"), "{text}");
        let redirect = ExplainRedirect { status: 301, location: "https://chat.test/".into() };
        let answer = ExplainResponse { redirect: Some(redirect), ..ExplainResponse::default() };
        let text = explain_text(&question(), &answer, true);
        assert!(text.contains("301 to https://chat.test/"), "{text}");
    }
}
