//! What a client can put into a rewrite, and what must never come out of it.

use super::*;

/// A path made of a header that a client has sent.
fn path_of(header: &[u8]) -> String {
    let mut head = head("/a?q=1", &[]);
    head.headers.insert("x-name", http::HeaderValue::from_bytes(header).unwrap());
    url(vec![], value(&[text("/u/"), whole(asks("x-name"))]), None, &mut head)
}

#[test]
fn a_header_in_a_path_begins_no_query_and_ends_no_line() {
    for (header, wanted) in [
        (&b"a b"[..], "/u/a%20b?q=1"),
        (b"x?admin=1#f", "/u/x%3Fadmin=1%23f?q=1"),
        (b"a HTTP/1.1", "/u/a%20HTTP/1.1?q=1"),
        (b"\xff\t\"", "/u/%FF%09%22?q=1"),
        (b"%0d%0aX: y", "/u/%0d%0aX:%20y?q=1"),
        (b"100%", "/u/100%25?q=1"),
        (b"", "/u/?q=1"),
    ] {
        assert_eq!(path_of(header), wanted);
    }
}

#[test]
fn a_header_in_a_query_adds_no_parameter() {
    let mut head = head("/a", &[("x-user", "me&admin=1")]);
    let query = value(&[text("user="), whole(asks("x-user")), text("&v=1")]);
    assert_eq!(url(vec![], None, query, &mut head), "/a?user=me%26admin%3D1&v=1");
}

#[test]
fn a_path_that_looks_like_an_authority_stays_a_path() {
    let mut head = head("/a", &[("x-to", "//evil.test/x")]);
    let made = url(vec![], value(&[whole(asks("x-to"))]), None, &mut head);
    assert_eq!((made.as_str(), head.uri.authority()), ("//evil.test/x", None));
    let mut head = super::head("/a", &[("x-to", "http://evil.test/x")]);
    let made = url(vec![], value(&[whole(asks("x-to"))]), None, &mut head);
    assert_eq!((made.as_str(), head.uri.authority()), ("/http://evil.test/x", None));
}

#[test]
fn a_host_that_is_none_is_refused() {
    let write = |host: &str| {
        let headers = vec![set_to("Host", &[whole(asks("x-host"))])];
        let mut head = head("/", &[("host", "a.test"), ("x-host", host)]);
        asked(vec![wire::RewriteRule { request_headers: headers, ..rule() }], &mut head).map(drop)
    };
    assert_eq!(write("b.test:80"), Ok(()));
    for host in ["b.test/x", "a b", "user@b.test", "b.test:x", "b.test, c.test"] {
        assert_eq!(write(host), Err("the value for Host is not one"), "{host}");
    }
    assert_eq!(write(""), Err("nothing is left of Host"));
}

#[test]
fn values_that_quote_one_another_do_not_grow_without_bound() {
    let double = || set_to("x-a", &[whole(asks("x-a")), whole(asks("x-a"))]);
    let doubling =
        wire::RewriteRule { request_headers: (0..40).map(|_| double()).collect(), ..rule() };
    let mut head = head("/", &[("x-a", "0123456789")]);
    assert_eq!(asked(vec![doubling], &mut head).map(drop), Err("the values are too long together"));
    let long = "a".repeat(30_000);
    let mut head = super::head("/", &[("x-a", &long)]);
    let url = Some(wire::UrlRewrite { path: value(&[whole(asks("x-a"))]), ..Default::default() });
    let failed = asked(vec![wire::RewriteRule { url, ..rule() }], &mut head).map(drop);
    assert_eq!(failed, Err("the values are too long together"));
}

#[test]
fn what_is_captured_goes_the_way_of_where_it_came_from() {
    let conditions =
        || vec![when(asks("x-a"), "(.*)"), when(variable(ServerVariable::QueryString), "(.*)")];
    let query = value(&[capture(0, 1), text("/"), capture(1, 1)]);
    let mut head = head("/?b=2&c=3", &[("x-a", "d=4&e=5")]);
    assert_eq!(url(conditions(), None, query, &mut head), "/?d%3D4%26e%3D5/b=2&c=3");
}

#[test]
fn any_bytes_that_a_header_may_hold_make_a_target_that_reads_back() {
    for byte in (0x20..0x7f).chain([b'\t', 0x80, 0xfe, 0xff]) {
        let made = path_of(&[b'x', byte, b'y']);
        let line = format!("GET {made} HTTP/1.1");
        assert_eq!(line.split(' ').count(), 3, "{byte}: {line}");
        assert!(made.ends_with("?q=1") && made.matches('?').count() == 1, "{byte}: {made}");
    }
}
