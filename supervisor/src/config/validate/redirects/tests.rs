//! Redirects that come to an end and those that do not, in whole documents.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use serde_json::{Value, json};

use crate::config::load;

/// A gateway on 127.0.0.1: sites as (name, port, hosts), redirects as (name, target, whether path is kept), rules as
/// (site, redirect or "" for the pool).
fn document(
    sites: &[(&str, u16, &[&str])],
    redirects: &[(&str, &str, bool)],
    rules: &[(&str, &str)],
) -> Value {
    let id = |collection: &str, name: &str| json!({ "id": format!("/{collection}/{name}") });
    let action = |redirect: &str| match redirect {
        "" => json!({
            "backendAddressPool": id("backendAddressPools", "pool"),
            "backendHttpSettings": id("backendHttpSettingsCollection", "set"),
        }),
        _ => json!({ "redirectConfiguration": id("redirectConfigurations", redirect) }),
    };
    json!({
        "frontendIPConfigurations": [{ "name": "f", "holdfast": { "address": "127.0.0.1" } }],
        "frontendPorts": [{ "name": "p80", "port": 80 }, { "name": "p81", "port": 81 }],
        "backendAddressPools":
            [{ "name": "pool", "backendAddresses": [{ "ipAddress": "127.0.0.1" }] }],
        "backendHttpSettingsCollection": [{ "name": "set", "port": 9000 }],
        "httpListeners": sites.iter().map(|(name, port, hosts)| json!({
            "name": name,
            "frontendIPConfiguration": id("frontendIPConfigurations", "f"),
            "frontendPort": id("frontendPorts", &format!("p{port}")),
            "hostNames": hosts,
        })).collect::<Value>(),
        "redirectConfigurations": redirects.iter().map(|(name, target, keeps)| {
            let key = if target.contains("://") { "targetUrl" } else { "targetListener" };
            let target = if key == "targetUrl" { json!(target) } else { id("httpListeners", target) };
            json!({ "name": name, key: target, "includePath": keeps })
        }).collect::<Value>(),
        "requestRoutingRules": rules.iter().map(|(site, to)| {
            let mut rule = action(to);
            rule["name"] = json!(format!("rule-{site}"));
            rule["httpListener"] = id("httpListeners", site);
            rule
        }).collect::<Value>(),
    })
}

/// What is said about circles; nothing else may be wrong.
fn circles(document: &Value) -> Vec<String> {
    let found = load(&document.to_string(), Path::new(".")).err().unwrap_or_default();
    found
        .into_iter()
        .filter(|it| it.severity == crate::config::Severity::Error)
        .map(|it| {
            assert!(it.reason.contains("leads back to its own listener"), "{it}");
            it.reason
        })
        .collect()
}

const A: (&str, u16, &[&str]) = ("a", 80, &["a.test"]);

#[test]
fn redirects_that_come_to_an_end_are_taken() {
    let secure = ("b", 81, &[][..]);
    for (sites, redirects, rules) in [
        // The usual one.
        (&[("a", 80, &[][..]), secure][..], &[("r", "b", true)][..], &[("a", "r"), ("b", "")][..]),
        // Out of the gateway, once and by way of another listener.
        (&[A], &[("r", "https://elsewhere.test/", true)], &[("a", "r")]),
        (
            &[A, secure],
            &[("r", "b", true), ("s", "http://elsewhere.test", true)],
            &[("a", "r"), ("b", "s")],
        ),
        // A site for any host says nothing about whose a host is; another port or scheme is not this listener.
        (&[("a", 80, &[])], &[("r", "http://www.test/", true)], &[("a", "r")]),
        (&[A], &[("r", "http://a.test:8080/", true)], &[("a", "r")]),
        (&[A], &[("r", "https://a.test/", true)], &[("a", "r")]),
    ] {
        assert_eq!(
            circles(&document(sites, redirects, rules)),
            Vec::<String>::new(),
            "{redirects:?}"
        );
    }
}

#[test]
fn a_circle_is_told_once_and_by_its_members() {
    let b = ("b", 81, &["b.test"][..]);
    let found = circles(&document(
        &[A, b],
        &[("to-b", "b", true), ("to-a", "a", false)],
        &[("a", "to-b"), ("b", "to-a")],
    ));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.iter().all(|it| it.ends_with("\"a\" → \"b\" → \"a\"")), "{found:?}");
}

