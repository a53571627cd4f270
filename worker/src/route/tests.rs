//! Routing, told as tables and checked against a naive twin.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use holdfast_proto::control as wire;
use proptest::prelude::*;

use super::*;

fn forward(binding: u32) -> wire::Action {
    wire::Action {
        kind: Some(wire::action::Kind::Forward(wire::Forward { binding })),
        ..Default::default()
    }
}

fn site(name: &str, hosts: &[&str], paths: &[(&[&str], u32)]) -> wire::Site {
    wire::Site {
        name: name.to_owned(),
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        rule: format!("{name}-rule"),
        paths: paths
            .iter()
            .map(|(patterns, binding)| wire::PathRoute {
                name: format!("path-{binding}"),
                patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
                action: Some(forward(*binding)),
            })
            .collect(),
        default_action: Some(forward(0)),
        ..wire::Site::default()
    }
}

fn router(sites: Vec<wire::Site>) -> Router {
    Router::compile(sites, 10, 10).unwrap()
}

fn binding(routed: Routed<'_>) -> usize {
    match routed.action {
        Action::Forward { binding, .. } => *binding,
        Action::Redirect(_) => usize::MAX,
    }
}

#[test]
fn hosts_match_as_azure_says() {
    for (pattern, host, hit) in [
        ("contoso.com", "contoso.com", true),
        ("contoso.com", "CONTOSO.com:8443", true),
        ("contoso.com", "contoso.com.", true),
        ("contoso.com", "a.contoso.com", false),
        ("*.contoso.com", "a.b.contoso.com", true),
        ("*.contoso.com", "contoso.com", false),
        ("w??.contoso*.edu.*", "www.contoso-x.edu.ch:80", true),
        ("w??.contoso*.edu.*", "ww.contoso.edu.ch", false),
        ("????.contoso.com", "a.cd.contoso.com", true),
        ("????.contoso.com", "abc.contoso.com", false),
        ("*.contoso-*.com", "a.contoso-b.com.com", true),
        ("*", "[::1]:8080", true),
        ("::1", "[::1]:8080", true),
        ("*", "", true),
    ] {
        let matched = HostPattern::new(pattern).unwrap().matches(without_port(host));
        assert_eq!(matched, hit, "{pattern} {host}");
    }
    assert_eq!(HostPattern::new(""), None);
    assert_eq!(HostPattern::new("a b"), None);
}

#[test]
fn the_first_site_in_priority_order_wins_even_over_a_more_exact_one() {
    let sites = vec![
        site("wild", &["*.a.com"], &[]),
        site("exact", &["x.a.com"], &[]),
        site("basic", &[], &[]),
        site("never", &["b.com"], &[]),
    ];
    let router = router(sites);
    let name = |host| router.route(false, host, "/").map(|routed| routed.site.name.clone());
    assert_eq!(name(Some("x.a.com")).as_deref(), Some("wild"));
    assert_eq!(name(Some("b.com")).as_deref(), Some("basic"));
    assert_eq!(name(None).as_deref(), Some("basic"));
    assert!(router.route(true, Some("x.a.com"), "/").is_none(), "no TLS site");
}

#[test]
fn paths_match_in_order_decoded_and_in_any_case() {
    let sites = vec![site(
        "s",
        &[],
        &[(&["/images/*", "/pics*"], 1), (&["/images/big/*", "/exact"], 2), (&["/a b/c*"], 3)],
    )];
    let router = router(sites);
    for (path, wanted) in [
        ("/images/big/x", 1),
        ("/IMAGES/", 1),
        ("/images", 0),
        ("/picsX", 1),
        ("/%69mages%2Fx", 1),
        ("/exact", 2),
        ("/exact/", 0),
        ("/a%20b/cd", 3),
        ("/100%", 0),
        ("*", 0),
    ] {
        let routed = router.route(false, Some("h"), path).unwrap();
        assert_eq!(binding(routed), wanted, "{path}");
        assert_eq!(routed.rule, "s-rule");
        assert_eq!(routed.path_rule.is_some(), wanted != 0);
    }
}

