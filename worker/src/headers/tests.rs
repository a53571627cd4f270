//! Header hygiene, told as tables.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use http::Request;

use super::*;

fn parts(fields: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::builder().uri("/p?q").version(Version::HTTP_11);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn prepared(fields: &[(&str, &str)], websocket: bool) -> HeaderMap {
    prepared_as(&TraceId::random(), fields, websocket)
}

fn prepared_as(trace_id: &TraceId, fields: &[(&str, &str)], websocket: bool) -> HeaderMap {
    let mut headers = parts(fields).headers;
    let host = HeaderValue::from_static("backend");
    let forwarded = Forwarded {
        hop: &Hop::new("192.0.2.7:5000".parse().unwrap(), true, 443),
        host: &HeaderValue::from_static("h.com:443"),
        url: "/p?q",
        trace_id,
        fingerprint: None,
    };
    prepare_request(&mut headers, &forwarded, host, websocket).unwrap();
    headers
}

#[test]
fn a_post_says_how_long_it_is() {
    let refused = |version, field: Option<(&str, &str)>| {
        let fields: Vec<_> = field.into_iter().chain([("host", "a")]).collect();
        let mut parts = parts(&fields);
        parts.method = Method::POST;
        parts.version = version;
        check_request(&parts).is_err()
    };
    for version in [Version::HTTP_10, Version::HTTP_11] {
        assert!(refused(version, None), "{version:?}");
        assert!(!refused(version, Some(("content-length", "0"))), "{version:?}");
    }
    assert!(!refused(Version::HTTP_11, Some(("transfer-encoding", "chunked"))));
    assert!(!refused(Version::HTTP_2, None));
}

#[test]
fn ambiguous_requests_are_refused() {
    for (fields, reason) in [
        (&[][..], "Host is missing"),
        (&[("host", "a"), ("host", "a")], "more than one Host"),
        (
            &[("host", "a"), ("content-length", "1"), ("content-length", "1")],
            "more than one Content-Length",
        ),
        (&[("host", "a"), ("content-length", "+1")], "Content-Length is not a number"),
        (
            &[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")],
            "Content-Length with Transfer-Encoding",
        ),
        (
            &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
            "Transfer-Encoding is not chunked",
        ),
        (
            &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            "Transfer-Encoding is not chunked",
        ),
        (
            &[("host", "a"), ("authorization", "x"), ("authorization", "y")],
            "more than one Authorization",
        ),
        (&[("host", "a"), ("if-range", "x"), ("if-range", "x")], "more than one If-Range"),
        (&[("host", "a:b:c")], "Host is not valid"),
        (&[("host", "a b")], "Host is not valid"),
        (&[("host", "a/b")], "Host is not valid"),
        (&[("host", "")], "Host is not valid"),
        (&[("host", "a:99999")], "Host is not valid"),
        (&[("host", "[::1")], "Host is not valid"),
        (&[("host", "[::1]x")], "Host is not valid"),
        (
            &[
                ("host", "a"),
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("content-length", "3"),
            ],
            "an upgrade request cannot have a body",
        ),
    ] {
        assert_eq!(check_request(&parts(fields)), Err(Fault::bad_request(reason)), "{fields:?}");
    }
}

#[test]
fn sound_requests_give_their_host() {
    for host in ["a", "A.com:8080", "[::1]", "[::1]:80", "10.0.0.1:1", "under_score.x"] {
        assert_eq!(check_request(&parts(&[("host", host)])), Ok(HeaderValue::from_static(host)));
    }
    let mut old = parts(&[]);
    old.version = Version::HTTP_10;
    assert_eq!(check_request(&old), Ok(HeaderValue::from_static("")));
    let mut absolute = parts(&[("host", "field.com")]);
    absolute.uri = "http://target.com:81/x".parse().unwrap();
    assert_eq!(check_request(&absolute), Ok(HeaderValue::from_static("target.com:81")));
    absolute.uri = "http://user@target.com/x".parse().unwrap();
    assert!(check_request(&absolute).is_err());
    absolute.uri = "target.com:81".parse().unwrap();
    assert!(check_request(&absolute).is_err());
}

#[test]
fn a_long_target_and_a_long_header_are_told_apart() {
    let mut parts = parts(&[("host", "a"), ("x-a", "12345")]);
    assert_eq!(check_size(&parts, 25), Ok(()));
    assert_eq!(check_size(&parts, 24), Err(Fault::new(FaultKind::HeaderTooLarge)));
    parts.uri = "/aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
    assert_eq!(check_size(&parts, 24), Err(Fault::new(FaultKind::UriTooLong)));
}

#[test]
fn an_answer_with_two_lengths_or_an_unknown_coding_is_refused() {
    let bad = Err(Fault::new(FaultKind::BackendProtocol));
    for (fields, expected) in [
        (&[("content-length", "1")][..], Ok(())),
        (&[("transfer-encoding", "Chunked")], Ok(())),
        (&[("content-length", "1"), ("transfer-encoding", "chunked")], bad),
        (&[("transfer-encoding", "gzip, chunked")], bad),
    ] {
        assert_eq!(check_response(&parts(fields).headers), expected, "{fields:?}");
    }
}

#[test]
fn trace_and_connect_are_not_allowed() {
    for method in [Method::TRACE, Method::CONNECT] {
        let mut parts = parts(&[("host", "a")]);
        parts.method = method;
        assert_eq!(check_request(&parts), Err(Fault::new(FaultKind::MethodNotAllowed)));
    }
}

#[test]
fn a_websocket_is_wanted_by_both_fields_and_get() {
    let upgrade = |connection, upgrade| {
        wants_websocket(&parts(&[("connection", connection), ("upgrade", upgrade)]))
    };
    assert!(upgrade("Upgrade", "websocket"));
    assert!(upgrade("keep-alive, UPGRADE", "h2c, WebSocket"));
    assert!(!upgrade("keep-alive", "websocket"));
    assert!(!upgrade("Upgrade", "h2c"));
    let mut post = parts(&[("connection", "upgrade"), ("upgrade", "websocket")]);
    post.method = Method::POST;
    assert!(!wants_websocket(&post));
}

#[test]
fn one_hops_fields_do_not_reach_the_backend() {
    let headers = prepared(
        &[
            ("connection", "keep-alive, X-Mine, Authorization, te"),
            ("x-mine", "1"),
            ("authorization", "Basic x"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic y"),
            ("te", "gzip"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("expect", "100-continue"),
            ("x.dotted", "1"),
            ("x_scored", "1"),
        ],
        false,
    );
    for gone in [
        "connection",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "expect",
        "x.dotted",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    for kept in ["authorization", "proxy-authorization", "trailer", "x_scored"] {
        assert!(headers.contains_key(kept), "{kept}");
    }
}

#[test]
fn trailers_are_asked_for_on_the_next_hop_too() {
    let headers = prepared(&[("te", "gzip, trailers"), ("connection", "te")], false);
    assert_eq!(headers[TE], "trailers");
    assert_eq!(headers[CONNECTION], "TE");
}

#[test]
fn a_websocket_handshake_is_written_anew() {
    let headers = prepared(
        &[
            ("connection", "keep-alive, Upgrade, Sec-WebSocket-Key"),
            ("upgrade", "websocket, h2c"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ],
        true,
    );
    assert_eq!(headers[CONNECTION], "Upgrade");
    assert_eq!(headers[UPGRADE], "websocket");
    assert_eq!(headers["sec-websocket-key"], "k");
    assert_eq!(headers["sec-websocket-extensions"], "permessage-deflate");
}

#[test]
fn forwarded_fields_have_azures_formats() {
    let trace_id = TraceId::random();
    let headers = prepared_as(
        &trace_id,
        &[
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "198.51.100.2:9"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-port", "1"),
            ("x-original-host", "evil"),
            ("x-original-url", "/evil"),
            ("x-appgw-trace-id", "evil"),
        ],
        false,
    );
    assert_eq!(headers["x-forwarded-for"], "198.51.100.1, 198.51.100.2:9, 192.0.2.7:5000");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-port"], "443");
    assert_eq!(headers["x-original-host"], "h.com:443");
    assert_eq!(headers["x-original-url"], "/p?q");
    assert_eq!(headers["x-appgw-trace-id"], trace_id.as_str());
    assert_eq!(headers[HOST], "backend");
    for name in ["x-forwarded-for", "x-appgw-trace-id", "host"] {
        assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
    }
}

#[test]
fn answers_lose_one_hops_fields_and_gain_a_server() {
    let fields =
        [("connection", "close, x-hop"), ("x-hop", "1"), ("upgrade", "websocket"), ("etag", "e")];
    let mut headers = parts(&fields).headers;
    prepare_response(&mut headers, StatusCode::OK, false);
    assert_eq!(headers.len(), 2);
    assert_eq!(headers[SERVER], SERVER_NAME);
    prepare_response(&mut headers, StatusCode::OK, true);
    assert_eq!(headers[SERVER], SERVER_NAME, "a backend's own Server passes");
}

#[test]
fn upgrade_passes_only_where_the_status_is_about_it() {
    let offer = [("connection", "upgrade"), ("upgrade", "a, b"), ("upgrade", "websocket")];
    for status in [StatusCode::SWITCHING_PROTOCOLS, StatusCode::UPGRADE_REQUIRED] {
        let mut headers = parts(&offer).headers;
        prepare_response(&mut headers, status, true);
        assert_eq!(headers[CONNECTION], "Upgrade");
        assert_eq!(headers.get_all(UPGRADE).iter().collect::<Vec<_>>(), ["a, b", "websocket"]);
        assert!(!headers.contains_key(SERVER));
        end_connection(&mut headers);
        end_connection(&mut headers);
        let both: Vec<_> = headers.get_all(CONNECTION).iter().collect();
        assert_eq!(both, ["Upgrade", "close"]);
    }
    for status in [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN] {
        let mut headers = parts(&offer).headers;
        prepare_response(&mut headers, status, true);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
