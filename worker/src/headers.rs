//! HTTP header hygiene: what is refused, what stays on one hop, what the gateway adds.
//!
//! Pure, on `http` types. `Connection` and `Upgrade` belong to the gateway: no field of theirs ever passes through,
//! except a 426's `Upgrade` and those of a WebSocket's opening handshake, which are written anew.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, EXPECT, HOST, IF_MODIFIED_SINCE,
    IF_RANGE, IF_UNMODIFIED_SINCE, SERVER, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};

use crate::fault::{Fault, FaultKind};
use crate::respond::SERVER_NAME;

mod forwarded;

pub use forwarded::{Forwarded, Hop, TraceId};

/// Fields that live on one hop (RFC 9110, 7.6.1), besides those that `Connection` names. As nginx does,
/// `Proxy-Authenticate` and `Proxy-Authorization` pass: they are between the client and whoever asks.
static HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields of a request that are answered here. hyper answers `Expect: 100-continue` itself as soon as the body is asked for;
/// `HTTP2-Settings` means something only with an upgrade to h2c (RFC 7540, 3.2.1), which is never forwarded.
static NOT_FORWARDED: [HeaderName; 3] = [TE, EXPECT, HeaderName::from_static("http2-settings")];

/// Fields that `Connection` cannot name away (RFC 9110, 7.6.1 forbids a sender to list fields for all recipients);
/// otherwise a client could strip what a proxy in front of this one vouches for.
const END_TO_END: [&str; 11] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "set-cookie",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
];

/// A request has at most one of each. Those of nginx, less the ones that RFC 9110 allows to stand on several lines.
static AT_MOST_ONE: [(HeaderName, &str); 8] = [
    (HOST, "more than one Host"),
    (CONTENT_LENGTH, "more than one Content-Length"),
    (AUTHORIZATION, "more than one Authorization"),
    (CONTENT_RANGE, "more than one Content-Range"),
    (EXPECT, "more than one Expect"),
    (IF_MODIFIED_SINCE, "more than one If-Modified-Since"),
    (IF_RANGE, "more than one If-Range"),
    (IF_UNMODIFIED_SINCE, "more than one If-Unmodified-Since"),
];

/// Refuses what no backend should have to interpret, and returns the request's host as sent (empty if it has none,
/// which only HTTP/1.0 may).
pub fn check_request(parts: &request::Parts) -> Result<HeaderValue, Fault> {
    if matches!(parts.method, Method::TRACE | Method::CONNECT) {
        return Err(Fault::new(FaultKind::MethodNotAllowed));
    }
    // Where no field stands twice, which is nearly everywhere, none is looked up.
    if parts.headers.keys_len() != parts.headers.len() {
        for (name, reason) in &AT_MOST_ONE {
            if parts.headers.get_all(name).iter().nth(1).is_some() {
                return Err(Fault::bad_request(reason));
            }
        }
    }
    if let Some(length) = parts.headers.get(CONTENT_LENGTH) {
        // RFC 9112, 6.1: both together are an attempt at smuggling, or as good as one.
        if parts.headers.contains_key(TRANSFER_ENCODING) {
            return Err(Fault::bad_request("Content-Length with Transfer-Encoding"));
        }
        let digits = length.as_bytes();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Fault::bad_request("Content-Length is not a number"));
        }
    }
    if !is_chunked_at_most(&parts.headers) {
        return Err(Fault::bad_request("Transfer-Encoding is not chunked"));
    }
    if is_without_length(parts) {
        return Err(Fault::bad_request("POST without Content-Length"));
    }
    if wants_websocket(parts) && announces_body(&parts.headers) {
        return Err(Fault::bad_request("an upgrade request cannot have a body"));
    }
    // RFC 9112, 3.2.4: the asterisk-form is for OPTIONS alone.
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return Err(Fault::bad_request("the request target is neither a path nor a URL"));
    }
    host(&parts.uri, &parts.headers, parts.version)
}

/// Refuses a request whose target, or whose whole header, is longer than `most` bytes as it stands on the wire.
pub fn check_size(parts: &request::Parts, most: usize) -> Result<(), Fault> {
    let (authority, path) = (parts.uri.authority(), parts.uri.path_and_query());
    let target = authority.map_or(0, |authority| authority.as_str().len())
        + path.map_or(0, |path| path.as_str().len());
    if target > most {
        return Err(Fault::new(FaultKind::UriTooLong));
    }
    // `: ` and the line's end.
    let fields: usize =
        parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if target + fields > most {
        return Err(Fault::new(FaultKind::HeaderTooLarge));
    }
    Ok(())
}

/// Refuses an answer whose length could be read in two ways (RFC 9112, 6.3), or whose body would lose a coding here:
/// this hop undoes `chunked` and nothing else.
pub fn check_response(headers: &HeaderMap) -> Result<(), Fault> {
    let two_lengths =
        headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH);
    if two_lengths || !is_chunked_at_most(headers) {
        return Err(Fault::new(FaultKind::BackendProtocol));
    }
    Ok(())
}

