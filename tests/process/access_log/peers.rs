//! What a line tells of both ends of a request: the client's certificate, and the connection to the backend.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use serde_json::{Value, json};

use super::{find, to_file};
use crate::client_auth::{profile, uses};
use crate::harness::{
    Authority, Backend, Certificate, Connection, Document, Gateway, Passport, Visitor, directory,
    free_port, get,
};

#[test]
fn a_line_says_from_which_port_the_backend_was_asked() {
    let directory = directory();
    let log = directory.path().join("access.log");
    // It answers everybody with the request, and with the port that it sees.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = listener.local_addr().unwrap();
    let (seen, ports) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), seen.clone());
            thread::spawn(move || {
                let port = stream.peer_addr().unwrap().port();
                let mut heard = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    heard.extend_from_slice(&buffer[..count]);
                    if heard.ends_with(b"\r\n\r\n") {
                        if !heard.starts_with(b"GET /healthz") {
                            seen.send(port).unwrap();
                        }
                        heard.clear();
                        stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                            .unwrap();
                    }
                }
            });
        }
    });
    let port = free_port();
    let document = Document::simple(port, &[backend]).holdfast("accessLog", to_file(&log));
    let _gateway = Gateway::start(&document);
    // The second one goes over a kept connection, most likely the same.
    for number in 0..2 {
        let target = format!("/whoami?{number}");
        assert_eq!(get(port, &target).unwrap().status, 200);
        let line = find(&log, "its line", |line| {
            line["properties"]["originalRequestUriWithArgs"] == target
        });
        let seen: u16 = ports.recv().unwrap();
        assert_eq!(line["properties"]["upstreamSourcePort"], seen.to_string());
    }
    // Where nobody is asked, there is none.
    let mut trace = Connection::open(port).unwrap();
    trace.write("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(trace.response().unwrap().status, 405);
    let line = find(&log, "the refusal's line", |line| line["properties"]["httpStatus"] == 405);
    assert!(line["properties"].get("upstreamSourcePort").is_none());
}

#[test]
fn a_line_says_which_certificate_a_client_has_shown_and_what_it_was_worth() {
    let directory = directory();
    let path = directory.path();
    let log = path.join("access.log");
    let site = Certificate::make(path, "site", "staff.test");
    let (staff, strangers) = (Authority::make(path, "staff"), Authority::make(path, "strangers"));
    let (jane, mallory) = (staff.passport("jane"), strangers.passport("mallory"));
    let (port, backend) = (free_port(), Backend::start("one"));
    let document = Document::new()
        .pool("chat", &[backend.address])
        .tls_site("staff", port, &site, "chat")
        .holdfast("accessLog", to_file(&log));
    let document = uses(profile(document, "staff", &[&staff], &json!({})), "staff", "staff");
    let _gateway = Gateway::start_in(directory, &document);
    let fingerprint = |passport: &Passport| {
        let der = CertificateDer::from_pem_file(&passport.certificate).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &der);
        digest.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    };
    let unknown = "FAILED:unable to get local issuer certificate";
    for (passport, status, verdict, issuer) in [
        (Some(&jane), 101, "SUCCESS", Some("CN=staff")),
        (Some(&mallory), 400, unknown, Some("CN=strangers")),
        (None, 400, "NONE", None),
    ] {
        let visitor = Visitor::new(&[&site], passport, &[&TLS13]);
        let mut visit = visitor.visit(port, "staff.test").unwrap();
        assert_eq!(visit.open("staff.test").unwrap().status, status);
        let line = find(&log, "its line", |line| line["properties"]["sslClientVerify"] == verdict);
        let line = &line["properties"];
        assert_eq!(line["httpStatus"], status);
        let error = if status == 400 { "HTTPS_NO_CERT" } else { "NO_ERROR" };
        assert_eq!(line["error_info"], format!("ERRORINFO_{error}"));
        assert_eq!(line.get("sslClientCertificateIssuerName").and_then(Value::as_str), issuer);
        assert_eq!(
            line.get("sslClientCertificateFingerprint").and_then(Value::as_str),
            passport.map(fingerprint).as_deref()
        );
    }
    // What is no request any more has a client all the same.
    let mut broken =
        Visitor::new(&[&site], Some(&jane), &[&TLS13]).visit(port, "staff.test").unwrap();
    broken.write(b"no HTTP at all\r\n\r\n").unwrap();
    let line = find(&log, "the broken request's line", |line| {
        line["properties"]["error_info"] == "ERRORINFO_INVALID_REQUEST"
    });
    let shown = &line["properties"]["sslClientCertificateFingerprint"];
    assert_eq!(shown.as_str(), Some(fingerprint(&jane).as_str()));
}
