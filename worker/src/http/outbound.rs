//! A request as backends get it, before its route's rewrites: what lives on one hop is gone, what the gateway adds is there.
//!
//! Made alike for requests that are sent and for those that are only explained. Nothing here chooses a backend.

use std::net::SocketAddr;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, Version, request};

use crate::fault::Fault;
use crate::headers::{self, Forwarded, Hop, TraceId};
use crate::snapshot::Table;

/// What a request is made ready with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outbound<'a> {
    /// The revision that it began under.
    pub(super) table: &'a Table,
    /// The client's connection, and its address.
    pub(super) hop: &'a Hop,
    pub(super) client: SocketAddr,
    /// Host as received.
    pub(super) host: &'a HeaderValue,
    /// Its name.
    pub(super) trace_id: &'a TraceId,
    /// See [`Forwarded::fingerprint`].
    pub(super) fingerprint: Option<&'a HeaderValue>,
    /// It opens a WebSocket.
    pub(super) websocket: bool,
    /// Rewrites need the client's Host; otherwise each attempt adds its backend's own.
    pub(super) with_host: bool,
}

// === impl Outbound ===

impl Outbound<'_> {
    /// Makes a request what backends get; each attempt adds its backend's own Host.
    pub(super) fn make(&self, parts: &mut request::Parts, has_body: bool) -> Result<(), Fault> {
        let forwarded = Forwarded {
            hop: self.hop,
            host: self.host,
            url: target_of(&parts.uri),
            trace_id: self.trace_id,
            fingerprint: self.fingerprint,
        };
        let kept = self.table.client_source.keep(self.client, &parts.headers);
        let none = || HeaderValue::from_static("");
        let host = if self.with_host { self.host.clone() } else { none() };
        headers::prepare_request(&mut parts.headers, &forwarded, host, self.websocket)?;
        kept.restore(&mut parts.headers);
        if has_body && !parts.headers.contains_key(CONTENT_LENGTH) {
            // Said outright, since hyper leaves the body of a GET out otherwise.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        Ok(())
    }
}

/// Path and query.
pub(super) fn target_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// The Host that decides for backends: a rewrite's, unless it is no text, or the client's own.
pub(super) fn host_of<'a>(
    written: Option<&'a HeaderValue>,
    own: &'a HeaderValue,
) -> &'a HeaderValue {
    written.filter(|host| host.to_str().is_ok()).unwrap_or(own)
}

/// What the client says that its body is long; a chunked one says nothing.
pub(super) fn announced_length(parts: &request::Parts) -> u64 {
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    // More digits than fit are certainly too long.
    length.map_or(0, |length| length.trim().parse().unwrap_or(u64::MAX))
}
