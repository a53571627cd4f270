//! The opening handshake, both sides.
#![allow(clippy::unwrap_used, reason = "tests")]

use http::{Request, Response};

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn request(change: impl FnOnce(&mut request::Parts)) -> request::Parts {
    let request = Request::get("/chat")
        .header("Host", "example.org")
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "WebSocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", KEY)
        .body(());
    let (mut parts, ()) = request.unwrap().into_parts();
    change(&mut parts);
    parts
}

fn answer(change: impl FnOnce(&mut response::Parts)) -> response::Parts {
    let response = Response::builder()
        .status(101)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        // The example of RFC 6455, section 1.3.
        .header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        .body(());
    let (mut parts, ()) = response.unwrap().into_parts();
    change(&mut parts);
    parts
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &'static str) {
    headers.insert(name, value.parse().unwrap());
}

#[test]
fn a_handshake_is_recognized_and_its_acceptance_too() {
    let opening = Opening::from_request(&request(|_| {})).unwrap().unwrap();
    opening.verify(&answer(|_| {})).unwrap();
}

#[test]
fn what_does_not_ask_for_a_websocket_is_an_ordinary_request() {
    let others = [
        request(|parts| parts.version = Version::HTTP_10),
        request(|parts| set(&mut parts.headers, "upgrade", "h2c")),
        request(|parts| set(&mut parts.headers, "connection", "close")),
        request(|parts| drop(parts.headers.remove("upgrade"))),
    ];
    for parts in others {
        assert_eq!(Opening::from_request(&parts).unwrap(), None, "{parts:?}");
    }
}

#[test]
fn another_version_is_left_to_the_backend() {
    let parts = request(|parts| set(&mut parts.headers, "sec-websocket-version", "25"));
    assert!(Opening::from_request(&parts).unwrap().is_some());
}

#[test]
fn a_malformed_handshake_is_refused() {
    let bad = [
        request(|parts| parts.method = Method::POST),
        request(|parts| set(&mut parts.headers, "content-length", "5")),
        request(|parts| set(&mut parts.headers, "transfer-encoding", "chunked")),
        request(|parts| drop(parts.headers.remove("sec-websocket-key"))),
        request(|parts| set(&mut parts.headers, "sec-websocket-key", "c2hvcnQ=")),
        request(|parts| set(&mut parts.headers, "sec-websocket-key", "!!!!!!!!!!!!!!!!!!!!!!!!")),
        request(|parts| {
            parts.headers.append("sec-websocket-key", KEY.parse().unwrap());
        }),
    ];
    for parts in bad {
        let fault = Opening::from_request(&parts).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::BadRequest(_)), "{parts:?}");
    }
    let empty = request(|parts| set(&mut parts.headers, "content-length", "0"));
    assert!(Opening::from_request(&empty).unwrap().is_some());
}

#[test]
fn an_answer_that_does_not_accept_is_the_backends_fault() {
    let opening = Opening::from_request(&request(|_| {})).unwrap().unwrap();
    let bad = [
        answer(|parts| parts.status = StatusCode::OK),
        answer(|parts| drop(parts.headers.remove("upgrade"))),
        answer(|parts| set(&mut parts.headers, "upgrade", "h2c")),
        answer(|parts| set(&mut parts.headers, "connection", "keep-alive")),
        answer(|parts| drop(parts.headers.remove("sec-websocket-accept"))),
        answer(|parts| set(&mut parts.headers, "sec-websocket-accept", "AAAA")),
        answer(|parts| {
            parts.headers.append("upgrade", "websocket".parse().unwrap());
        }),
    ];
    for parts in bad {
        let fault = opening.verify(&parts).unwrap_err();
        assert_eq!(fault.kind, FaultKind::BackendProtocol, "{parts:?}");
    }
}
