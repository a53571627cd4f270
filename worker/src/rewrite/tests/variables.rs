//! Every server variable, told for one request.

use std::sync::Arc;

use super::super::facts::ClientCertificate;
use super::*;

fn told_of(source: wire::RewriteSource, head: &mut request::Parts, facts: &Facts<'_>) -> String {
    let rule =
        wire::RewriteRule { request_headers: vec![set_to("x-told", &[whole(source)])], ..rule() };
    compiled(vec![rule]).change_request(facts, head).unwrap();
    lines(&head.headers, "x-told").concat()
}

fn told(source: wire::RewriteSource) -> String {
    let fields = [
        ("host", "Chat.Test:8443"),
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-for", "198.51.100.2"),
        ("cookie", "a=1; session=xyz==; sessions=no"),
        ("cookie", "b=2"),
        ("content-length", "10"),
    ];
    let mut head = head("/a%20b/c?x=1&y=2", &fields);
    let facts = facts(&head);
    told_of(source, &mut head, &facts)
}

#[test]
fn server_variables_tell_what_there_is_to_know() {
    for (name, wanted) in [
        (ServerVariable::AddXForwardedForProxy, "198.51.100.1, 198.51.100.2, 192.0.2.7"),
        (ServerVariable::ClientIp, "192.0.2.7"),
        (ServerVariable::ClientPort, "5000"),
        (ServerVariable::Host, "chat.test"),
        (ServerVariable::HttpMethod, "GET"),
        (ServerVariable::HttpVersion, "HTTP/1.1"),
        (ServerVariable::QueryString, "x=1&y=2"),
        (ServerVariable::RequestQuery, "x=1&y=2"),
        (ServerVariable::RequestScheme, "https"),
        (ServerVariable::RequestUri, "/a%20b/c?x=1&y=2"),
        (ServerVariable::UriPath, "/a%20b/c"),
        (ServerVariable::ServerPort, "8443"),
        (ServerVariable::SslEnabled, "On"),
        (ServerVariable::SslConnectionProtocol, "TLSv1.3"),
        (ServerVariable::CiphersUsed, "TLS_AES_256_GCM_SHA384"),
        (ServerVariable::ClientCertificateVerification, "NONE"),
        (ServerVariable::ClientCertificateSubject, ""),
        (ServerVariable::HttpStatus, ""),
        (ServerVariable::ClientUser, ""),
    ] {
        assert_eq!(told(variable(name)), wanted, "{name:?}");
    }
}

#[test]
fn the_bytes_of_a_request_are_its_head_and_what_it_says_of_its_body() {
    let request = "POST /p?q HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
    let mut head = head("/p?q", &[("host", "a"), ("content-length", "10")]);
    head.method = Method::POST;
    let facts = facts(&head);
    let told = told_of(variable(ServerVariable::ReceivedBytes), &mut head, &facts);
    assert_eq!(told, (request.len() + 10).to_string());
}

#[test]
fn without_tls_the_variables_of_tls_are_empty() {
    for (name, wanted) in [
        (ServerVariable::SslEnabled, ""),
        (ServerVariable::SslConnectionProtocol, ""),
        (ServerVariable::CiphersUsed, ""),
        (ServerVariable::RequestScheme, "http"),
        (ServerVariable::AddXForwardedForProxy, "2001:db8::1"),
    ] {
        let mut head = head("/", &[]);
        let facts = Facts::of(&head, "[2001:db8::1]:1".parse().unwrap(), 80, None);
        assert_eq!(told_of(variable(name), &mut head, &facts), wanted, "{name:?}");
    }
}

#[test]
fn a_clients_certificate_is_told_once_there_is_one() {
    let certificate = ClientCertificate {
        subject: "CN=a".to_owned(),
        verification: "SUCCESS".to_owned(),
        ..ClientCertificate::default()
    };
    let session = Session { certificate: Some(Arc::new(certificate)), ..SESSION.clone() };
    let mut head = head("/", &[]);
    let facts = Facts::of(&head, "192.0.2.7:1".parse().unwrap(), 443, Some(&session));
    for (name, wanted) in [
        (ServerVariable::ClientCertificateSubject, "CN=a"),
        (ServerVariable::ClientCertificateVerification, "SUCCESS"),
        (ServerVariable::ClientCertificateIssuer, ""),
    ] {
        assert_eq!(told_of(variable(name), &mut head, &facts), wanted, "{name:?}");
    }
}

#[test]
fn cookies_are_found_by_their_whole_name() {
    let cookie = |name: &str| told(of(rewrite_source::Kind::Cookie(name.to_owned())));
    assert_eq!(cookie("session"), "xyz==");
    assert_eq!(cookie("b"), "2");
    assert_eq!(cookie("sess"), "");
    assert_eq!(told(asks("cookie")), "a=1; session=xyz==; sessions=no; b=2");
    assert_eq!(told(asks("x-forwarded-for")), "198.51.100.1, 198.51.100.2");
}

#[test]
fn a_written_host_is_the_host_from_then_on() {
    let mut head = head("/", &[("host", "[::1]:80")]);
    let facts = facts(&head);
    assert_eq!(told_of(variable(ServerVariable::Host), &mut head, &facts), "[::1]");
    let write = set_to("Host", &[text("Other.test:81")]);
    let read = set_to("x-told", &[whole(variable(ServerVariable::Host))]);
    asked(vec![wire::RewriteRule { request_headers: vec![write, read], ..rule() }], &mut head)
        .unwrap();
    assert_eq!(lines(&head.headers, "host"), ["Other.test:81"]);
    assert_eq!(lines(&head.headers, "x-told"), ["other.test"]);
}
