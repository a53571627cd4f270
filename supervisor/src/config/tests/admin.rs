//! Admin over the network, as documents say it.

use std::path::Path;
use std::sync::Arc;

use super::client_side::document;
use super::{effective, fixtures, lines};
use crate::config::gateway::{AdminNetwork, AdminRole};
use crate::config::{Loaded, about_admin, load, load_again};

const FILES: &str = r#""certificateFile": "site.pem", "privateKeyFile": "site.key",
    "clientCertificateAuthorityFile": "site.pem""#;

fn with(admin: &str) -> String {
    document("{}", &format!("{{\n\"admin\": {admin} }}"))
}

fn certs() -> std::path::PathBuf {
    fixtures().join("certs")
}

fn loaded(admin: &str) -> Loaded {
    let found = load(&with(admin), &certs());
    found.unwrap_or_else(|found| panic!("{admin}: {}", lines(&found)))
}

fn network(loaded: &Loaded) -> Arc<AdminNetwork> {
    loaded.gateway.global.admin.clone().unwrap()
}

#[test]
fn there_is_none_unless_the_document_says_so() {
    assert_eq!(loaded("null").gateway.global.admin, None);
    let plain = load(&document("{}", "{}"), Path::new("/tmp")).unwrap();
    assert_eq!(plain.gateway.global.admin, None);
    assert!(effective(&plain.gateway)["holdfast"]["admin"].is_null());
}

#[test]
fn it_loads_again_as_it_is_printed_and_its_key_is_not() {
    let clients = r#"[{ "Name": "ci", "ROLE": "Read" }, { "name": 7, "role": "CHANGE" }]"#;
    let first =
        loaded(&format!(r#"{{ "Listen": " [::1]:9443 ", {FILES}, "clients": {clients} }}"#));
    assert_eq!(lines(&first.warnings), "");
    let admin = network(&first);
    assert_eq!(admin.listen.to_string(), "[::1]:9443");
    let clients: Vec<_> = admin.clients.iter().map(|it| (it.name.as_str(), it.role)).collect();
    assert_eq!(clients, [("ci", AdminRole::Read), ("7", AdminRole::Change)]);
    let printed = effective(&first.gateway);
    assert!(!printed.to_string().contains("PRIVATE KEY"), "{printed}");
    let again = load(&printed.to_string(), Path::new("/tmp")).unwrap();
    assert_eq!(again.gateway, first.gateway);
    assert!(!format!("{admin:?}").contains("key_der"), "{admin:?}");
}

#[test]
fn nobody_to_let_in_is_told_of() {
    let told = |clients: &str| {
        let admin = format!(r#"{{ "listen": "127.0.0.1:9443", {FILES} {clients} }}"#);
        lines(&loaded(&admin).warnings)
    };
    for clients in ["", r#", "clients": []"#, r#", "clients": null"#] {
        assert!(told(clients).contains("nobody is let in over the network"), "{clients}");
    }
    let unknown =
        told(r#", "clients": [{"name": "a", "role": "read", "group": "x"}], "tls": false"#);
    assert!(unknown.contains("\"group\" is not known") && unknown.contains("\"tls\""), "{unknown}");
}

#[test]
fn what_has_been_in_force_is_taken_without_files_that_are_gone() {
    let text = with(
        r#"{ "listen": "127.0.0.1:9443", "certificateFile": "gone.pem", "privateKeyFile": "site.key",
        "clientCertificateAuthorityFile": "site.pem", "clients": [{"name": "a", "role": "read"}] }"#,
    );
    let refused = lines(&load(&text, &certs()).unwrap_err());
    assert!(refused.contains("holdfast.admin.certificateFile"), "{refused}");
    let again = load_again(&text, &certs()).unwrap();
    assert!(network(&again).identity.is_none());
    let warned = lines(&again.warnings);
    assert!(warned.contains("gone.pem cannot be read") && warned.contains("as it was"), "{warned}");
}

#[test]
fn an_address_that_listeners_have_is_refused_and_one_beside_them_is_not() {
    let at = |listen: &str| {
        let clients = r#""clients": [{"name": "a", "role": "read"}]"#;
        load(&with(&format!(r#"{{ "listen": "{listen}", {FILES}, {clients} }}"#)), &certs())
    };
    for taken in ["127.0.0.1:8080", "0.0.0.0:8080"] {
        let told = lines(&at(taken).unwrap_err());
        assert!(told.contains("cannot be bound beside the listener 127.0.0.1:8080"), "{told}");
    }
    for free in ["127.0.0.1:8081", "127.0.0.2:8080", "[::]:8080"] {
        assert!(at(free).is_ok(), "{free}");
    }
}

#[test]
fn what_cannot_be_bound_is_told_of_its_place() {
    let text = with(&format!(r#"{{ {FILES}, "Listen": "127.0.0.1:9443" }}"#));
    let told = about_admin(&text, "reason".to_owned(), "mend".to_owned());
    let line = text.lines().position(|line| line.contains("\"Listen\"")).unwrap() + 1;
    assert_eq!((told.path.as_str(), told.line as usize), ("holdfast.admin.Listen", line));
    assert!(told.column > 1);
}
