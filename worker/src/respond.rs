//! The only map from a fault to what a client sees.
//!
//! Built-in pages are small and say nothing about backends: no address, no error text of a peer. An operator's own
//! ([`ErrorPages`]) take their place, under the same status.

use std::error::Error;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, SERVER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::fault::{Fault, FaultKind};

mod pages;

pub use pages::ErrorPages;

/// Any cause that a body can fail with.
pub type BoxError = Box<dyn Error + Send + Sync>;
/// The body of everything that the gateway sends, streamed or its own.
pub type BoxBody = http_body_util::combinators::BoxBody<Bytes, BoxError>;

/// The name in `Server`.
pub const SERVER_NAME: &str = "Holdfast";

/// The status that a fault is answered with.
pub const fn status(kind: FaultKind) -> StatusCode {
    match kind {
        FaultKind::NoSite => StatusCode::NOT_FOUND,
        FaultKind::NoBackend
        | FaultKind::ConnectFailed
        | FaultKind::BackendClosed
        | FaultKind::BackendProtocol => StatusCode::BAD_GATEWAY,
        FaultKind::BackendTimeout => StatusCode::GATEWAY_TIMEOUT,
        FaultKind::BadRequest(_)
        | FaultKind::HttpToHttps
        | FaultKind::NoClientCertificate
        | FaultKind::BadClientCertificate => StatusCode::BAD_REQUEST,
        FaultKind::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        FaultKind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        FaultKind::UriTooLong => StatusCode::URI_TOO_LONG,
        FaultKind::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        FaultKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        FaultKind::Internal | FaultKind::Rewrite(_) => StatusCode::INTERNAL_SERVER_ERROR,
        FaultKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Answers a fault.
pub fn fault(fault: &Fault, hide_server: bool, pages: &ErrorPages) -> Response<BoxBody> {
    let status = status(fault.kind);
    let mut response = page_response(status, page_of(fault, pages), hide_server);
    if fault.kind == FaultKind::MethodNotAllowed {
        // RFC 9110, 15.5.6: a 405 must say what is allowed.
        response.headers_mut().insert(
            http::header::ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"),
        );
    }
    response
}

/// Answers with a redirect to `location`.
pub fn redirect(status: StatusCode, location: HeaderValue, hide_server: bool) -> Response<BoxBody> {
    let mut response = page_response(status, page(status, None).into(), hide_server);
    response.headers_mut().insert(LOCATION, location);
    response
}

/// A fault's whole HTTP/1.1 answer in bytes, closing the connection: for when hyper is out of the picture.
pub fn raw_fault(fault: &Fault, hide_server: bool, pages: &ErrorPages) -> Vec<u8> {
    let status = status(fault.kind);
    let page = page_of(fault, pages);
    let reason = status.canonical_reason().unwrap_or("Error");
    let server = if hide_server { String::new() } else { format!("{SERVER}: {SERVER_NAME}\r\n") };
    let mut answer = format!(
        "HTTP/1.1 {} {reason}\r\n{server}{DATE}: {}\r\n{CONTENT_TYPE}: text/html\r\n\
         {CONTENT_LENGTH}: {}\r\n{CONNECTION}: close\r\n\r\n",
        status.as_u16(),
        httpdate::fmt_http_date(SystemTime::now()),
        page.len(),
    )
    .into_bytes();
    answer.extend_from_slice(&page);
    answer
}

/// The body of an answer that has none.
pub fn empty() -> BoxBody {
    full(Bytes::new())
}

/// A body of these bytes.
pub(crate) fn full(bytes: Bytes) -> BoxBody {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn page_response(status: StatusCode, page: Bytes, hide_server: bool) -> Response<BoxBody> {
    let length = page.len();
    let mut response = Response::new(full(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if !hide_server {
        headers.insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    }
    response
}

/// The operator's page, else the built-in one.
fn page_of(fault: &Fault, pages: &ErrorPages) -> Bytes {
    let status = status(fault.kind);
    pages.get(status).unwrap_or_else(|| page(status, note(fault.kind)).into())
}

/// What a page says beside its status.
const fn note(kind: FaultKind) -> Option<&'static str> {
    match kind {
        FaultKind::BadRequest(reason) => Some(reason),
        FaultKind::HttpToHttps => Some("The plain HTTP request was sent to an HTTPS port"),
        FaultKind::NoClientCertificate => Some("No required SSL certificate was sent"),
        FaultKind::BadClientCertificate => Some("The SSL certificate error"),
        _ => None,
    }
}

fn page(status: StatusCode, note: Option<&str>) -> String {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let mut page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    );
    if let Some(note) = note {
        page.push_str("<center>");
        page.push_str(note);
        page.push_str("</center>\r\n");
    }
    page.push_str("<hr><center>");
    page.push_str(SERVER_NAME);
    page.push_str("</center>\r\n</body>\r\n</html>\r\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        for (kind, code) in [
            (FaultKind::NoSite, 404),
            (FaultKind::NoBackend, 502),
            (FaultKind::ConnectFailed, 502),
            (FaultKind::BackendClosed, 502),
            (FaultKind::BackendProtocol, 502),
            (FaultKind::BackendTimeout, 504),
            (FaultKind::BadRequest("r"), 400),
            (FaultKind::RequestTimeout, 408),
            (FaultKind::UriTooLong, 414),
            (FaultKind::HeaderTooLarge, 431),
            (FaultKind::BodyTooLarge, 413),
            (FaultKind::MethodNotAllowed, 405),
            (FaultKind::HttpToHttps, 400),
            (FaultKind::NoClientCertificate, 400),
            (FaultKind::BadClientCertificate, 400),
            (FaultKind::Misdirected, 421),
            (FaultKind::Internal, 500),
            (FaultKind::Rewrite("r"), 500),
            (FaultKind::Busy, 503),
        ] {
            let response = fault(&Fault::new(kind), false, ErrorPages::BUILT_IN);
            assert_eq!(response.status().as_u16(), code, "{kind:?}");
            assert_eq!(response.headers()["server"], SERVER_NAME);
        }
    }

    #[test]
    fn the_page_is_as_long_as_announced_and_the_server_can_hide() {
        let response = fault(&Fault::new(FaultKind::NoSite), true, ErrorPages::BUILT_IN);
        assert!(response.headers().get(SERVER).is_none());
        let announced = response.headers()[CONTENT_LENGTH].to_str().unwrap().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        assert_eq!(body.len().to_string(), announced);
        assert!(body.windows(22).any(|w| w == b"<h1>404 Not Found</h1>"));
    }

    #[test]
    fn raw_is_one_whole_closing_response() {
        let raw = |fault: &Fault, hide| {
            String::from_utf8(raw_fault(fault, hide, ErrorPages::BUILT_IN)).unwrap()
        };
        let text = raw(&Fault::bad_request("no reason"), false);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 400 Bad Request\r\nserver: Holdfast\r\ndate: "),
            "{head}"
        );
        assert!(head.ends_with("connection: close"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert!(body.contains("no reason"));
        let hidden = raw(&Fault::new(FaultKind::Busy), true);
        assert!(!hidden.contains("server:"), "{hidden}");
    }

    #[test]
    fn a_page_of_the_operators_changes_nothing_but_the_body() {
        let mut pages = ErrorPages::default();
        let own = Bytes::from_static(b"<p>\xff not even text");
        assert!(pages.add(StatusCode::METHOD_NOT_ALLOWED, own.clone()));
        assert!(!pages.add(StatusCode::METHOD_NOT_ALLOWED, Bytes::new()), "the first stays");
        let refused = Fault::new(FaultKind::MethodNotAllowed);
        let response = fault(&refused, false, &pages);
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        for (name, value) in [("content-type", "text/html"), ("server", SERVER_NAME)] {
            assert_eq!(response.headers()[name], value);
        }
        assert_eq!(response.headers()[CONTENT_LENGTH], own.len().to_string());
        assert!(response.headers().contains_key("allow"));
        let raw = raw_fault(&refused, false, &pages);
        assert!(raw.starts_with(b"HTTP/1.1 405 ") && raw.ends_with(&own));
        // Other statuses keep the built-in page.
        let other = raw_fault(&Fault::new(FaultKind::NoSite), false, &pages);
        assert!(other.ends_with(b"</html>\r\n"));
    }
}
