//! What a line says, under the names that Azure gives its fields. What has no meaning here is left out.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::text::{Shown, Text};

const CATEGORY: &str = "ApplicationGatewayAccessLog";
/// Azure's word for a request.
const REQUEST: &str = "ApplicationGatewayAccess";
/// Azure has none for a tunnel's end.
const TUNNEL_END: &str = "HoldfastTunnelEnd";
/// What every line begins with, and nothing else that stands in somebody's file.
pub(super) const BEGIN: &[u8] = b"{\"timeStamp\":\"";
/// A line's fields without what clients and operators decide the length of.
const FIXED: usize = 1024;

/// One line to be.
#[derive(Debug)]
pub(crate) enum Line {
    /// A request was answered, or could not be.
    Request(Box<Request>),
    /// A tunnel has ended.
    TunnelEnd(Box<TunnelEnd>),
}

/// What is known of a request when it is over.
#[derive(Debug)]
pub(crate) struct Request {
    /// When it was over.
    pub(crate) at: SystemTime,
    pub(crate) client: SocketAddr,
    /// Whether it came over TLS.
    pub(crate) tls: bool,
    /// Protocol and cipher, as OpenSSL names them.
    pub(crate) session: Option<[&'static str; 2]>,
    /// What came of looking at the client's certificate, with TLS.
    pub(crate) verification: Option<String>,
    /// Of the certificate that it has shown.
    pub(crate) fingerprint: Option<Text>,
    pub(crate) issuer: Option<Text>,
    pub(crate) method: Option<Text>,
    /// Path and query as the client sent them.
    pub(crate) target: Option<Text>,
    /// As the backend was sent them.
    pub(crate) sent_target: Option<Text>,
    pub(crate) version: Option<&'static str>,
    pub(crate) user_agent: Option<Text>,
    pub(crate) content_type: Option<Text>,
    /// As the client sent it.
    pub(crate) original_host: Option<Text>,
    /// As the backend was sent it.
    pub(crate) host: Option<Text>,
    pub(crate) status: u16,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// From the request's head to the end of its answer.
    pub(crate) taken: Duration,
    /// Of that, since the answer began.
    pub(crate) answering: Option<Duration>,
    pub(crate) site: Option<Arc<str>>,
    pub(crate) rule: Option<Box<str>>,
    pub(crate) pool: Option<Arc<str>>,
    pub(crate) settings: Option<Arc<str>>,
    /// `ADDRESS:PORT` of the backend that was asked last.
    pub(crate) backend: Option<String>,
    /// The gateway's own port of the connection to it.
    pub(crate) source_port: Option<u16>,
    pub(crate) backend_status: Option<u16>,
    /// Until the head of its answer.
    pub(crate) backend_latency: Option<Duration>,
    pub(crate) error: &'static str,
    pub(crate) transaction: Box<str>,
    /// Of the tunnel that the request has opened.
    pub(crate) tunnel: Option<u64>,
}

/// What is known of a tunnel when it ends, in whichever process.
#[derive(Debug)]
pub(crate) struct TunnelEnd {
    pub(crate) at: SystemTime,
    pub(crate) id: u64,
    pub(crate) client: SocketAddr,
    pub(crate) site: Arc<str>,
    pub(crate) pool: Arc<str>,
    pub(crate) settings: Arc<str>,
    pub(crate) backend: String,
    /// That of the request that has opened it.
    pub(crate) transaction: Arc<str>,
    pub(crate) cause: &'static str,
    /// How the client's leg had ended then, and the backend's.
    pub(crate) leg_ends: [&'static str; 2],
    /// From the client, and to it.
    pub(crate) bytes: [u64; 2],
    pub(crate) duration: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    time_stamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_pool_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_setting_name: Option<&'a str>,
    operation_name: &'static str,
    category: &'static str,
    properties: Properties<'a>,
}

/// All fields; each kind of line has some of them.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Properties<'a> {
    instance_id: &'a str,
    #[serde(rename = "clientIP")]
    client_ip: String,
    client_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_method: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_request_uri_with_args: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_uri: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_query: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_version: Option<&'static str>,
    received_bytes: u64,
    sent_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_response_time: Option<f64>,
    time_taken: f64,
    transaction_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl_enabled: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl_cipher: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl_protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl_client_verify: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl_client_certificate_fingerprint: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl_client_certificate_issuer_name: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_routed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_response_latency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_source_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_host: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<Shown<'a>>,
    #[serde(rename = "error_info", skip_serializing_if = "Option::is_none")]
    error_info: Option<&'static str>,
    /// As `holdfast tunnels` shows it, and `holdfast close` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel_end_cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel_client_end: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel_backend_end: Option<&'static str>,
}

// === impl Line ===

impl Line {
    /// Memory that it takes, about.
    pub(super) fn size(&self) -> usize {
        let Self::Request(request) = self else { return FIXED };
        let texts = [
            &request.method,
            &request.target,
            &request.sent_target,
            &request.user_agent,
            &request.content_type,
            &request.original_host,
            &request.host,
            &request.fingerprint,
            &request.issuer,
        ];
        FIXED + texts.into_iter().flatten().map(Text::len).sum::<usize>()
    }

