//! One request to a backend and its answer back: which connection, how often, how long.
//!
//! # Invariants
//! - A request is sent again only when no backend can have begun it: the dial failed, or hyper gave the request back,
//!   or it is idempotent, has no body, and a kept connection died before the first byte of an answer.
//! - A backend connection that saw an upgrade attempt is never used for another client's request.
//! - A backend's time runs only while it is the backend's turn: a slow upload is the client's time.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Response, Version, request};
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::http::body::{BackendReply, Reply, Upload};
use crate::http::note::Note;
use crate::http::returning::{Keep, Returning};
use crate::http::watch::Watch;
use crate::load::Held;
use crate::metrics::Metrics;
use crate::pool::connect::exhaustion_is_news;
use crate::pool::dedicated::Dedicated;
use crate::pool::reuse::{Idle, Key, dial_http};
use crate::pool::rotation::{MOST_TRIES, Preference};
use crate::pool::sender;
use crate::pool::{Backend, Binding};
use crate::respond::{self, BoxBody};
use crate::snapshot::Serving;

/// A backend's half of an HTTP/1.1 connection, to send on.
type Sender = sender::Sender<BoxBody>;

/// One request on its way to a pool.
pub(super) struct Errand<'a> {
    /// What is served, pinned for this request.
    pub(super) serving: &'a Serving,
    /// The pool and its settings.
    pub(super) binding: &'a Binding,
    /// Its index in the table.
    pub(super) index: usize,
    /// HTTP's counters.
    pub(super) metrics: &'a Metrics,
    /// Connections that wait for a request.
    pub(super) idle: &'a Arc<Idle<BoxBody>>,
    /// With a binding that asks for it: the connections of this client's connection, instead of those.
    pub(super) own: Option<&'a Arc<Dedicated<BoxBody>>>,
    /// Which backend is preferred, if any.
    pub(super) preference: Preference<'a>,
    /// The request as every backend gets it, but for its own host.
    pub(super) head: &'a request::Parts,
    /// The Host that the client sent, or that a rewrite has written.
    pub(super) client_host: &'a HeaderValue,
    /// The Host that a rewrite has written; it goes before the settings' own.
    pub(super) host: Option<&'a HeaderValue>,
    /// The client's body.
    pub(super) upload: &'a Upload,
    /// What the access log will say of it.
    pub(super) note: &'a Note,
    /// The client's connection lends it to one request at a time.
    pub(super) watch: &'a Mutex<Watch>,
    /// Whether this is an opening handshake: then the connection is new and never kept, but for the client's own.
    pub(super) upgrade: bool,
}

/// A backend's answer, head only.
pub(super) struct Answer {
    /// The answer; its body is still to come.
    pub(super) response: Response<Incoming>,
    /// Who gave it.
    pub(super) backend: Arc<Backend>,
    /// The backend has the request in hand until its answer has come whole.
    pub(super) held: Held,
    key: Key,
    sender: Sender,
}

/// Why a backend has not answered.
enum Setback {
    /// It has not begun: another may.
    NotTaken(Option<BoxBody>, Fault),
    /// It may have begun.
    Final(Fault),
}

// === impl Errand ===

