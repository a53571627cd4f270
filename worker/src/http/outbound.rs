//! A request as backends get it, before its route's rewrites: what lives on one hop is gone, what the gateway adds is there.
//!
//! Made alike for requests that are sent and for those that are only explained. Nothing here chooses a backend.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderValue, Version, request};

use crate::fault::Fault;
use crate::headers::{self, Forwarded};
use crate::http::Peer;
use crate::snapshot::Table;

/// What a request is made ready with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outbound<'a> {
    /// The revision that it began under.
    pub(super) table: &'a Table,
    /// Whose it is.
    pub(super) peer: Peer,
    /// Host as received.
    pub(super) host: &'a str,
    /// See [`headers::trace_id`].
    pub(super) trace_id: &'a str,
    /// See [`Forwarded::fingerprint`].
    pub(super) fingerprint: Option<&'a HeaderValue>,
    /// It opens a WebSocket.
    pub(super) websocket: bool,
    /// Rewrites need the client's Host; otherwise each attempt adds its backend's own.
    pub(super) with_host: bool,
}

// === impl Outbound ===

impl Outbound<'_> {
    /// The request as backends get it; each attempt adds its backend's own Host.
    pub(super) fn make(
        &self,
        mut parts: request::Parts,
        has_body: bool,
    ) -> Result<request::Parts, Fault> {
        let url = original_url(&parts).to_owned();
        let forwarded = Forwarded {
            client: self.peer.client,
            tls: self.peer.tls,
            port: self.peer.local.port(),
            host: self.host,
            url: &url,
            trace_id: self.trace_id,
            fingerprint: self.fingerprint,
        };
        let kept = self.table.client_source.keep(self.peer.client, &parts.headers);
        let host = if self.with_host { self.host } else { "" };
        let host =
            HeaderValue::from_str(host).map_err(|_| Fault::bad_request("Host is not valid"))?;
        headers::prepare_request(&mut parts.headers, &forwarded, host, self.websocket)?;
        kept.restore(&mut parts.headers);
        if has_body && !parts.headers.contains_key(CONTENT_LENGTH) {
            // Said outright, since hyper leaves the body of a GET out otherwise.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        Ok(parts)
    }
}

/// Path and query as the client sent them.
pub(super) fn original_url(parts: &request::Parts) -> &str {
    parts.uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// What the client says that its body is long; a chunked one says nothing.
pub(super) fn announced_length(parts: &request::Parts) -> u64 {
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    // More digits than fit are certainly too long.
    length.map_or(0, |length| length.trim().parse().unwrap_or(u64::MAX))
}