    /// Appends it as JSON and a line's end; no value that a client decides on is longer than `most` bytes.
    pub(super) fn render(&self, into: &mut Vec<u8>, most: usize) -> io::Result<()> {
        let begin = into.len();
        let envelope = match self {
            Self::Request(request) => request.envelope(most),
            Self::TunnelEnd(end) => end.envelope(),
        };
        if let Err(error) = serde_json::to_writer(&mut *into, &envelope) {
            into.truncate(begin);
            return Err(error.into());
        }
        into.push(b'\n');
        Ok(())
    }
}

// === impl Request ===

impl Request {
    /// One of which nothing more is known than that it is over.
    pub(crate) fn new(client: SocketAddr, status: u16, error: &'static str) -> Self {
        Self {
            at: SystemTime::now(),
            client,
            tls: false,
            session: None,
            verification: None,
            fingerprint: None,
            issuer: None,
            method: None,
            target: None,
            sent_target: None,
            version: None,
            user_agent: None,
            content_type: None,
            original_host: None,
            host: None,
            status,
            received: 0,
            sent: 0,
            taken: Duration::ZERO,
            answering: None,
            site: None,
            rule: None,
            pool: None,
            settings: None,
            backend: None,
            source_port: None,
            backend_status: None,
            backend_latency: None,
            error,
            transaction: Box::default(),
            tunnel: None,
        }
    }

    fn envelope(&self, most: usize) -> Envelope<'_> {
        Envelope {
            time_stamp: time(self.at),
            listener_name: self.site.as_deref(),
            rule_name: self.rule.as_deref(),
            backend_pool_name: self.pool.as_deref(),
            backend_setting_name: self.settings.as_deref(),
            operation_name: REQUEST,
            category: CATEGORY,
            properties: self.properties(most),
        }
    }

    fn properties(&self, most: usize) -> Properties<'_> {
        let [ssl_protocol, ssl_cipher] = match self.session {
            Some(names) => names.map(Some),
            None => [None; 2],
        };
        let sent = self.sent_target.as_ref().or(self.target.as_ref());
        Properties {
            http_method: shown(self.method.as_ref(), most),
            original_request_uri_with_args: shown(self.target.as_ref(), most),
            request_uri: sent.map(|target| target.path(most)),
            request_query: sent.and_then(|target| target.query(most)),
            user_agent: shown(self.user_agent.as_ref(), most),
            http_status: Some(self.status),
            http_version: self.version,
            received_bytes: self.received,
            sent_bytes: self.sent,
            client_response_time: self.answering.map(|it| it.as_secs_f64()),
            time_taken: self.taken.as_secs_f64(),
            transaction_id: &self.transaction,
            ssl_enabled: Some(if self.tls { "on" } else { "off" }),
            ssl_cipher,
            ssl_protocol,
            ssl_client_verify: self.verification.as_deref(),
            ssl_client_certificate_fingerprint: shown(self.fingerprint.as_ref(), most),
            ssl_client_certificate_issuer_name: shown(self.issuer.as_ref(), most),
            server_routed: self.backend.as_deref(),
            server_status: self.backend_status.map(|status| status.to_string()),
            server_response_latency: self
                .backend_latency
                .map(|latency| format!("{:.3}", latency.as_secs_f64())),
            upstream_source_port: self.source_port.map(|port| port.to_string()),
            original_host: shown(self.original_host.as_ref(), most),
            host: shown(self.host.as_ref(), most),
            content_type: shown(self.content_type.as_ref(), most),
            error_info: Some(self.error),
            tunnel_id: self.tunnel.map(hex),
            ..Properties::of(self.client)
        }
    }
}

// === impl TunnelEnd ===

impl TunnelEnd {
    fn envelope(&self) -> Envelope<'_> {
        let [received_bytes, sent_bytes] = self.bytes;
        let [client_end, backend_end] = self.leg_ends;
        Envelope {
            time_stamp: time(self.at),
            listener_name: Some(&self.site),
            rule_name: None,
            backend_pool_name: Some(&self.pool),
            backend_setting_name: Some(&self.settings),
            operation_name: TUNNEL_END,
            category: CATEGORY,
            properties: Properties {
                received_bytes,
                sent_bytes,
                time_taken: self.duration.as_secs_f64(),
                transaction_id: &self.transaction,
                server_routed: Some(&self.backend),
                tunnel_id: Some(hex(self.id)),
                tunnel_end_cause: Some(self.cause),
                tunnel_client_end: Some(client_end),
                tunnel_backend_end: Some(backend_end),
                ..Properties::of(self.client)
            },
        }
    }
}

// === impl Properties ===

impl Properties<'_> {
    fn of(client: SocketAddr) -> Self {
        Self {
            instance_id: instance(),
            client_ip: client.ip().to_canonical().to_string(),
            client_port: client.port(),
            ..Self::default()
        }
    }
}

fn shown(text: Option<&Text>, most: usize) -> Option<Shown<'_>> {
    text.map(|text| text.shown(most))
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// RFC 3339, to the millisecond.
fn time(at: SystemTime) -> String {
    match jiff::Timestamp::try_from(at) {
        Ok(at) => format!("{at:.3}"),
        // A clock that is thousands of years off.
        Err(_) => "1970-01-01T00:00:00.000Z".to_owned(),
    }
}

/// This host's name, to tell the lines of several gateways apart.
fn instance() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        nix::unistd::gethostname()
            .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
    })
}

#[cfg(test)]
mod tests;