impl Errand<'_> {
    /// Sends the request to the pool's backends in their rotation until one answers.
    pub(super) async fn send(&self, body: BoxBody) -> Result<Answer, Fault> {
        let mut body = Some(body);
        let mut last = Fault::new(FaultKind::NoBackend);
        let candidates = self.serving.candidates(self.index, &self.preference);
        for (tried, backend) in candidates.take(MOST_TRIES).enumerate() {
            if tried != 0 {
                self.metrics.count_retry(&backend.pool);
            }
            match self.ask(&backend, body.take()).await {
                Ok(answer) => {
                    self.note.backend_answered(answer.response.status());
                    return Ok(answer);
                }
                Err(Setback::Final(fault)) => return Err(fault),
                Err(Setback::NotTaken(returned, fault)) => {
                    tracing::debug!(backend = backend.label(), %fault, "backend passed over");
                    body = returned;
                    last = fault;
                }
            }
        }
        Err(last)
    }

    /// One backend: a kept connection if there is one, else a new one.
    async fn ask(
        &self,
        backend: &Arc<Backend>,
        mut body: Option<BoxBody>,
    ) -> Result<Answer, Setback> {
        let mut asked = Instant::now();
        self.note.tried(backend, asked);
        let client_host = self.client_host.to_str().unwrap_or_default();
        let key = Key::new(self.binding, backend, client_host);
        let patience = self.serving.table.limits.connect_timeout;
        let kept = match self.own {
            Some(own) => {
                let kept = own.take(&key, patience).await;
                // It may have had to wait for its last answer.
                asked = Instant::now();
                kept
            }
            None if self.upgrade => None,
            None => self.idle.take(&key, asked),
        };
        if let Some(sender) = kept {
            let held = backend.load.hold();
            match self.deliver(backend, &key, sender, body, held, Some(asked)).await {
                Err(Setback::NotTaken(returned, _)) => {
                    self.metrics.count_retry(&backend.pool);
                    body = returned;
                }
                settled => return settled,
            }
        }
        // A backend that does not answer has its dials in hand: it must not look idle.
        let held = backend.load.hold();
        let dialled = Instant::now();
        // Boxed: most requests find a connection, and each one's task would have room for it.
        let dial = Box::pin(dial_http(self.binding, backend, client_host, patience));
        match dial.await {
            Ok(sender) => {
                self.note.connected(dialled.elapsed());
                self.deliver(backend, &key, sender, body, held, None).await
            }
            Err(error) => {
                self.metrics.count_connect_failure(&backend.pool);
                let fault = error.fault();
                let exhausted = fault.kind == FaultKind::Busy;
                let error: &dyn std::error::Error = &error;
                if exhausted && exhaustion_is_news() {
                    tracing::warn!(
                        error,
                        "out of descriptors, memory or ports: requests are answered 503"
                    );
                } else {
                    tracing::debug!(error, "cannot reach a backend");
                }
                Err(Setback::NotTaken(body, fault))
            }
        }
    }

    /// One request on one connection, until the head of its answer. `kept`: since when the connection, which has carried
    /// other requests, is this one's.
    async fn deliver(
        &self,
        backend: &Arc<Backend>,
        key: &Key,
        mut sender: Sender,
        body: Option<BoxBody>,
        held: Held,
        kept: Option<Instant>,
    ) -> Result<Answer, Setback> {
        let replayable = body.as_ref().is_none_or(Body::is_end_stream);
        let body = body.unwrap_or_else(respond::empty);
        let mut request = Request::from_parts(self.head.clone(), body);
        let own = || self.binding.host_for(backend, self.client_host);
        let host = self.host.cloned().unwrap_or_else(own);
        self.note.sent_host(&host);
        request.headers_mut().insert(HOST, host);
        self.note.sent_from(sender.source_port());
        let sent = pin!(sender.try_send_request(request));
        let since = kept.unwrap_or_else(Instant::now);
        match self.within_patience(sent, since).await.map_err(Setback::Final)? {
            Ok(mut response) => {
                // RFC 9110, 2.5: a version is its hop's. Under a backend's HTTP/1.0 hyper would also leave the end of
                // a body without length to the connection's end, and a broken one would look whole.
                *response.version_mut() = Version::HTTP_11;
                let (backend, key) = (backend.clone(), key.clone());
                Ok(Answer { response, backend, held, key, sender })
            }
            Err(mut failed) => {
                let returned = failed.take_message().map(Request::into_body);
                let error = failed.into_error();
                let fault = self.upload.failure().unwrap_or_else(|| Fault::of_backend(&error));
                let again = kept.is_some()
                    && replayable
                    && self.head.method.is_idempotent()
                    && died(&error);
                if returned.is_some() || again {
                    Err(Setback::NotTaken(returned, fault))
                } else {
                    Err(Setback::Final(fault))
                }
            }
        }
    }

    /// Waits for the backend, which has been asked `since` then, while it is its turn.
    async fn within_patience<T>(
        &self,
        mut work: Pin<&mut impl Future<Output = T>>,
        since: Instant,
    ) -> Result<T, Fault> {
        let patience = self.binding.request_timeout;
        let mut due = since + patience;
        let lent = || self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watch = std::mem::take(&mut *lent());
        let outcome = poll_fn(|cx| {
            loop {
                if let Poll::Ready(done) = work.as_mut().poll(cx) {
                    return Poll::Ready(Ok(done));
                }
                ready!(watch.poll(due, cx));
                let now = Instant::now();
                due = match self.upload.backend_owes_since() {
                    Some(since) if since + patience <= now => {
                        return Poll::Ready(Err(Fault::new(FaultKind::BackendTimeout)));
                    }
                    Some(since) => since + patience,
                    None => now + patience,
                };
            }
        })
        .await;
        *lent() = watch;
        outcome
    }
}

// === impl Answer ===

impl Answer {
    /// The answer with its body on its way; the connection is kept for another request when the body has come whole.
    pub(super) fn into_response(self, patience: Duration, keep: Option<Keep>) -> Response<Reply> {
        let Self { response, backend, held, key, sender } = self;
        let returning = Returning { backend, held, key, sender, keep };
        response.map(|body| Reply::Backend(Box::new(BackendReply::new(body, patience, returning))))
    }
}

/// Whether the connection ended without an answer's head. Which of these it is depends on how far the backend's FIN or
/// reset had come when the request was written.
fn died(error: &hyper::Error) -> bool {
    let torn = || {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        cause.is_some_and(|cause| {
            matches!(
                cause.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            )
        })
    };
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || torn()
}
