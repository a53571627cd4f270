//! Sites, rules, pages and counts in whole documents.

use serde_json::{Value, json};

use super::*;

/// A document with so many sites for one host each, all on one port and in front of one pool.
fn sites(hosts: &[&[&str]]) -> Value {
    let id = |collection: &str, name: &str| json!({ "id": format!("/{collection}/{name}") });
    let each = |write: &dyn Fn(usize) -> Value| (0..hosts.len()).map(write).collect::<Value>();
    json!({
        "frontendIPConfigurations": [{ "name": "f", "holdfast": { "address": "127.0.0.1" } }],
        "frontendPorts": [{ "name": "p", "port": 8080 }],
        "backendAddressPools": [{ "name": "b", "backendAddresses": [{ "fqdn": "b.test" }] }],
        "backendHttpSettingsCollection": [{ "name": "s", "port": 80 }],
        "httpListeners": each(&|at| json!({
            "name": format!("l{at}"), "hostNames": hosts[at],
            "frontendIPConfiguration": id("frontendIPConfigurations", "f"),
            "frontendPort": id("frontendPorts", "p"),
        })),
        "requestRoutingRules": each(&|at| json!({
            "name": format!("r{at}"), "priority": at + 1, "httpListener": id("httpListeners", &format!("l{at}")),
            "backendAddressPool": id("backendAddressPools", "b"),
            "backendHttpSettings": id("backendHttpSettingsCollection", "s"),
        })),
    })
}

fn read(document: &Value) -> Loaded {
    load(&document.to_string(), &fixtures()).unwrap_or_else(|found| panic!("{}", lines(&found)))
}

fn warned(document: &Value) -> Vec<(String, String)> {
    let warnings = read(document).warnings;
    warnings.into_iter().map(|it| (it.path, it.reason)).collect()
}

#[test]
fn sites_that_others_hide_are_told_of() {
    let hidden = |hosts: &[&[&str]]| -> Vec<String> {
        warned(&sites(hosts)).into_iter().map(|(path, _)| path).collect()
    };
    assert_eq!(hidden(&[&["a.test"], &["*.test"], &[]]), Vec::<String>::new());
    assert_eq!(hidden(&[&["*.test"], &["a.test"]]), ["httpListeners[1]"]);
    // One of two hosts; a wildcard by a wider one; everything by a site for any host.
    assert_eq!(hidden(&[&["*.test"], &["a.org", "a.test"]]), ["httpListeners[1]"]);
    assert_eq!(hidden(&[&["*.test"], &["w?.test"], &["*.a.test"]]).len(), 2);
    assert_eq!(hidden(&[&[], &["a.test"], &["*.test"]]).len(), 2);
    // A site's own hosts hide nothing of each other.
    assert_eq!(hidden(&[&["*.test", "a.test"]]), Vec::<String>::new());
}

#[test]
fn more_than_azure_takes_is_a_warning() {
    let names: Vec<String> = (0..101).map(|at| format!("h{at}.test")).collect();
    let hosts: Vec<Vec<&str>> = names.iter().map(|name| vec![name.as_str()]).collect();
    let hosts: Vec<&[&str]> = hosts.iter().map(Vec::as_slice).collect();
    let mut document = sites(&hosts);
    assert_eq!(
        warned(&document),
        [(
            "httpListeners".to_owned(),
            "101 listeners lead to pools; Azure takes 100 at most, Holdfast has no such limit"
                .to_owned()
        )]
    );
    let many = |count: usize| (0..count).map(|at| json!({ "fqdn": format!("b{at}.test") }));
    document = sites(&[&[]]);
    document["backendAddressPools"][0]["backendAddresses"] = many(1201).collect();
    let found = warned(&document);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.starts_with("backendAddresses has 1201 entries; Azure takes 1200"));
    document["backendAddressPools"][0]["backendAddresses"] = many(1200).collect();
    assert_eq!(warned(&document), []);
}

/// A document with so many of something.
type Many<'a> = &'a dyn Fn(usize) -> Value;

