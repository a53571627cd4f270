//! What the access log will say of a request: noted as it happens, written when the request is over, however that comes.
//! What happens is passed on to its measure, for the metrics, log or no log.
//!
//! A note that is dropped before an answer was given is a client that has left.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::Conversation;
use super::body::Upload;
use super::measure::Measure;
use super::outbound::target_of;
use crate::access_log::{self, AccessLog, Line, Text};
use crate::fault::{Fault, FaultKind};
use crate::headers::TraceId;
use crate::pool::{Backend, Binding};
use crate::respond;
use crate::route::Site;
use crate::snapshot::Serving;
use crate::tls::client_auth::Verdict;
use crate::tls::profile::ClientIdentity;

/// nginx's status of a request whose client has left before its answer began; Azure logs it, too.
const CLIENT_LEFT: u16 = 499;
const NO_ERROR: &str = "ERRORINFO_NO_ERROR";
const CLIENT_CLOSED: &str = "ERRORINFO_CLIENT_CLOSED_REQUEST";
const BACKEND_CLOSED: &str = "ERRORINFO_UPSTREAM_CLOSED_CONNECTION";

/// A request's figures, and its entry in the log to be; empty where it gets none.
#[derive(Debug, Default)]
pub(crate) struct Note {
    measure: Option<Box<Measure>>,
    line: Option<Box<Mutex<Facts>>>,
}

#[derive(Debug)]
struct Facts {
    log: Arc<AccessLog>,
    client: SocketAddr,
    tls: bool,
    session: Option<[&'static str; 2]>,
    verdict: Option<Verdict>,
    identity: Option<Arc<ClientIdentity>>,
    began: Instant,
    method: Method,
    target: Uri,
    version: Version,
    user_agent: Option<HeaderValue>,
    original_host: Option<HeaderValue>,
    received_head: u64,
    upload: Option<Upload>,
    site: Option<Arc<str>>,
    rule: Option<Box<str>>,
    pool: Option<Arc<str>>,
    settings: Option<Arc<str>>,
    sent_target: Option<Uri>,
    sent_host: Option<HeaderValue>,
    transaction: Option<Box<str>>,
    backend: Option<(Arc<Backend>, Instant)>,
    source_port: Option<u16>,
    backend_answer: Option<(StatusCode, Instant)>,
    answer: Option<(StatusCode, Instant)>,
    content_type: Option<HeaderValue>,
    sent: u64,
    /// The answer's body has come to an end, a good one or not.
    ended: bool,
    error: &'static str,
    tunnel: Option<u64>,
}

// === impl Note ===

impl Note {
    /// Begins with what the client has said.
    pub(super) fn begin<B>(
        conversation: &Conversation,
        serving: &Serving,
        request: &Request<B>,
        began: Instant,
    ) -> Self {
        let log = &conversation.shared.access_log;
        let (headers, peer) = (request.headers(), conversation.peer);
        let target = request.uri();
        let line = request.method().as_str().len() + target_of(target).len();
        // Two spaces, the version, and the ends of two lines.
        let received_head = line as u64 + 14 + head_size(headers);
        let measure = Some(Box::new(Measure::begin(conversation, received_head, began)));
        if !log.takes() {
            return Self { measure, line: None };
        }
        let line = Some(Box::new(Mutex::new(Facts {
            log: log.clone(),
            client: serving.table.client_source.client_of(peer.client, headers),
            tls: peer.tls,
            session: conversation.session_names(),
            verdict: conversation.verdict(),
            identity: conversation.identity.clone(),
            began,
            method: request.method().clone(),
            target: target.clone(),
            version: request.version(),
            user_agent: headers.get(USER_AGENT).cloned(),
            original_host: headers.get(HOST).cloned(),
            received_head,
            upload: None,
            site: None,
            rule: None,
            pool: None,
            settings: None,
            sent_target: None,
            sent_host: None,
            transaction: None,
            backend: None,
            source_port: None,
            backend_answer: None,
            answer: None,
            content_type: None,
            sent: 0,
            ended: false,
            error: NO_ERROR,
            tunnel: None,
        })));
        Self { measure, line }
    }