/// Whether a message has no transfer coding, or `chunked` alone and once.
fn is_chunked_at_most(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// A POST that does not say whether it has a body: Azure refuses it. HTTP/2 frames bodies by itself.
fn is_without_length(parts: &request::Parts) -> bool {
    parts.method == Method::POST
        && parts.version <= Version::HTTP_11
        && !parts.headers.contains_key(CONTENT_LENGTH)
        && !parts.headers.contains_key(TRANSFER_ENCODING)
}

/// The host of a request: an absolute target's goes before the Host field (RFC 9112, 3.2.2).
fn host(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<HeaderValue, Fault> {
    let not_valid = || Fault::bad_request("Host is not valid");
    let field = headers.get(HOST);
    let said = match field {
        Some(value) => Some(value.to_str().map_err(|_| not_valid())?.trim()),
        None => None,
    };
    let host = match (uri.authority(), said) {
        (Some(authority), _) if authority.as_str().contains('@') => {
            return Err(Fault::bad_request("the request target holds user information"));
        }
        // `host:port` alone is a target for CONNECT; a backend could read it as a path or as a host.
        (Some(_), _) if uri.scheme().is_none() => {
            return Err(Fault::bad_request("the request target is neither a path nor a URL"));
        }
        (_, None) if version == Version::HTTP_11 => {
            return Err(Fault::bad_request("Host is missing"));
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(said)) => said,
        (None, None) => return Ok(HeaderValue::from_static("")),
    };
    if !is_host(host) && (!host.is_empty() || version == Version::HTTP_11) {
        return Err(not_valid());
    }
    match field {
        Some(field) if field == host => Ok(field.clone()),
        _ => HeaderValue::from_str(host).map_err(|_| not_valid()),
    }
}

/// `name`, `name:port`, `[v6]`, `[v6]:port`, and nothing that a URL's authority could not be.
pub fn is_host(host: &str) -> bool {
    let (name_is_good, port) = if let Some(inside) = host.strip_prefix('[') {
        let Some((address, rest)) = inside.split_once(']') else { return false };
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return false,
        };
        (address.parse::<std::net::Ipv6Addr>().is_ok(), port)
    } else {
        let (name, port) = match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        };
        // RFC 3986, 3.2.2: unreserved, percent and sub-delims; less the ones that quoting tools trip over.
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        (!name.is_empty() && name.bytes().all(allowed), port)
    };
    name_is_good && port.is_none_or(|port| port.is_empty() || port.parse::<u16>().is_ok())
}

/// Whether a request opens a WebSocket over HTTP/1.1 (RFC 6455, 4.1). Any other upgrade is not forwarded.
pub fn wants_websocket(parts: &request::Parts) -> bool {
    parts.version == Version::HTTP_11
        && parts.method == Method::GET
        && has_token(&parts.headers, &CONNECTION, "upgrade")
        && has_token(&parts.headers, &UPGRADE, "websocket")
}

/// Whether a list field holds a token, whatever its case.
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// Makes a client's header ready for a backend: the hop's own fields go, the forwarded ones come. `websocket`: the
/// request opens a WebSocket, and says so to the backend too.
pub fn prepare_request(
    headers: &mut HeaderMap,
    forwarded: &Forwarded<'_>,
    host: HeaderValue,
    websocket: bool,
) -> Result<(), Fault> {
    // Those of the hop's own that are written below, and what is forwarded: the map grows once at most.
    headers.reserve(2 + Forwarded::MOST_FIELDS);
    let trailers = has_token(headers, &TE, "trailers");
    remove_named_by_connection(headers);
    remove_all(headers, |name| {
        HOP_BY_HOP.contains(name) || NOT_FORWARDED.contains(name) || is_odd(name)
    });
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    } else if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
    headers.insert(HOST, host);
    forwarded.add_to(headers)
}

/// Makes a backend's header ready for the client. `Upgrade` stays where it says what was or must be switched to
/// (RFC 9110, 15.2.2 and 15.5.22); elsewhere it would offer what is not forwarded, h2c for one.
pub fn prepare_response(headers: &mut HeaderMap, status: StatusCode, hide_server: bool) {
    let names_protocols =
        matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    let protocols: Vec<_> =
        headers.get_all(UPGRADE).iter().filter(|_| names_protocols).cloned().collect();
    remove_hop_by_hop(headers);
    if !protocols.is_empty() {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.extend(protocols.into_iter().map(|protocol| (UPGRADE, protocol)));
    }
    if !hide_server && !headers.contains_key(SERVER) {
        headers.insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    }
}

/// Says that an answer is its connection's last, beside whatever `Connection` says already.
pub fn end_connection(headers: &mut HeaderMap) {
    if !ends_connection(headers) {
        headers.append(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Whether an answer says that it is its connection's last.
pub fn ends_connection(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "close")
}

/// Removes what lives on one hop, and what `Connection` names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    remove_all(headers, |name| HOP_BY_HOP.contains(name));
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| {
            !END_TO_END.contains(&name.as_str()) && !name.as_str().starts_with("sec-websocket-")
        })
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// One look at what is there, instead of one for each field that is seldom there.
fn remove_all(headers: &mut HeaderMap, is_meant: impl Fn(&HeaderName) -> bool) {
    let meant: Vec<HeaderName> = headers.keys().filter(|name| is_meant(name)).cloned().collect();
    for name in meant {
        headers.remove(name);
    }
}

/// Whether a field's name holds anything but letters, digits, hyphens and underscores.
fn is_odd(name: &HeaderName) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.as_str().bytes().all(plain)
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
