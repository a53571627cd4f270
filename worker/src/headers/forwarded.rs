//! What a backend is told about the client's side of a request: the fields that Azure adds, and their values.
//!
//! What is the same for all requests of a connection is made once; what is a request's own shares one piece of memory.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fault::Fault;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-original-host");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const X_APPGW_TRACE_ID: HeaderName = HeaderName::from_static("x-appgw-trace-id");
const X_AZURE_JA4_FINGERPRINT: HeaderName = HeaderName::from_static("x-azure-ja4-fingerprint");

/// The client's side of a request.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// Of its connection.
    pub hop: &'a Hop,
    /// Host as received.
    pub host: &'a HeaderValue,
    /// Path and query as received.
    pub url: &'a str,
    /// Its name.
    pub trace_id: &'a TraceId,
    /// The client's JA4 fingerprint, where backends are told.
    pub fingerprint: Option<&'a HeaderValue>,
}

/// What backends are told of the hop from the client to here.
#[derive(Debug)]
pub struct Hop {
    client: HeaderValue,
    proto: HeaderValue,
    port: HeaderValue,
}

/// A name for one request, unique for all practical purposes: 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

// === impl Forwarded ===

impl Forwarded<'_> {
    /// So many fields are added at most.
    pub(super) const MOST_FIELDS: usize = 7;

    pub(super) fn add_to(&self, headers: &mut HeaderMap) -> Result<(), Fault> {
        let Hop { client, proto, port } = self.hop;
        let chain: usize = headers.get_all(X_FORWARDED_FOR).iter().map(|it| it.len() + 2).sum();
        let trace_id = self.trace_id.as_str();
        let own = chain + client.len() + self.url.len() + trace_id.len();
        let mut text = BytesMut::with_capacity(own);
        let mut forwarded_for = client.clone();
        if chain != 0 {
            for value in headers.get_all(X_FORWARDED_FOR).iter().filter(|it| !it.is_empty()) {
                text.extend_from_slice(value.as_bytes());
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(client.as_bytes());
            forwarded_for = field(&mut text)?;
        }
        headers.insert(X_FORWARDED_FOR, forwarded_for);
        headers.insert(X_FORWARDED_PROTO, proto.clone());
        headers.insert(X_FORWARDED_PORT, port.clone());
        headers.insert(X_ORIGINAL_HOST, self.host.clone());
        text.extend_from_slice(self.url.as_bytes());
        headers.insert(X_ORIGINAL_URL, field(&mut text)?);
        text.extend_from_slice(trace_id.as_bytes());
        headers.insert(X_APPGW_TRACE_ID, field(&mut text)?);
        // What a client sends under this name must not pass for what it is.
        match self.fingerprint {
            Some(fingerprint) => headers.insert(X_AZURE_JA4_FINGERPRINT, fingerprint.clone()),
            None => headers.remove(X_AZURE_JA4_FINGERPRINT),
        };
        Ok(())
    }
}

// === impl Hop ===

impl Hop {
    /// Of a client's connection to one of the gateway's ports, over TLS or not.
    pub fn new(client: SocketAddr, tls: bool, port: u16) -> Self {
        // Neither digits nor colons can fail.
        let empty = |_| HeaderValue::from_static("");
        Self {
            client: HeaderValue::try_from(address(client)).unwrap_or_else(empty),
            proto: HeaderValue::from_static(if tls { "https" } else { "http" }),
            port: HeaderValue::from(port),
        }
    }
}

// === impl TraceId ===

impl TraceId {
    /// One that no other request has.
    pub fn random() -> Self {
        let mut digits = [0; 32];
        HEXLOWER.encode_mut(&rand::random::<[u8; 16]>(), &mut digits);
        Self(digits)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// `ip:port`; a client that came as an IPv4-mapped IPv6 address is an IPv4 client.
fn address(client: SocketAddr) -> String {
    match client.ip().to_canonical() {
        IpAddr::V4(ip) => format!("{ip}:{}", client.port()),
        IpAddr::V6(ip) => format!("[{ip}]:{}", client.port()),
    }
}

/// Takes what has been written.
fn field(text: &mut BytesMut) -> Result<HeaderValue, Fault> {
    HeaderValue::from_maybe_shared(text.split().freeze())
        .map_err(|_| Fault::bad_request("a field's value is not valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_addresses_carry_their_port() {
        for (client, wanted) in [
            ("192.0.2.7:5000", "192.0.2.7:5000"),
            ("[::1]:5000", "[::1]:5000"),
            ("[::ffff:192.0.2.7]:5000", "192.0.2.7:5000"),
        ] {
            let hop = client.parse().map(|client| Hop::new(client, false, 80));
            assert_eq!(hop.map(|hop| hop.client), Ok(HeaderValue::from_static(wanted)));
        }
    }

    #[test]
    fn trace_ids_are_32_hex_digits_and_differ() {
        let (one, other) = (TraceId::random(), TraceId::random());
        assert_ne!(one, other);
        let digits = one.as_str();
        assert!(digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
