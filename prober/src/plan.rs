//! A probe from the wire, turned into what a check needs.
//!
//! A probe that cannot be run does not disturb the other targets: its check fails with the reason as its words.

use std::net::IpAddr;
use std::time::Duration;

use holdfast_proto::control::{Probe, Scheme, TargetKey};
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;

use crate::expect::Statuses;
use crate::refusal::ProbeRefusal;
use crate::tls::{Tls, TlsClient};

/// Where the TCP connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// An IP literal.
    Ip(IpAddr),
    /// A host name, resolved at each check.
    Name(String),
}

/// Everything that a check needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where to connect.
    pub(crate) destination: Destination,
    /// The probe's port.
    pub(crate) port: u16,
    /// TLS, with HTTPS.
    pub(crate) tls: Option<TlsClient>,
    /// The Host header.
    pub(crate) host: HeaderValue,
    /// The request target.
    pub(crate) path: PathAndQuery,
    /// The bound on a whole check.
    pub(crate) timeout: Duration,
    /// The statuses that count as healthy.
    pub(crate) statuses: Statuses,
    /// What the body has to contain; empty: anything.
    pub(crate) body: String,
}

// === impl Plan ===

impl Plan {
    /// Decodes `probe` for the target `key`.
    pub(crate) fn new(
        key: &TargetKey,
        probe: Option<&Probe>,
        tls: &Tls,
    ) -> Result<Self, ProbeRefusal> {
        let probe = probe.ok_or(ProbeRefusal::NoProbe)?;
        let destination = Destination::new(&key.address)?;
        let client = match Scheme::try_from(probe.scheme) {
            Ok(Scheme::Http) => None,
            Ok(Scheme::Https) => Some(tls.client(&key.address, probe)?),
            Ok(Scheme::Unspecified) | Err(_) => return Err(ProbeRefusal::Scheme),
        };
        Ok(Self {
            port: u16::try_from(probe.port)
                .ok()
                .filter(|port| *port != 0)
                .ok_or(ProbeRefusal::Port(probe.port))?,
            tls: client,
            host: host_header(probe, &destination)?,
            path: path(&probe.path)?,
            timeout: Duration::from_millis(probe.timeout_ms).max(LEAST_TIMEOUT),
            statuses: Statuses::new(&probe.statuses)?,
            body: probe.body.clone(),
            destination,
        })
    }
}

/// No check can succeed in less, so 0 from the wire would only be a puzzle. The document's least is 1 s.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

fn host_header(probe: &Probe, destination: &Destination) -> Result<HeaderValue, ProbeRefusal> {
    let host = match (probe.host.as_str(), destination) {
        ("", Destination::Ip(IpAddr::V6(ip))) => format!("[{ip}]"),
        ("", Destination::Ip(ip)) => ip.to_string(),
        ("", Destination::Name(name)) => name.clone(),
        (host, _) => host.to_owned(),
    };
    match HeaderValue::from_str(&host) {
        Ok(value) if !host.contains(char::is_whitespace) => Ok(value),
        _ => Err(ProbeRefusal::Host(host)),
    }
}

fn path(path: &str) -> Result<PathAndQuery, ProbeRefusal> {
    match path {
        "" => Ok(PathAndQuery::from_static("/")),
        path if path.starts_with('/') => {
            PathAndQuery::try_from(path).map_err(|_| ProbeRefusal::Path(path.to_owned()))
        }
        path => Err(ProbeRefusal::Path(path.to_owned())),
    }
}

// === impl Destination ===

impl Destination {
    fn new(address: &str) -> Result<Self, ProbeRefusal> {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bare.unwrap_or(address).parse() {
            Ok(ip) => Ok(Self::Ip(ip)),
            Err(_) if address.is_empty() => Err(ProbeRefusal::NoAddress),
            Err(_) => Ok(Self::Name(address.to_owned())),
        }
    }
}

impl Plan {
    /// The GET that a check sends: no body, and the connection is not used again.
    pub(crate) fn request(&self) -> http::Request<http_body_util::Empty<bytes::Bytes>> {
        let mut request = http::Request::new(http_body_util::Empty::new());
        *request.uri_mut() = self.path.clone().into();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static("Holdfast-Probe"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe {
            scheme: Scheme::Http.into(),
            port: 80,
            path: "/health?x=1".into(),
            timeout_ms: 1000,
            ..Probe::default()
        }
    }

    fn plan(address: &str, probe: &Probe) -> Result<Plan, ProbeRefusal> {
        let key = TargetKey { address: address.into(), ..TargetKey::default() };
        Plan::new(&key, Some(probe), &Tls::without_system_roots())
    }

    #[test]
    fn the_address_is_the_host_where_the_probe_names_none() {
        for (address, host) in
            [("10.0.0.4", "10.0.0.4"), ("::1", "[::1]"), ("[::1]", "[::1]"), ("a.test", "a.test")]
        {
            assert_eq!(plan(address, &probe()).unwrap().host, host);
        }
    }

    #[test]
    fn a_probe_that_cannot_run_says_why() {
        for (broken, words) in [
            (Probe { scheme: 9, ..probe() }, "the probe's protocol is neither Http nor Https"),
            (Probe { port: 0, ..probe() }, "0 is not a TCP port"),
            (Probe { path: "health".into(), ..probe() }, "\"health\" cannot be a path"),
            (Probe { path: "/a b".into(), ..probe() }, "\"/a b\" cannot be a path"),
            (
                Probe { host: "a\r\nX: y".into(), ..probe() },
                "\"a\\r\\nX: y\" cannot be a Host header",
            ),
        ] {
            assert_eq!(plan("10.0.0.4", &broken).unwrap_err().to_string(), words);
        }
        assert!(matches!(plan("", &probe()), Err(ProbeRefusal::NoAddress)));
    }
}
