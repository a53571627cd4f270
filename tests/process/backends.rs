//! What backend settings do to a request: host, path, name and trust; and backends that are IPv6 addresses or names.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Certificate, Document, Gateway, Patience, Teller, WebSocket, directory, eventually,
    free_port, get, get_host,
};

const SETTINGS: &str = "backendHttpSettingsCollection";

/// The value of a header, or of `GET`, in what a teller has told.
fn told(text: &str, name: &str) -> String {
    let lines = text.lines().map(|line| line.rsplit('|').next().unwrap());
    let mut found = lines.filter_map(|line| line.split_once([':', ' ']).filter(|it| it.0 == name));
    found.next().unwrap_or_else(|| panic!("no {name} in {text}")).1.trim().to_owned()
}

fn link(collection: &str, name: &str) -> Value {
    json!({"id": format!("/gateways/test/{collection}/{name}")})
}

#[test]
fn backends_see_the_host_and_path_that_their_settings_choose() {
    let teller = Teller::start();
    let port = free_port();
    let document = Document::simple(port, &[teller.address]);
    let gateway = Gateway::start(&document);
    let seen = || {
        let text = get_host(port, "/a%20b?c=d", "client.test").unwrap().text();
        assert_eq!(told(&text, "x-original-host"), "client.test");
        (told(&text, "host"), told(&text, "GET"))
    };
    let seen_as = |host: &str, path: &str| (host.to_owned(), format!("{path} HTTP/1.1"));
    assert_eq!(seen(), seen_as("client.test", "/a%20b?c=d"));
    gateway.apply(&document.clone().set(SETTINGS, "chat", "hostName", "named.test:8080"));
    assert_eq!(seen(), seen_as("named.test:8080", "/a%20b?c=d"));
    gateway.apply(&document.clone().set(SETTINGS, "chat", "pickHostNameFromBackendAddress", true));
    assert_eq!(seen(), seen_as("127.0.0.1", "/a%20b?c=d"));
    gateway.apply(&document.set(SETTINGS, "chat", "path", "/base/"));
    assert_eq!(seen(), seen_as("client.test", "/base/a%20b?c=d"));
}

#[test]
fn an_ipv6_backend_serves_requests_and_websockets_and_can_be_drained() {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, free_port()));
    let _backend = Backend::start_at("six", address);
    let port = free_port();
    let document = Document::simple(port, &[address]).set(
        SETTINGS,
        "chat",
        "pickHostNameFromBackendAddress",
        true,
    );
    let gateway = Gateway::start(&document);
    assert_eq!(get(port, "/whoami").unwrap().text(), "six");
    let mut socket = WebSocket::open(port, "/echo");
    assert!(socket.echoes("six"));
    assert_eq!(gateway.tunnels()[0]["backend"], address.to_string());
    gateway.must(&["drain", "chat/[::1]"]);
    assert_eq!(gateway.health_of("::1"), "Draining");
    assert_eq!(get(port, "/whoami").unwrap().status, 502);
    assert!(socket.echoes("still here"));
}

#[test]
fn an_ipv6_address_stands_in_brackets_in_the_host_header() {
    let teller = Teller::start_at(Ipv6Addr::LOCALHOST.into(), 0);
    let port = free_port();
    let document = Document::simple(port, &[teller.address]);
    let probe = [("host", Value::Null), ("pickHostNameFromBackendHttpSettings", true.into())];
    let document = probe
        .into_iter()
        .fold(document, |document, (name, value)| document.set("probes", "chat", name, value));
    let document = document.set(SETTINGS, "chat", "pickHostNameFromBackendAddress", true);
    let gateway = Gateway::start(&document);
    assert_eq!(gateway.health_of("::1"), "Healthy");
    assert_eq!(told(&get(port, "/").unwrap().text(), "host"), "[::1]");
}

#[test]
fn a_name_with_several_addresses_is_served_by_the_one_that_answers() {
    // `localhost` is ::1 too, where nobody listens.
    let teller = Teller::start();
    let port = free_port();
    let mut document = Document::simple(port, &[teller.address]).set(
        SETTINGS,
        "chat",
        "pickHostNameFromBackendAddress",
        true,
    );
    let named = json!([{"fqdn": "localhost"}]);
    document.0["properties"]["backendAddressPools"][0]["properties"]["backendAddresses"] = named;
    let gateway = Gateway::start(&document);
    assert_eq!(gateway.health_of("localhost"), "Healthy");
    for _ in 0..3 {
        assert_eq!(told(&get(port, "/").unwrap().text(), "host"), "localhost");
    }
}

#[test]
fn an_https_backend_is_checked_by_root_and_name_as_far_as_the_settings_say() {
    let directory = directory();
    let certificate = Certificate::signed_by_openssl(directory.path(), "backend.test");
    let root = STANDARD.encode(fs::read(&certificate.root_file).unwrap());
    let teller = Teller::start_tls(&certificate);
    let port = free_port();
    let mut trusting = Document::simple(port, &[teller.address])
        .set("probes", "chat", "protocol", "Https")
        .set(SETTINGS, "chat", "protocol", "Https")
        .set(SETTINGS, "chat", "hostName", "backend.test");
    let bare = trusting.clone();
    trusting.0["properties"]["trustedRootCertificates"] =
        json!([{"name": "root", "properties": {"data": root}}]);
    let roots = json!([link("trustedRootCertificates", "root")]);
    let trusting = trusting.set(SETTINGS, "chat", "trustedRootCertificates", roots);
    let gateway = Gateway::start(&trusting);
    let serves = |document: &Document, host: &str, sni: &str| {
        gateway.apply(document);
        let text = eventually(Patience::USUAL, "the backend to be trusted", || {
            get(port, "/").ok().filter(|answer| answer.status == 200).map(|answer| answer.text())
        });
        assert_eq!((told(&text, "host"), text.split('|').nth(2).unwrap()), (host.to_owned(), sni));
    };
    let refuses = |document: &Document| {
        gateway.apply(document);
        assert_eq!(get(port, "/").unwrap().status, 502);
        eventually(Patience::USUAL, "the probe to refuse it too", || {
            (gateway.health_of("127.0.0.1") == "Unhealthy").then_some(())
        });
    };
    let but = |document: &Document, property: &str, value: Value| {
        document.clone().set(SETTINGS, "chat", property, value)
    };
    serves(&trusting, "backend.test", "backend.test");
    refuses(&bare);
    serves(&but(&bare, "validateCertChainAndExpiry", false.into()), "backend.test", "backend.test");
    let misnamed = but(&trusting, "hostName", "other.test".into());
    refuses(&misnamed);
    serves(&but(&misnamed, "validateSNI", false.into()), "other.test", "other.test");
    serves(&but(&misnamed, "sniName", "backend.test".into()), "other.test", "backend.test");
}
