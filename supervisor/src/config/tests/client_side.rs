//! The access log, and who may tell who clients are.

use std::path::Path;

use holdfast_proto::control;

use super::{effective, lines};
use crate::compile::compile;
use crate::config::{Loaded, load};

/// A gateway with one site, its `holdfast` object, and the gateway's.
pub(super) fn document(site: &str, gateway: &str) -> String {
    format!(
        r#"{{
        "frontendIPConfigurations": [{{ "name": "f", "holdfast": {{ "address": "127.0.0.1" }} }}],
        "frontendPorts": [{{ "name": "p", "port": 8080 }}],
        "backendAddressPools": [{{ "name": "b", "backendAddresses": [{{ "ipAddress": "127.0.0.1" }}] }}],
        "backendHttpSettingsCollection": [{{ "name": "s", "port": 9000, "protocol": "Http" }}],
        "httpListeners": [{{ "name": "web", "protocol": "Http", "holdfast": {site},
            "frontendIPConfiguration": {{ "id": "/frontendIPConfigurations/f" }},
            "frontendPort": {{ "id": "/frontendPorts/p" }} }}],
        "requestRoutingRules": [{{ "name": "r", "httpListener": {{ "id": "/httpListeners/web" }},
            "backendAddressPool": {{ "id": "/backendAddressPools/b" }},
            "backendHttpSettings": {{ "id": "/backendHttpSettingsCollection/s" }} }}],
        "holdfast": {gateway}
        }}"#
    )
}

fn loaded(site: &str, gateway: &str) -> Loaded {
    let found = load(&document(site, gateway), Path::new("/tmp"));
    found.unwrap_or_else(|found| panic!("{}", lines(&found)))
}

fn snapshot(loaded: &Loaded) -> control::ListenerSnapshot {
    compile(&loaded.gateway).unwrap().listeners.into_values().next().unwrap()
}

fn warnings(site: &str, gateway: &str) -> String {
    lines(&loaded(site, gateway).warnings)
}

#[test]
fn without_a_word_there_is_no_log_and_nobody_speaks_for_others() {
    let plain = loaded("{}", "{}");
    assert_eq!(lines(&plain.warnings), "");
    let snapshot = snapshot(&plain);
    assert_eq!((snapshot.access_log, snapshot.client_source), (None, None));
}

#[test]
fn a_file_is_found_from_the_documents_place() {
    let log =
        |own: &str| snapshot(&loaded("{}", &format!(r#"{{ "accessLog": {own} }}"#))).access_log;
    let file = log(r#"{ "File": "access.log", "sampleRate": "0.25" }"#).unwrap();
    assert_eq!(file.destination(), control::AccessLogDestination::File);
    assert_eq!((file.path.as_str(), file.sampled_per_million), ("/tmp/access.log", 250_000));
    let stdout = log(r#"{ "destination": "StdOut" }"#).unwrap();
    assert_eq!(stdout.destination(), control::AccessLogDestination::Stdout);
    assert_eq!((stdout.path.as_str(), stdout.sampled_per_million), ("", 1_000_000));
    for off in [r#"{ "destination": "off" }"#, r#"{ "destination": "stdout", "sampleRate": 0 }"#] {
        assert_eq!(log(off), None, "{off}");
    }
}

#[test]
fn a_log_that_will_not_be_written_is_told() {
    for (own, told) in [
        (r#"{ "file": "/nowhere/at/all.log" }"#, "does not exist"),
        (r#"{ "destination": "stdout", "file": "a.log" }"#, "the file has no effect"),
        (r#"{ "destination": "off", "file": "a.log" }"#, "the file has no effect"),
        (r#"{ "sampleRate": 0.5 }"#, "no destination"),
        (r#"{ "destination": "stdout", "path": "/a" }"#, "not known here"),
    ] {
        let warnings = warnings("{}", &format!(r#"{{ "accessLog": {own} }}"#));
        assert!(warnings.contains(told), "{own}: {warnings}");
    }
}

#[test]
fn who_is_trusted_is_told_workers_as_blocks() {
    let site = r#"{ "proxyProtocol": "REQUIRED", "trustForwardedHeaders": "True",
        "trustedProxies": ["10.1.2.3/8", "fd00::1", "fd00::1"] }"#;
    let loaded = loaded(site, "{}");
    assert!(lines(&loaded.warnings).contains("10.0.0.0/8 is meant"), "{:?}", loaded.warnings);
    let source = snapshot(&loaded).client_source.unwrap();
    assert!(source.proxy_protocol && source.forwarded_headers);
    let blocks: Vec<_> = source.trusted.iter().map(|it| (it.address.len(), it.prefix)).collect();
    assert_eq!(blocks, [(4, 8), (16, 128)]);
    assert_eq!(source.trusted[0].address, [10, 0, 0, 0]);
    let idle = warnings(r#"{ "trustedProxies": ["10.0.0.1"] }"#, "{}");
    assert!(idle.contains("no effect"), "{idle}");
}

#[test]
fn the_effective_configuration_says_it_and_loads_again() {
    let site = r#"{ "proxyProtocol": "required", "trustedProxies": ["10.0.0.0/8", "::/0"] }"#;
    for gateway in [
        "{}",
        r#"{ "accessLog": { "destination": "stdout", "sampleRate": 0.000001 } }"#,
        r#"{ "accessLog": { "file": "access.log", "sampleRate": 0.3 } }"#,
    ] {
        let first = loaded(site, gateway).gateway;
        let printed = effective(&first);
        let again = load(&printed.to_string(), Path::new("/tmp")).unwrap();
        assert_eq!(lines(&again.warnings), "");
        assert_eq!(again.gateway, first);
        assert_eq!(
            printed["properties"]["httpListeners"][0]["properties"]["holdfast"]["trustedProxies"]
                [1],
            "::/0"
        );
        assert!(printed["holdfast"]["accessLog"]["sampleRate"].is_f64());
    }
}
