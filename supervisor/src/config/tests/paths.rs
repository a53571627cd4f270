//! What a document names by a path: it is printed so that it means the same wherever it is read.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client_side::document;
use super::{effective, fixtures, lines};
use crate::config::load;

/// The way to a directory from the current one, through the root.
fn relative(directory: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    up.join(directory.strip_prefix("/").unwrap())
}

#[test]
fn what_is_printed_means_the_same_wherever_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let at = |name: &str| dir.path().join("in").join(name);
    for name in ["site.pem", "site.key"] {
        std::fs::copy(fixtures().join("certs").join(name), at(name)).unwrap();
    }
    std::fs::write(at("page.html"), "<p>").unwrap();
    nix::unistd::mkfifo(&at("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    std::fs::write(at("staff.pem"), authority.pem()).unwrap();

    let log = r#"{ "accessLog": { "file": "../in/log" } }"#;
    let mut document: Value = serde_json::from_str(&document("{}", log)).unwrap();
    document["sslCertificates"] = json!([{ "name": "c",
        "holdfast": { "certificateFile": "site.pem", "privateKeyFile": "./site.key" } }]);
    document["trustedClientCertificates"] =
        json!([{ "name": "t", "holdfast": { "certificateFile": "staff.pem" } }]);
    let page = json!([{ "statusCode": "HttpStatus502", "holdfast": { "file": "page.html" } }]);
    document["customErrorConfigurations"] = page.clone();
    document["httpListeners"][0]["customErrorConfigurations"] = page;
    let document = document.to_string();

    for base in [dir.path().join("in"), relative(dir.path()).join("in")] {
        let read = |document: &str, base: &Path| {
            load(document, base).unwrap_or_else(|found| panic!("{}", lines(&found))).gateway
        };
        let first = read(&document, &base);
        let printed = effective(&first);
        for pointer in [
            "/holdfast/accessLog/file",
            "/properties/sslCertificates/0/holdfast/certificateFile",
            "/properties/sslCertificates/0/holdfast/privateKeyFile",
            "/properties/trustedClientCertificates/0/holdfast/certificateFile",
            "/properties/customErrorConfigurations/0/holdfast/file",
            "/properties/httpListeners/0/properties/customErrorConfigurations/0/holdfast/file",
        ] {
            let path = printed.pointer(pointer).and_then(Value::as_str);
            assert!(path.is_some_and(|path| path.starts_with('/')), "{pointer}: {path:?}");
        }
        for elsewhere in [Path::new("/"), Path::new("src"), Path::new("")] {
            let again = read(&printed.to_string(), elsewhere);
            assert_eq!(again, first, "{}", elsewhere.display());
            assert_eq!(effective(&again), printed);
        }
    }
}
