//! What is known of a request, its connection and its answer: Azure's server variables. All of the request's URL is told as
//! the client sent it, whatever a rewrite has made of it since; headers are told as they are by now.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use holdfast_proto::control::ServerVariable;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, request};

use super::value::Source;
use crate::route::without_port;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What the client's TLS handshake has settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// `TLSv1.2` or `TLSv1.3`.
    pub protocol: &'static str,
    /// The cipher suite by OpenSSL's name.
    pub cipher: &'static str,
    /// The client's JA4 fingerprint, where backends are told; no variable names it.
    pub fingerprint: Option<HeaderValue>,
    /// The client's certificate, where the listener has asked for one and the client has shown one.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A client's certificate, in the spelling in which rewrites tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// In PEM, on one line: line ends percent-encoded, as a header can carry them.
    pub pem: String,
    /// Not after.
    pub end_date: String,
    /// Not before.
    pub start_date: String,
    /// SHA-1, in hex.
    pub fingerprint: String,
    /// Issuer's distinguished name.
    pub issuer: String,
    /// Subject's distinguished name.
    pub subject: String,
    /// Serial number, in hex.
    pub serial: String,
    /// `SUCCESS` or `FAILED:reason`.
    pub verification: String,
}

/// What never changes about a request, taken down before anything of it is changed.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    client: SocketAddr,
    port: u16,
    session: Option<&'a Session>,
    version: Version,
    url: String,
    forwarded_for: Vec<u8>,
    received: u64,
}

/// A request as it is by now, and its answer once there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) method: &'a Method,
    pub(super) request: &'a HeaderMap,
    pub(super) answer: Option<(StatusCode, &'a HeaderMap)>,
}

// === impl Facts ===

impl<'a> Facts<'a> {
    /// Takes down what is known of a request that came from `client` to `port`, as the client sent it.
    pub fn of(
        parts: &request::Parts,
        client: SocketAddr,
        port: u16,
        session: Option<&'a Session>,
    ) -> Self {
        let url = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        let mut forwarded_for = Vec::new();
        join(&parts.headers, &X_FORWARDED_FOR, b", ", &mut forwarded_for);
        let fields: usize =
            parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        // Method, target and version with what separates them, fields, and the empty line.
        let head = parts.method.as_str().len() + url.len() + " HTTP/1.1\r\n ".len() + fields + 2;
        let body = parts.headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        let received = u64::try_from(head).unwrap_or(0).saturating_add(body.unwrap_or(0u64));
        Self { client, port, session, version: parts.version, url, forwarded_for, received }
    }

    fn path(&self) -> &str {
        self.url.split_once('?').map_or(self.url.as_str(), |(path, _)| path)
    }

    fn query(&self) -> &str {
        self.url.split_once('?').map_or("", |(_, query)| query)
    }

    fn client_ip(&self) -> IpAddr {
        self.client.ip().to_canonical()
    }
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Appends a source's value; what is not there is empty.
    pub(super) fn write(&self, source: &Source, out: &mut Vec<u8>) {
        match source {
            Source::Variable(variable) => self.write_variable(*variable, out),
            Source::Cookie(name) => out.extend_from_slice(cookie(self.request, name)),
            Source::Request(name) if *name == COOKIE => join(self.request, name, b"; ", out),
            Source::Request(name) => join(self.request, name, b", ", out),
            Source::Response(name) => {
                if let Some((_, headers)) = self.answer {
                    join(headers, name, b", ", out);
                }
            }
        }
    }

    fn write_variable(&self, variable: ServerVariable, out: &mut Vec<u8>) {
        let facts = self.facts;
        let text: &str = match variable {
            ServerVariable::AddXForwardedForProxy => {
                if !facts.forwarded_for.is_empty() {
                    out.extend_from_slice(&facts.forwarded_for);
                    out.extend_from_slice(b", ");
                }
                return show(out, facts.client_ip());
            }
            ServerVariable::ClientIp => return show(out, facts.client_ip()),
            ServerVariable::ClientPort => return show(out, facts.client.port()),
            ServerVariable::ServerPort => return show(out, facts.port),
            ServerVariable::ReceivedBytes => return show(out, facts.received),
            ServerVariable::HttpStatus => {
                return self.answer.iter().for_each(|(status, _)| show(out, status.as_u16()));
            }
            ServerVariable::Host => return self.write_host(out),
            ServerVariable::HttpMethod => self.method.as_str(),
            ServerVariable::HttpVersion => version(facts.version),
            ServerVariable::QueryString | ServerVariable::RequestQuery => facts.query(),
            ServerVariable::RequestScheme => {
                if facts.session.is_some() {
                    "https"
                } else {
                    "http"
                }
            }
            ServerVariable::RequestUri => &facts.url,
            ServerVariable::UriPath => facts.path(),
            ServerVariable::CiphersUsed => facts.session.map_or("", |it| it.cipher),
            ServerVariable::SslConnectionProtocol => facts.session.map_or("", |it| it.protocol),
            ServerVariable::SslEnabled => facts.session.map_or("", |_| "On"),
            other => {
                let certificate = facts.session.and_then(|it| it.certificate.as_deref());
                of_certificate(other, certificate)
            }
        };
        out.extend_from_slice(text.as_bytes());
    }

    /// The host's name without its port, in lower case.
    fn write_host(&self, out: &mut Vec<u8>) {
        let host = self.request.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = without_port(host).to_ascii_lowercase();
        if name.contains(':') { show(out, format_args!("[{name}]")) } else { show(out, name) }
    }
}

fn of_certificate(variable: ServerVariable, certificate: Option<&ClientCertificate>) -> &str {
    let Some(it) = certificate else {
        let verified = variable == ServerVariable::ClientCertificateVerification;
        return if verified { "NONE" } else { "" };
    };
    match variable {
        ServerVariable::ClientCertificate => &it.pem,
        ServerVariable::ClientCertificateEndDate => &it.end_date,
        ServerVariable::ClientCertificateFingerprint => &it.fingerprint,
        ServerVariable::ClientCertificateIssuer => &it.issuer,
        ServerVariable::ClientCertificateSerial => &it.serial,
        ServerVariable::ClientCertificateStartDate => &it.start_date,
        ServerVariable::ClientCertificateSubject => &it.subject,
        ServerVariable::ClientCertificateVerification => &it.verification,
        _ => "",
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn show(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Memory takes whatever is written into it.
    drop(write!(out, "{value}"));
}

/// Every line of a header in one.
fn join(headers: &HeaderMap, name: &HeaderName, between: &[u8], out: &mut Vec<u8>) {
    for (at, value) in headers.get_all(name).iter().enumerate() {
        if at != 0 {
            out.extend_from_slice(between);
        }
        out.extend_from_slice(value.as_bytes());
    }
}

/// The first cookie of that name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> &'h [u8] {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|it| it.as_bytes().split(|b| *b == b';'));
    for pair in pairs.map(<[u8]>::trim_ascii) {
        if let Some(value) = pair.strip_prefix(name.as_bytes()).and_then(|it| it.strip_prefix(b"="))
        {
            return value;
        }
    }
    b""
}
