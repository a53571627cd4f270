//! The opening handshake of a WebSocket: what makes a request one, and what makes an answer its acceptance.
//!
//! RFC 6455, sections 4.2.1 and 4.1, as a proxy sees them: it vouches for the form of the handshake and leaves the
//! version, the protocol and the extensions to the two ends. Nothing here reads a byte after the 101; that is the
//! tunnel's, and begins in [`begin`](begin()).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Version, request, response};
use sha1::{Digest as _, Sha1};

use crate::fault::{Fault, FaultKind};

mod begin;
#[cfg(test)]
mod tests;

pub use begin::{BeginError, begin, begin_behind};

/// RFC 6455, section 1.3: what both ends append to the key.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A well-formed opening handshake on its way to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    accept: String,
}

impl Opening {
    /// Recognizes a request that asks for a WebSocket. `None`: it asks for nothing of the kind.
    pub fn from_request(request: &request::Parts) -> Result<Option<Self>, Fault> {
        let headers = &request.headers;
        // Upgrade counts only where Connection names it, and only in HTTP/1.1 (RFC 9110, section 7.8).
        let asks = request.version == Version::HTTP_11
            && has_token(headers, &UPGRADE, "websocket")
            && has_token(headers, &CONNECTION, "upgrade");
        if !asks {
            return Ok(None);
        }
        if request.method != Method::GET {
            return Err(Fault::bad_request("a WebSocket handshake must be a GET"));
        }
        if has_body(headers) {
            return Err(Fault::bad_request("a WebSocket handshake has no body"));
        }
        let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(Fault::bad_request("not exactly one Sec-WebSocket-Key"));
        };
        let key = key.as_bytes().trim_ascii();
        // 16 bytes are 24 characters; anything longer need not be decoded to be refused.
        if key.len() != 24 || STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
            return Err(Fault::bad_request("Sec-WebSocket-Key is not 16 bytes in base64"));
        }
        Ok(Some(Self { accept: accept_of(key) }))
    }

    /// Checks that an answer accepts this handshake. Anything but a 101 is an ordinary response and not asked here.
    pub fn verify(&self, response: &response::Parts) -> Result<(), Fault> {
        let headers = &response.headers;
        if response.status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused("the status is not 101"));
        }
        let mut protocols = headers.get_all(UPGRADE).iter();
        let (Some(protocol), None) = (protocols.next(), protocols.next()) else {
            return Err(refused("not exactly one Upgrade"));
        };
        if !protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket") {
            return Err(refused("Upgrade is not websocket"));
        }
        if !has_token(headers, &CONNECTION, "upgrade") {
            return Err(refused("Connection does not name Upgrade"));
        }
        let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let (Some(accept), None) = (accepts.next(), accepts.next()) else {
            return Err(refused("not exactly one Sec-WebSocket-Accept"));
        };
        if accept.as_bytes().trim_ascii() != self.accept.as_bytes() {
            return Err(refused("wrong Sec-WebSocket-Accept"));
        }
        Ok(())
    }

    /// The `Sec-WebSocket-Accept` that answers this handshake.
    pub fn accept(&self) -> &str {
        &self.accept
    }
}

/// The backend's doing; what exactly is for its operator, not for the client.
fn refused(reason: &'static str) -> Fault {
    tracing::debug!(reason, "a backend's 101 does not accept the handshake");
    Fault::new(FaultKind::BackendProtocol)
}

/// RFC 6455, section 4.2.2, item 5.4.
fn accept_of(key: &[u8]) -> String {
    let mut digest = Sha1::new();
    digest.update(key);
    digest.update(ACCEPT_SUFFIX);
    STANDARD.encode(digest.finalize())
}

/// Whether a comma-separated list header holds a token, in any of its lines.
fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0")
}