#[test]
fn each_of_azures_counts_has_its_warning_and_none_before_it() {
    let one = || sites(&[&[]]);
    let names: Vec<String> = (0..401).map(|at| format!("h{at}.test")).collect();
    let of_hosts = |count: usize| {
        let hosts: Vec<Vec<&str>> =
            names.iter().take(count).map(|name| vec![name.as_str()]).collect();
        sites(&hosts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let of_entries = |collection: &str, count: usize, entry: &dyn Fn(usize) -> Value| {
        let mut document = one();
        let entries = document[collection].as_array().cloned().unwrap_or_default();
        let more = (entries.len()..count).map(|at| {
            let mut entry = entry(at);
            entry["name"] = format!("more{at}").into();
            entry
        });
        document[collection] = entries.iter().cloned().chain(more).collect();
        document
    };
    let of_paths = |count: usize| {
        let mut document = one();
        let rules = (0..count).map(|at| {
            json!({ "name": format!("p{at}"), "paths": [format!("/{at}/*")],
                "backendAddressPool": { "id": "/backendAddressPools/b" },
                "backendHttpSettings": { "id": "/backendHttpSettingsCollection/s" } })
        });
        document["urlPathMaps"] = json!([{ "name": "m", "pathRules": rules.collect::<Value>(),
            "defaultBackendAddressPool": { "id": "/backendAddressPools/b" },
            "defaultBackendHttpSettings": { "id": "/backendHttpSettingsCollection/s" } }]);
        document
    };
    let cases: [(&str, usize, Many<'_>); 10] = [
        ("frontendIPConfigurations", 4, &|count| {
            of_entries(
                "frontendIPConfigurations",
                count,
                &|at| json!({ "holdfast": { "address": format!("127.0.1.{at}") } }),
            )
        }),
        ("frontendPorts", 100, &|count| {
            of_entries("frontendPorts", count, &|at| json!({ "port": 9000 + at }))
        }),
        ("sslCertificates", 100, &|count| of_entries("sslCertificates", count, &|_| json!({}))),
        ("trustedRootCertificates", 100, &|count| {
            of_entries("trustedRootCertificates", count, &|_| json!({}))
        }),
        ("redirectConfigurations", 100, &|count| {
            of_entries(
                "redirectConfigurations",
                count,
                &|_| json!({ "targetUrl": "https://a.test" }),
            )
        }),
        ("backendAddressPools", 100, &|count| {
            let backend = |at| json!({ "backendAddresses": [{ "fqdn": format!("c{at}.test") }] });
            of_entries("backendAddressPools", count, &backend)
        }),
        ("backendHttpSettingsCollection", 100, &|count| {
            of_entries("backendHttpSettingsCollection", count, &|_| json!({ "port": 80 }))
        }),
        ("httpListeners", 200, &of_hosts),
        ("requestRoutingRules", 400, &of_hosts),
        ("pathRules", 100, &of_paths),
    ];
    for (what, most, many) in cases {
        let told = |count: usize| {
            let begin = format!("{what} has {count} entries; Azure takes {most} at most");
            warned(&many(count)).iter().filter(|(_, reason)| reason.starts_with(&begin)).count()
        };
        assert_eq!((told(most), told(most + 1)), (0, 1), "{what}");
    }
}

#[test]
fn buffering_is_a_warning() {
    let mut document = sites(&[&[]]);
    document["globalConfiguration"] =
        json!({ "enableRequestBuffering": "true", "enableResponseBuffering": false });
    let found = warned(&document);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains("bodies are passed on as they come"), "{found:?}");
    // What is printed says what happens.
    let printed = effective(&read(&document).gateway);
    assert_eq!(printed["properties"]["globalConfiguration"]["enableRequestBuffering"], false);
    assert_eq!(warned(&printed), []);
}

#[test]
fn pages_are_read_noted_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.html"), "<p>").unwrap();
    let mut document = sites(&[&["a.test"], &["b.test"]]);
    let url = |code: u16, url: &str| json!({ "statusCode": format!("httpSTATUS{code}"), "customErrorPageUrl": url });
    document["customErrorConfigurations"] = json!([
        url(502, "https://x.test/a"),
        url(504, "https://x.test/a"),
        url(404, "http://x.test/b"),
        url(403, "http://x.test/never")
    ]);
    document["httpListeners"][1]["customErrorConfigurations"] = json!([
        { "statusCode": "HttpStatus502", "customErrorPageUrl": "https://x.test/c", "holdfast": { "file": "p.html" } },
        url(408, "http://x.test/d"),
    ]);
    let loaded = load(&document.to_string(), dir.path()).unwrap();
    let told: Vec<_> = loaded.warnings.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(told, ["customErrorConfigurations[3]"], "{}", lines(&loaded.warnings));
    let wanted: Vec<_> = loaded.wanted.iter().map(|it| it.url.as_str()).collect();
    assert_eq!(wanted, ["https://x.test/a", "http://x.test/b", "http://x.test/d"]);
    assert_eq!(
        loaded.wanted[2].path,
        "httpListeners[1].customErrorConfigurations[1].customErrorPageUrl"
    );
    let again = load(&effective(&loaded.gateway).to_string(), Path::new("/")).unwrap();
    assert_eq!(again.gateway, loaded.gateway);

    let mut gateway = loaded.gateway;
    let page = |text: &str| -> std::sync::Arc<[u8]> { text.as_bytes().into() };
    gateway.fill_pages(&[("https://x.test/a".to_owned(), page("a"))].into());
    let compiled = compile(&gateway).unwrap();
    let (_, listener) = compiled.listeners.first_key_value().unwrap();
    let told = |indices: &[u32]| -> Vec<(u32, &[u8])> {
        let pages = &listener.error_pages;
        let body =
            |index| pages[holdfast_proto::error_page::carrier(pages, index).unwrap()].body.as_ref();
        indices.iter().map(|at| *at as usize).map(|at| (pages[at].status, body(at))).collect()
    };
    // What nobody has fetched is not there.
    assert_eq!(told(&listener.sites[0].error_pages), [(502, &b"a"[..]), (504, b"a")]);
    assert_eq!(told(&listener.sites[1].error_pages), [(502, &b"<p>"[..])]);
    let before: Vec<bool> = listener.error_pages.iter().map(|page| page.before_site).collect();
    assert_eq!(before, [true, true, false]);
    assert_eq!(gateway.page_bytes(), 4);
}

#[test]
fn a_listener_with_one_site_has_its_pages_for_everybody() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.html"), "<p>").unwrap();
    let mut document = sites(&[&["a.test"]]);
    document["httpListeners"][0]["customErrorConfigurations"] =
        json!([{ "statusCode": "HttpStatus400", "holdfast": { "file": "p.html" } }]);
    let compiled = compile(&load(&document.to_string(), dir.path()).unwrap().gateway).unwrap();
    let (_, listener) = compiled.listeners.first_key_value().unwrap();
    assert!(listener.error_pages.iter().all(|page| page.before_site));
    assert_eq!((listener.error_pages.len(), &listener.sites[0].error_pages[..]), (1, &[0][..]));
}