#[test]
fn what_follows_the_matched_prefix_is_found_in_the_encoded_path() {
    for (pattern, path, rest) in [
        ("/pathrule/home*", "/pathrule/home/second", "/second"),
        ("/a b/*", "/a%20b/c%20d", "c%20d"),
        ("/%41*", "/%61%62", "%62"),
        ("/exact", "/exact", ""),
        ("/50%*", "/50%/x", "/x"),
    ] {
        let matched = PathPattern::new(pattern).unwrap().matches(&path::normalize(path)).unwrap();
        assert_eq!(matched.rest(path), rest, "{pattern} {path}");
    }
}

#[test]
fn the_certificate_is_the_sites_else_the_basic_ones_else_the_first() {
    let tls = |name: &str, hosts: &[&str], certificate| wire::Site {
        tls: true,
        certificate,
        ..site(name, hosts, &[])
    };
    let both = router(vec![tls("a", &["a.com"], 1), tls("basic", &[], 2), tls("b", &["b.com"], 3)]);
    assert_eq!(both.certificate_for(Some("B.com")), Some(3));
    assert_eq!(both.certificate_for(Some("c.com")), Some(2));
    assert_eq!(both.certificate_for(None), Some(2));
    let named = router(vec![tls("a", &["a.com"], 1), tls("b", &["b.com"], 3)]);
    assert_eq!(named.certificate_for(Some("c.com")), Some(1));
    assert_eq!(named.certificate_for(None), Some(1));
    let plain = router(vec![site("p", &[], &[])]);
    assert_eq!(plain.certificate_for(None), None);
    assert!(!plain.serves_tls());
}

#[test]
fn what_cannot_be_served_is_refused() {
    let compile = |site| Router::compile(vec![site], 1, 1).unwrap_err();
    let refused = compile(site("s", &[], &[(&["/x*"], 7)]));
    assert_eq!(refused, RouteRefusal::Binding { site: "s".to_owned(), binding: 7 });
    for pattern in ["", "x", "/a*b", "/**"] {
        let refused = compile(site("s", &[], &[(&[pattern], 0)]));
        assert!(matches!(refused, RouteRefusal::Pattern { .. }), "{pattern}");
    }
    let refused = compile(site("s", &[""], &[]));
    assert!(matches!(refused, RouteRefusal::Pattern { .. }));
    let refused = compile(wire::Site { tls: true, certificate: 1, ..site("s", &[], &[]) });
    assert!(matches!(refused, RouteRefusal::Certificate { certificate: 1, .. }));
    let refused = compile(wire::Site { default_action: None, ..site("s", &[], &[]) });
    assert!(matches!(refused, RouteRefusal::NoDefault { .. }));
    let redirect = wire::Redirect { status: 308, ..wire::Redirect::default() };
    let kind = Some(wire::action::Kind::Redirect(redirect));
    let action = Some(wire::Action { kind, ..Default::default() });
    let refused = compile(wire::Site { default_action: action, ..site("s", &[], &[]) });
    assert!(matches!(refused, RouteRefusal::Redirect { .. }));
}

fn location(redirect: wire::Redirect, host: &str, target: &str) -> String {
    let kind = Some(wire::action::Kind::Redirect(redirect));
    let action = Some(wire::Action { kind, ..Default::default() });
    let router = router(vec![wire::Site { default_action: action, ..site("s", &[], &[]) }]);
    match router.route(false, Some(host), "/").unwrap().action {
        Action::Redirect(redirect) => redirect.location("http", host, 8080, target),
        Action::Forward { .. } => unreachable!("the site redirects"),
    }
}

#[test]
fn locations_are_built_from_target_and_request() {
    let url = |url: &str, path, query| wire::Redirect {
        status: 301,
        target_url: url.to_owned(),
        include_path: path,
        include_query: query,
        ..wire::Redirect::default()
    };
    let listener = |scheme: &str, host: &str, port, path, query| wire::Redirect {
        status: 302,
        target_scheme: scheme.to_owned(),
        target_host: host.to_owned(),
        target_port: port,
        include_path: path,
        include_query: query,
        ..wire::Redirect::default()
    };
    for (redirect, wanted) in [
        (url("https://x.com/a/", false, false), "https://x.com/a/"),
        (url("https://x.com/a/", true, false), "https://x.com/a/p/q"),
        (url("https://x.com", true, true), "https://x.com/p/q?k=v"),
        (url("https://x.com/?o=1", false, true), "https://x.com/?o=1&k=v"),
        (url("https://x.com/?o=1", true, true), "https://x.com/p/q?o=1&k=v"),
        (listener("https", "", 443, true, true), "https://h.com/p/q?k=v"),
        (listener("https", "n.com", 8443, true, false), "https://n.com:8443/p/q"),
        (listener("http", "", 80, false, true), "http://h.com/?k=v"),
        (listener("", "", 0, false, false), "http://h.com:8080/"),
    ] {
        assert_eq!(location(redirect, "h.com:8080", "/p/q?k=v"), wanted);
    }
    let six = location(listener("https", "", 443, true, true), "[::1]:80", "/p");
    assert_eq!(six, "https://[::1]/p");
    assert_eq!(location(listener("https", "", 443, true, true), "h", "*"), "https://h/");
}