    /// Whether the request gets a line.
    pub(super) fn is_taken(&self) -> bool {
        self.line.is_some()
    }

    fn measured(&self, note: impl FnOnce(&Measure)) {
        if let Some(measure) = &self.measure {
            note(measure);
        }
    }

    fn with(&self, note: impl FnOnce(&mut Facts)) {
        if let Some(facts) = &self.line {
            // Every field is valid by itself, whoever died while it held them.
            note(&mut facts.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Its body comes by that.
    pub(super) fn uploads(&self, upload: &Upload) {
        self.measured(|it| it.uploads(upload));
        self.with(|facts| facts.upload = Some(upload.clone()));
    }

    pub(super) fn routed(&self, site: &Site, rule: &str) {
        self.measured(|it| it.routed(site));
        self.with(|facts| (facts.site, facts.rule) = (Some(site.name.clone()), Some(rule.into())));
    }

    /// What came of looking at the client's certificate as the site does.
    pub(super) fn verified(&self, verdict: Verdict) {
        self.with(|facts| facts.verdict = Some(verdict));
    }

    /// It goes to a pool, with another target perhaps.
    pub(super) fn forwarded(&self, binding: &Binding, target: &Uri, trace_id: &TraceId) {
        self.measured(|it| it.forwarded(binding));
        self.with(|facts| {
            facts.pool = Some(binding.pool.clone());
            facts.settings = Some(binding.settings.clone());
            facts.sent_target = Some(target.clone());
            facts.transaction = Some(trace_id.as_str().into());
        });
    }

    /// A backend is turned to.
    pub(super) fn tried(&self, backend: &Arc<Backend>, now: Instant) {
        self.measured(|it| it.tried(now));
        self.with(|facts| {
            (facts.backend, facts.source_port) = (Some((backend.clone(), now)), None);
        });
    }

    /// On a connection to it from that port.
    pub(super) fn sent_from(&self, port: Option<u16>) {
        self.with(|facts| facts.source_port = port);
    }

    /// A new connection to it took so long.
    pub(super) fn connected(&self, taken: Duration) {
        self.measured(|it| it.connected(taken));
    }

    pub(super) fn sent_host(&self, host: &HeaderValue) {
        self.with(|facts| facts.sent_host = Some(host.clone()));
    }

    pub(super) fn backend_answered(&self, status: StatusCode) {
        self.measured(|it| it.backend_answered(status));
        self.with(|facts| facts.backend_answer = Some((status, Instant::now())));
    }

    /// It is answered by a page of ours.
    pub(super) fn failed(&self, fault: &Fault) {
        self.with(|facts| facts.error = error_info(fault.kind, &facts.method));
    }

    /// The head of its answer is with hyper.
    pub(super) fn answered<B>(&self, response: &Response<B>) {
        // `HTTP/1.1 200 `, the reason, the ends of two lines.
        let reason = response.status().canonical_reason().map_or(0, str::len);
        let head = 17 + reason as u64 + head_size(response.headers());
        self.measured(|it| it.answered(response.status(), head));
        self.with(|facts| {
            facts.answer = Some((response.status(), Instant::now()));
            facts.content_type = response.headers().get(CONTENT_TYPE).cloned();
            facts.sent = head;
        });
    }

    /// Bytes of the answer's body.
    pub(super) fn sent(&self, bytes: usize) {
        self.measured(|it| it.sent(bytes as u64));
        self.with(|facts| facts.sent += bytes as u64);
    }

    /// hyper has the whole answer.
    pub(super) fn whole(&self) {
        self.measured(Measure::whole);
        self.with(|facts| facts.ended = true);
    }

    /// The backend has not brought its answer to an end.
    pub(super) fn broke_off(&self) {
        self.with(|facts| (facts.ended, facts.error) = (true, BACKEND_CLOSED));
    }

    /// Takes it for a tunnel to be. Until that is open, the client has been answered nothing.
    pub(super) fn take_for_tunnel(&mut self) -> Self {
        let taken = std::mem::take(self);
        taken.measured(Measure::unanswered);
        taken.with(|facts| facts.answer = None);
        taken
    }

    /// The tunnel is open.
    pub(super) fn opened(self, tunnel: u64) {
        self.measured(Measure::opened);
        self.with(|facts| {
            facts.answer = Some((StatusCode::SWITCHING_PROTOCOLS, Instant::now()));
            facts.tunnel = Some(tunnel);
            facts.ended = true;
        });
    }
}

// === impl Facts ===

impl Facts {
    fn request(&mut self) -> access_log::Request {
        let now = Instant::now();
        let said = |value: &Option<HeaderValue>| value.as_ref().map(Text::new);
        let body = self.upload.as_ref().map_or(0, Upload::received);
        let left = self.answer.is_none() || !self.ended;
        let error = if left && self.error == NO_ERROR { CLIENT_CLOSED } else { self.error };
        let latency = |asked: &Instant, answered: &Instant| answered.duration_since(*asked);
        let certificate = self.identity.as_deref().and_then(ClientIdentity::certificate);
        let both = self.backend.as_ref().zip(self.backend_answer.as_ref());
        access_log::Request {
            tls: self.tls,
            session: self.session,
            verification: self.verdict.as_ref().map(Verdict::to_string),
            fingerprint: certificate.map(|it| Text::from(it.fingerprint.as_str())),
            issuer: certificate.map(|it| Text::from(it.issuer.as_str())),
            method: Some(Text::from(self.method.as_str())),
            target: Some(Text::new(target_of(&self.target))),
            sent_target: self.sent_target.as_ref().map(|target| Text::new(target_of(target))),
            version: Some(version(self.version)),
            user_agent: said(&self.user_agent),
            content_type: said(&self.content_type),
            original_host: match self.target.authority() {
                Some(authority) => Some(Text::from(authority.as_str())),
                None => said(&self.original_host),
            },
            host: said(&self.sent_host),
            received: self.received_head + body,
            sent: self.sent,
            taken: now.duration_since(self.began),
            answering: self.answer.map(|(_, since)| now.duration_since(since)),
            site: self.site.take(),
            rule: self.rule.take(),
            pool: self.pool.take(),
            settings: self.settings.take(),
            backend: self.backend.as_ref().map(|(backend, _)| backend.label()),
            source_port: self.source_port,
            backend_status: self.backend_answer.map(|(status, _)| status.as_u16()),
            backend_latency: both.map(|((_, asked), (_, answered))| latency(asked, answered)),
            transaction: self
                .transaction
                .take()
                .unwrap_or_else(|| TraceId::random().as_str().into()),
            tunnel: self.tunnel,
            ..access_log::Request::new(
                self.client,
                self.answer.map_or(CLIENT_LEFT, |(status, _)| status.as_u16()),
                error,
            )
        }
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        let request = self.request();
        self.log.write(Line::Request(Box::new(request)));
    }
}

/// Logs what never became a request: hyper refused it, it did not come in time, it spoke no TLS where it had to.
pub(crate) fn unrouted(
    log: &AccessLog,
    client: SocketAddr,
    conversation: Option<&Conversation>,
    fault: &Fault,
) {
    if log.takes() {
        let status = respond::status(fault.kind).as_u16();
        let error = error_info(fault.kind, &Method::GET);
        let identity = conversation.and_then(|it| it.identity.as_deref());
        let certificate = identity.and_then(ClientIdentity::certificate);
        log.write(Line::Request(Box::new(access_log::Request {
            tls: conversation.is_some_and(|it| it.peer.tls),
            session: conversation.and_then(Conversation::session_names),
            verification: conversation.and_then(Conversation::verdict).map(|it| it.to_string()),
            fingerprint: certificate.map(|it| Text::from(it.fingerprint.as_str())),
            issuer: certificate.map(|it| Text::from(it.issuer.as_str())),
            transaction: TraceId::random().as_str().into(),
            ..access_log::Request::new(client, status, error)
        })));
    }
}

/// As it stands on the wire: `: ` and the line's end.
fn head_size(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// Azure's word for what went wrong; two of our own where it has none.
fn error_info(kind: FaultKind, method: &Method) -> &'static str {
    if matches!(kind, FaultKind::BadRequest(reason) if reason.contains("Content-Length")) {
        return "ERRORINFO_INVALID_CONTENT_LENGTH";
    }
    match kind {
        FaultKind::NoSite | FaultKind::Misdirected | FaultKind::BadRequest("Host is not valid") => {
            "ERRORINFO_INVALID_HOST"
        }
        FaultKind::NoBackend | FaultKind::ConnectFailed => "ERRORINFO_UPSTREAM_NO_LIVE",
        FaultKind::BackendClosed | FaultKind::BackendProtocol => BACKEND_CLOSED,
        FaultKind::BackendTimeout => "ERRORINFO_UPSTREAM_TIMED_OUT",
        FaultKind::BadRequest("Host is missing") => "ERRORINFO_HTTP_NO_HOST_HEADER",
        FaultKind::BadRequest(_) | FaultKind::RequestTimeout | FaultKind::HeaderTooLarge => {
            "ERRORINFO_INVALID_REQUEST"
        }
        FaultKind::BodyTooLarge => "ERRORINFO_INVALID_CONTENT_LENGTH",
        FaultKind::UriTooLong => "ERRORINFO_REQUEST_URI_INVALID",
        FaultKind::MethodNotAllowed if *method == Method::TRACE => "ERRORINFO_INVALID_METHOD_TRACE",
        FaultKind::MethodNotAllowed => "ERRORINFO_INVALID_METHOD",
        FaultKind::HttpToHttps => "ERRORINFO_HTTP_TO_HTTPS_PORT",
        FaultKind::Internal | FaultKind::Rewrite(_) => "ERRORINFO_INTERNAL",
        FaultKind::NoClientCertificate | FaultKind::BadClientCertificate => {
            "ERRORINFO_HTTPS_NO_CERT"
        }
        FaultKind::Busy => "ERRORINFO_GATEWAY_BUSY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_azures_word_where_azure_has_one() {
        use FaultKind::{
            BackendClosed, BackendProtocol, BackendTimeout, BadClientCertificate, BadRequest,
            BodyTooLarge, Busy, ConnectFailed, HeaderTooLarge, HttpToHttps, Internal,
            MethodNotAllowed, Misdirected, NoBackend, NoClientCertificate, NoSite, RequestTimeout,
            Rewrite, UriTooLong,
        };
        for (kind, method, word) in [
            (BadRequest("any"), "GET", "INVALID_REQUEST"),
            (BadRequest("Host is missing"), "GET", "HTTP_NO_HOST_HEADER"),
            (BadRequest("Host is not valid"), "GET", "INVALID_HOST"),
            (BadRequest("POST without Content-Length"), "POST", "INVALID_CONTENT_LENGTH"),
            (BadRequest("Content-Length is not a number"), "PUT", "INVALID_CONTENT_LENGTH"),
            (BodyTooLarge, "PUT", "INVALID_CONTENT_LENGTH"),
            (NoSite, "GET", "INVALID_HOST"),
            (Misdirected, "GET", "INVALID_HOST"),
            (RequestTimeout, "GET", "INVALID_REQUEST"),
            (HeaderTooLarge, "GET", "INVALID_REQUEST"),
            (UriTooLong, "GET", "REQUEST_URI_INVALID"),
            (MethodNotAllowed, "TRACE", "INVALID_METHOD_TRACE"),
            (MethodNotAllowed, "CONNECT", "INVALID_METHOD"),
            (HttpToHttps, "GET", "HTTP_TO_HTTPS_PORT"),
            (NoClientCertificate, "GET", "HTTPS_NO_CERT"),
            (BadClientCertificate, "GET", "HTTPS_NO_CERT"),
            (NoBackend, "GET", "UPSTREAM_NO_LIVE"),
            (ConnectFailed, "GET", "UPSTREAM_NO_LIVE"),
            (BackendClosed, "GET", "UPSTREAM_CLOSED_CONNECTION"),
            (BackendProtocol, "GET", "UPSTREAM_CLOSED_CONNECTION"),
            (BackendTimeout, "GET", "UPSTREAM_TIMED_OUT"),
            (Internal, "GET", "INTERNAL"),
            (Rewrite("any"), "GET", "INTERNAL"),
            (Busy, "GET", "GATEWAY_BUSY"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(error_info(kind, &method), format!("ERRORINFO_{word}"), "{kind:?}");
        }
    }
}
