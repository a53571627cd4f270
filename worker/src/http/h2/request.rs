//! A request of HTTP/2 in the form that HTTP/1.1 has for it: one host, one Cookie field, no field that is too long.
//!
//! Framing is h2's: what RFC 9113 section 8.2.2 forbids in a request never gets here.

use http::header::{COOKIE, HOST, UPGRADE};
use http::{HeaderValue, Method, Version, request};

use crate::fault::{Fault, FaultKind};

/// One field, name and value (Azure: 8 KB).
const MOST_FIELD: usize = 8 * 1024;

/// Makes the change; a request of another version passes as it is.
pub(in crate::http) fn make_http1(parts: &mut request::Parts) -> Result<(), Fault> {
    if parts.version != Version::HTTP_2 || parts.method == Method::CONNECT {
        return Ok(());
    }
    let long = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() > MOST_FIELD
    };
    if parts.headers.iter().any(long) {
        return Err(Fault::new(FaultKind::HeaderTooLarge));
    }
    set_host(parts)?;
    join_cookies(parts);
    if parts.headers.contains_key(UPGRADE) {
        // No client can have sent it: it is a handshake by CONNECT.
        parts.version = Version::HTTP_11;
    }
    Ok(())
}

/// RFC 9113, section 8.3.1: `:authority` stands for Host, and both together must say the same.
fn set_host(parts: &mut request::Parts) -> Result<(), Fault> {
    let Some(authority) = parts.uri.authority().map(|authority| authority.as_str().to_owned())
    else {
        return match parts.headers.get(HOST) {
            Some(_) => Ok(()),
            None => Err(Fault::bad_request("neither :authority nor Host")),
        };
    };
    let differs = |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
    if parts.headers.get_all(HOST).iter().any(differs) {
        return Err(Fault::bad_request(":authority and Host differ"));
    }
    let host = HeaderValue::try_from(authority);
    parts.headers.insert(HOST, host.map_err(|_| Fault::bad_request(":authority is not valid"))?);
    Ok(())
}

/// RFC 9113, section 8.2.3: a cookie may come in crumbs, which only HTTP/2 knows.
fn join_cookies(parts: &mut request::Parts) {
    let mut crumbs = parts.headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut whole = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    // Values that are valid one by one are valid together.
    if let Ok(whole) = HeaderValue::from_bytes(&whole) {
        parts.headers.insert(COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use http::Request;

    fn as_http1(mut parts: request::Parts) -> Result<request::Parts, Fault> {
        make_http1(&mut parts).map(|()| parts)
    }

    fn parts(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().version(Version::HTTP_2).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_authority_is_the_host() {
        let made = as_http1(parts("https://Site.test:8443/a?b", &[])).unwrap();
        assert_eq!(made.headers[HOST], "Site.test:8443");
        let both = as_http1(parts("https://site.test/", &[("host", "SITE.test")])).unwrap();
        assert_eq!(both.headers.get_all(HOST).iter().count(), 1);
        assert_eq!(
            as_http1(parts("/", &[("host", "old.test")])).unwrap().headers[HOST],
            "old.test"
        );
    }

    #[test]
    fn two_hosts_or_none_are_refused() {
        for (uri, headers) in
            [("https://a.test/", &[("host", "b.test")][..]), ("/", &[]), ("*", &[])]
        {
            let fault = as_http1(parts(uri, headers)).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::BadRequest(_)), "{uri}");
        }
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")];
        let made = as_http1(parts("https://a.test/", &crumbs)).unwrap();
        let cookies: Vec<_> = made.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn a_field_beyond_the_limit_is_too_large() {
        let fits = "v".repeat(MOST_FIELD - 1);
        as_http1(parts("https://a.test/", &[("x", &fits)])).unwrap();
        let long = "v".repeat(MOST_FIELD);
        let fault = as_http1(parts("https://a.test/", &[("x", &long)])).unwrap_err();
        assert_eq!(fault.kind, FaultKind::HeaderTooLarge);
    }

    #[test]
    fn other_versions_pass_as_they_are() {
        let mut old = parts("/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        old.version = Version::HTTP_11;
        assert_eq!(as_http1(old).unwrap().headers.get_all(COOKIE).iter().count(), 2);
    }
}