#[test]
fn a_url_that_points_to_the_site_itself_is_a_circle() {
    for url in [
        "http://a.test",
        "http://A.TEST.:80/",
        "HTTP://a.test/?q#f",
        // Each answer has a longer path.
        "http://a.test/app",
        "http://a.test/app/?q=1",
    ] {
        let found = circles(&document(&[A], &[("r", url, true)], &[("a", "r")]));
        assert_eq!(found.len(), 1, "{url}: {found:?}");
    }
    let any = ("a", 80, &[][..]);
    let found = circles(&document(&[any], &[("r", "http://127.0.0.1/x", false)], &[("a", "r")]));
    assert_eq!(found.len(), 1, "{found:?}");
    // Named by a wildcard, or by another site whose host it is.
    let wild = ("a", 80, &["*.a.test"][..]);
    let found = circles(&document(&[wild], &[("r", "http://b.a.test", true)], &[("a", "r")]));
    assert_eq!(found.len(), 1, "{found:?}");
    let named = ("b", 81, &["b.test"][..]);
    let found = circles(&document(
        &[any, named],
        &[("r", "http://b.test", true)],
        &[("a", "r"), ("b", "")],
    ));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_host_goes_to_the_site_that_takes_it_first() {
    // What is meant for b comes to the wildcard, whose rule has the smaller number.
    let (wild, b) = (("a", 80, &["*.test"][..]), ("b", 80, &["b.test"][..]));
    let found = circles(&document(&[wild, b], &[("r", "b", true)], &[("a", "r"), ("b", "")]));
    assert_eq!(found.len(), 1, "{found:?}");
    let found = circles(&document(&[b, wild], &[("r", "b", true)], &[("b", ""), ("a", "r")]));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn paths_decide_whether_a_circle_closes() {
    let with_path = |pattern: &str, url: &str, keeps: bool, default: &str| {
        let mut document = document(&[A], &[("r", url, keeps)], &[("a", "")]);
        let pool = json!({ "id": "/backendAddressPools/pool" });
        let settings = json!({ "id": "/backendHttpSettingsCollection/set" });
        let redirect = json!({ "id": "/redirectConfigurations/r" });
        let mut map = json!({ "name": "m", "pathRules": [
            { "name": "old", "paths": [pattern], "redirectConfiguration": redirect }] });
        if default.is_empty() {
            map["defaultBackendAddressPool"] = pool;
            map["defaultBackendHttpSettings"] = settings;
        } else {
            map["pathRules"] = json!([{ "name": "fine", "paths": [pattern],
                "backendAddressPool": pool, "backendHttpSettings": settings }]);
            map["defaultRedirectConfiguration"] = redirect;
        }
        document["urlPathMaps"] = json!([map]);
        document["requestRoutingRules"] = json!([{ "name": "rule-a", "ruleType": "PathBasedRouting",
            "httpListener": { "id": "/httpListeners/a" }, "urlPathMap": { "id": "/urlPathMaps/m" } }]);
        circles(&document)
    };
    let fine = Vec::<String>::new();
    assert_eq!(with_path("/old/*", "http://a.test/new/", false, ""), fine);
    assert_eq!(with_path("/old/*", "http://a.test/new", true, ""), fine);
    assert_eq!(with_path("/old", "http://a.test/", false, ""), fine);
    assert_eq!(with_path("/", "http://a.test/", false, "r"), fine);
    for (pattern, url, keeps, default) in [
        ("/old/*", "http://a.test", true, ""),
        ("/old*", "http://a.test/older", false, ""),
        ("/OLD", "http://a.test/old", false, ""),
        ("/fine*", "http://a.test/", false, "r"),
        ("/", "http://a.test", true, "r"),
    ] {
        let found = with_path(pattern, url, keeps, default);
        assert_eq!(found.len(), 1, "{pattern} {url}: {found:?}");
        let named = found.iter().all(|it| it.contains("(path rule \"old\")"));
        assert_eq!(named, default.is_empty(), "{found:?}");
    }
}

/// So many listeners, each on an address or a port of its own and each with a redirect to the next one's URL; the last
/// leads where `end` says.
fn chain(
    count: usize,
    listener: impl Fn(usize) -> (String, u16, Option<String>),
    end: &str,
) -> Value {
    let mut document = document(&[], &[], &[]);
    let id = |collection: &str, name: String| json!({ "id": format!("/{collection}/{name}") });
    let each = |write: &dyn Fn(usize) -> Value| (0..count).map(write).collect::<Value>();
    let url = |at: usize| {
        let (address, port, host) = listener(at);
        let host = host.map_or(address, |host| host.replace('*', "x"));
        json!(format!("http://{host}:{port}/"))
    };
    document["frontendIPConfigurations"] =
        each(&|at| json!({ "name": format!("f{at}"), "holdfast": { "address": listener(at).0 } }));
    let ports: std::collections::BTreeSet<_> = (0..count).map(|at| listener(at).1).collect();
    document["frontendPorts"] =
        ports.iter().map(|port| json!({ "name": format!("p{port}"), "port": port })).collect();
    document["httpListeners"] = each(&|at| {
        let (_, port, host) = listener(at);
        json!({
            "name": format!("l{at}"),
            "frontendIPConfiguration": id("frontendIPConfigurations", format!("f{at}")),
            "frontendPort": id("frontendPorts", format!("p{port}")),
            "hostNames": host.into_iter().collect::<Vec<_>>(),
        })
    });
    document["redirectConfigurations"] = each(&|at| {
        let target = if at + 1 < count { url(at + 1) } else { json!(end) };
        json!({ "name": format!("d{at}"), "targetUrl": target })
    });
    document["requestRoutingRules"] = each(&|at| {
        json!({
            "name": format!("r{at}"),
            "httpListener": id("httpListeners", format!("l{at}")),
            "redirectConfiguration": id("redirectConfigurations", format!("d{at}")),
        })
    });
    document
}

/// If each redirect had to look at each listener, this would take minutes.
#[test]
fn twenty_thousand_listeners_that_redirect_to_one_another_are_followed_to_the_end() {
    const COUNT: usize = 20_000;
    let by_address = |at: usize| (format!("127.{}.{}.1", at / 250, at % 250), 8080, None);
    let by_host = |at: usize| {
        let wild = if at.is_multiple_of(2) { "" } else { "*." };
        (format!("127.{}.{}.1", at / 250, at % 250), 8080, Some(format!("{wild}h{at}.test")))
    };
    assert_eq!(circles(&chain(COUNT, by_address, "http://elsewhere.test/")), Vec::<String>::new());
    let found = circles(&chain(COUNT, by_host, "http://h0.test:8080/"));
    assert_eq!(found.len(), 1, "{found:?}");
    let told = "\"l9\" → (19981 more) → \"l19991\"";
    assert!(found[0].contains(told) && found[0].ends_with("→ \"l0\""), "{found:?}");
}

#[test]
fn the_nearest_listener_that_takes_a_url_is_asked_and_else_the_first() {
    // Three listeners on one port, of which two take the host that the third one's redirect names.
    let listener = |at: usize| {
        let host = ["*.a.test", "b.a.test", "a.test"][at].to_owned();
        (format!("127.0.0.{}", at + 1), 8080, Some(host))
    };
    let with = |target: &str, from: usize| {
        let mut document = chain(3, listener, "http://elsewhere.test/");
        for redirect in document["redirectConfigurations"].as_array_mut().unwrap() {
            redirect["targetUrl"] = json!("http://elsewhere.test/");
        }
        document["redirectConfigurations"][from]["targetUrl"] = json!(target);
        circles(&document).len()
    };
    // Back to itself, though the first listener takes it as well; the third one's leads to the first, and from there away.
    assert_eq!(with("http://b.a.test:8080/", 0), 1);
    assert_eq!(with("http://b.a.test:8080/", 1), 1);
    assert_eq!(with("http://b.a.test:8080/", 2), 0);
    assert_eq!(with("http://c.a.test:8080/", 1), 0);
    assert_eq!(with("http://b.a.test:8081/", 1), 0);
    assert_eq!(with("https://b.a.test:8080/", 1), 0);
}