// The twin: recursion and copies, nothing clever.

#[test]
fn dot_segments_are_walked_before_a_path_is_compared() {
    for (path, walked) in [
        ("/", "/"),
        ("/.", "/"),
        ("/..", "/"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/../../A", "/a"),
        ("/a/%2e%2E/b", "/b"),
        ("/a%2f..%2fb", "/b"),
        ("/a//../b", "/a/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/..b", "/a/..b"),
        ("/a/...", "/a/..."),
        ("*", "*"),
        ("", ""),
    ] {
        assert_eq!(path::normalize(path).as_ref(), walked.as_bytes(), "{path}");
    }
    let hidden_files = PathPattern::new("/a/.*").unwrap();
    assert!(hidden_files.matches(&path::normalize("/a/.b")).is_some());
    assert!(hidden_files.matches(&path::normalize("/a/b")).is_none());
    let rule = PathPattern::new("/a/*").unwrap();
    let matched = rule.matches(&path::normalize("/x/../A/b%20%c3/./c")).unwrap();
    assert_eq!(matched.rest("/x/../A/b%20%c3/./c"), "b%20%C3/c");
}

fn naive_glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some('*'), _) => {
            naive_glob(&pattern[1..], text) || (!text.is_empty() && naive_glob(pattern, &text[1..]))
        }
        (Some('?'), Some(_)) => naive_glob(&pattern[1..], &text[1..]),
        (Some(a), Some(b)) => a == b && naive_glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn lowered(text: &str) -> Vec<char> {
    text.to_lowercase().chars().collect()
}

fn naive_route(sites: &[wire::Site], host: &str, path: &str) -> Option<(usize, u32)> {
    let host = host.split(':').next().unwrap();
    for (index, site) in sites.iter().enumerate() {
        let takes = |pattern: &String| naive_glob(&lowered(pattern), &lowered(host));
        if !site.hosts.is_empty() && !site.hosts.iter().any(takes) {
            continue;
        }
        let path = path.replace("%2F", "/").replace("%61", "a").to_lowercase();
        for route in &site.paths {
            for pattern in &route.patterns {
                let hit = match pattern.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => path == *pattern,
                };
                if hit {
                    let kind = route.action.as_ref().unwrap().kind.as_ref().unwrap();
                    let wire::action::Kind::Forward(forward) = kind else { return None };
                    return Some((index, forward.binding));
                }
            }
        }
        return Some((index, 0));
    }
    None
}

fn sites() -> impl Strategy<Value = Vec<wire::Site>> {
    let path = ("/[ab/]{0,4}[*]?", 1..10_u32);
    let site = (prop::collection::vec("[ab.*?]{1,5}[ab]", 0..3), prop::collection::vec(path, 0..4));
    prop::collection::vec(site, 0..5).prop_map(|sites| {
        sites
            .into_iter()
            .enumerate()
            .map(|(index, (hosts, paths))| wire::Site {
                name: index.to_string(),
                hosts,
                paths: paths
                    .into_iter()
                    .map(|(pattern, binding)| wire::PathRoute {
                        name: String::new(),
                        patterns: vec![pattern],
                        action: Some(forward(binding)),
                    })
                    .collect(),
                default_action: Some(forward(0)),
                ..wire::Site::default()
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn routes_as_the_naive_twin_does(
        sites in sites(),
        host in "[abAB.]{0,6}[ab](:80)?",
        path in "/([abA/]|%2F|%61){0,6}",
    ) {
        let router = router(sites.clone());
        let routed = router.route(false, Some(&host), &path);
        let found = routed.map(|routed| {
            (routed.site.name.parse::<usize>().unwrap(), u32::try_from(binding(routed)).unwrap())
        });
        prop_assert_eq!(found, naive_route(&sites, &host, &path));
    }
}