#[test]
fn a_path_is_hidden_by_one_that_means_the_same() {
    let mut document = sites(&[&[]]);
    let pool = json!({ "id": "/backendAddressPools/b" });
    let settings = json!({ "id": "/backendHttpSettingsCollection/s" });
    let paths = ["/A%20b/*", "/a b/c", "/%61%20B/*", "/a%2520b/*", "/x*", "/X%2f", "/é", "/É"];
    let rules = paths.iter().enumerate().map(|(at, path)| {
        json!({ "name": format!("p{at}"), "paths": [path], "backendAddressPool": pool, "backendHttpSettings": settings })
    });
    document["urlPathMaps"] = json!([{ "name": "m", "pathRules": rules.collect::<Value>(),
        "defaultBackendAddressPool": pool, "defaultBackendHttpSettings": settings }]);
    document["requestRoutingRules"][0] = json!({ "name": "r", "priority": 1, "ruleType": "PathBasedRouting",
        "httpListener": { "id": "/httpListeners/l0" }, "urlPathMap": { "id": "/urlPathMaps/m" } });
    let hidden = warned(&document);
    let hidden: Vec<_> = hidden.iter().map(|(path, _)| path.as_str()).collect();
    let at = |rule: usize| format!("urlPathMaps[0].pathRules[{rule}].paths[0]");
    assert_eq!(hidden, [at(1), at(2), at(5)]);
}

#[test]
fn what_routes_by_conditions_is_told_and_never_dropped() {
    let text = fixture("bad/advanced-routing.jsonc");
    let told = |text: &str| load(text, &fixtures()).map_or_else(|found| found, |it| it.warnings);
    let rule = "requestRoutingRules[1].advancedRoutingMap";
    let maps = ["advancedRoutingMaps", "advancedRoutingConditionSets"];
    let found = told(&text);
    for path in maps.into_iter().chain([rule, "requestRoutingRules[1].ruleType"]) {
        assert_eq!(found.iter().filter(|d| d.path == path).count(), 1, "{path}: {}", lines(&found));
    }
    // A rule of another type that names a map has its own target, and is told what it does not do.
    let basic = "\"backendAddressPool\": { \"id\": \"/backendAddressPools/pool\" }, \"backendHttpSettings\": \
        { \"id\": \"/backendHttpSettingsCollection/set\" }, \"advancedRoutingMap\"";
    let basic = text.replace("advancedrouting", "Basic").replace("\"advancedRoutingMap\"", basic);
    let found = told(&basic);
    assert!(found.iter().all(|d| d.severity == Severity::Warning), "{}", lines(&found));
    assert!(found.iter().any(|d| d.path == rule && d.reason.contains("no effect")));
}
