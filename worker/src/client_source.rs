//! Who the client of a connection or request is, where another balancer stands in front: whose word is taken, and for what.
//!
//! Pure: what is read from sockets, and how, is `accept`'s.
//!
//! Nobody who is not trusted can change the answer: a PROXY header of somebody else is never looked at, and of
//! `X-Forwarded-For` counts only what trusted peers have appended.

use std::net::{IpAddr, SocketAddr};

use holdfast_proto::control as wire;
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

mod network;
pub(crate) mod proxy_header;
#[cfg(test)]
mod tests;

use network::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Whose word is taken. By default nobody's: the connection's peer is the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSource {
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    trusted: Vec<Network>,
    forwarded_headers: bool,
}

/// A block of addresses is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a block of addresses is not valid")]
pub struct NotANetwork;

/// What a trusted peer has said of the request as the client had sent it.
#[derive(Debug, Default)]
pub struct Kept {
    proto: Option<HeaderValue>,
    port: Option<HeaderValue>,
}

// === impl ClientSource ===

impl ClientSource {
    /// Compiles what a listener is told.
    pub fn compile(source: Option<wire::ClientSource>) -> Result<Self, NotANetwork> {
        let Some(source) = source else { return Ok(Self::default()) };
        let trusted = source
            .trusted
            .iter()
            .map(|network| Network::new(&network.address, network.prefix).ok_or(NotANetwork))
            .collect::<Result<_, _>>()?;
        let wire::ClientSource { proxy_protocol, forwarded_headers, .. } = source;
        Ok(Self { proxy_protocol, trusted, forwarded_headers })
    }

    /// Whether a peer may speak for others.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(peer))
    }

    fn takes_headers_of(&self, peer: SocketAddr) -> bool {
        self.forwarded_headers && self.trusts(peer.ip())
    }

    /// The client of a request: of those that `X-Forwarded-For` names, the last one whom nobody trusts, or the first one
    /// where all are trusted. What stands before something that is no address is nobody's word.
    pub fn client_of(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.takes_headers_of(peer) {
            return peer;
        }
        let mut client = peer;
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        for named in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
            let named = named.trim_ascii();
            if named.is_empty() {
                continue;
            }
            let Some(named) = address(named) else { return client };
            client = named;
            if !self.trusts(named.ip()) {
                return client;
            }
        }
        client
    }

    /// Takes what stays as it came, before the forwarded headers are written anew.
    pub fn keep(&self, peer: SocketAddr, headers: &HeaderMap) -> Kept {
        if !self.takes_headers_of(peer) {
            return Kept::default();
        }
        let only = |name: HeaderName| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).cloned()
        };
        let is_proto = |value: &HeaderValue| {
            [&b"http"[..], b"https"].iter().any(|it| it.eq_ignore_ascii_case(value.as_bytes()))
        };
        let is_port = |value: &HeaderValue| {
            value.to_str().is_ok_and(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
        };
        Kept {
            proto: only(X_FORWARDED_PROTO).filter(is_proto),
            port: only(X_FORWARDED_PORT).filter(is_port),
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Puts back what was kept.
    pub fn restore(self, headers: &mut HeaderMap) {
        for (name, value) in [(X_FORWARDED_PROTO, self.proto), (X_FORWARDED_PORT, self.port)] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
}

/// `IP`, `IP:PORT`, `[IP6]` or `[IP6]:PORT`; port 0 where none is given.
fn address(named: &[u8]) -> Option<SocketAddr> {
    let named = std::str::from_utf8(named).ok()?;
    let bare = named.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(named);
    let whole = || bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0));
    let found = named.parse().ok().or_else(whole)?;
    Some(SocketAddr::new(found.ip().to_canonical(), found.port()))
}
