//! One client connection: HTTP/1.1 by hyper, the deadlines that hyper does not know, and a proper end.
//!
//! ```text
//! idle ──first byte──> head ──request──> busy ──answer written──> idle        (no deadline while busy: forward's)
//!   keep-alive over: close      header timeout: 408        any time, answer not taken: reset
//! ```
//!
//! # Invariants
//! - Nothing of ours is written while an answer is still on its way: only a flushed, idle connection hears a 408.
//! - While draining, a connection ends after an answer that said `Connection: close`, or when its keep-alive time is
//!   over; never just because of the drain.
//! - A tunnel begins only from here, after hyper has let go of the client.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::access_log::AccessLog;
use crate::drain::Drain;
use crate::fault::{Fault, FaultKind};
use crate::gate::{Gate, GateHandle};
use crate::headers::Hop;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::pool::dedicated::Dedicated;
use crate::pool::reuse::Idle;
use crate::respond::{self, BoxBody};
use crate::revocation::Revocation;
use crate::rewrite::facts::Session;
use crate::snapshot::{Current, Limits};
use crate::tls::client_auth::Verdict;
use crate::tls::profile::ClientIdentity;
use crate::tunnel::Tunnels;

mod admittance;
mod body;
mod clock;
pub mod explain;
mod forward;
pub(crate) mod h2;
pub(crate) mod linger;
mod measure;
pub(crate) mod note;
mod opening;
mod outbound;
mod returning;
mod rewritten;
mod service;
#[cfg(test)]
mod tests;
mod watch;

use clock::{Clock, Expiry, Observation};
use note::Note;
use opening::PendingTunnel;
use watch::Watch;

/// Smallest read buffer that hyper takes.
const LEAST_BUFFER: usize = 8 * 1024;
/// How far beyond the limit hyper still reads a header, so that it is refused by a page that says what is too long.
/// Beyond that hyper refuses by itself, and gets the page from [`finish`].
const HEADER_LEEWAY: usize = 64 * 1024;
/// Most header lines of a request. With Azure's 32 KiB of headers, more lines than this are an attack.
const MOST_HEADERS: usize = 256;

/// What every connection of this process shares.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The table and the health in force.
    pub(crate) current: Arc<Current>,
    /// Whether new work is refused.
    pub(crate) drain: Drain,
    /// HTTP's counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Connections to backends that wait for their next request.
    pub(crate) idle: Arc<Idle<BoxBody>>,
    /// A line for each request.
    pub(crate) access_log: Arc<AccessLog>,
    /// Which certificates of clients were revoked.
    pub(crate) revocation: Revocation,
    /// Live tunnels and their engine.
    pub(crate) tunnels: Arc<Tunnels>,
}

/// The two ends of a client connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The client's address.
    pub(crate) client: SocketAddr,
    /// The address that it dialled.
    pub(crate) local: SocketAddr,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
}

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Conversation {
    shared: Arc<Shared>,
    peer: Peer,
    /// What the TLS handshake has settled, with TLS.
    session: Option<Session>,
    /// Who the client has shown to be, where it was asked.
    identity: Option<Arc<ClientIdentity>>,
    gate: GateHandle,
    /// Bytes of uploads, and over HTTP/2 of all that requests are about.
    carried: Arc<AtomicU64>,
    broken: AtomicBool,
    /// Its client must shake hands anew to be served.
    to_end: AtomicBool,
    /// The connection itself, from the last request that wanted it upgraded.
    upgrade: Mutex<Option<OnUpgrade>>,
    tunnel: Mutex<Option<PendingTunnel>>,
    /// What backends are told of it; made when first asked for.
    hop: OnceLock<Hop>,
    /// Of the request that waits for its backend; another one beside it has its own.
    patience: Mutex<Watch>,
    /// Backend connections that nobody else may use; made when first asked for.
    own: OnceLock<Arc<Dedicated<BoxBody>>>,
}

/// Counts one request as in flight until its answer's body is gone.
#[derive(Debug)]
pub(crate) struct RequestInFlight {
    conversation: Arc<Conversation>,
    /// Only the connection's end tells where the answer ends (RFC 9112 section 6.3, item 8).
    ends_by_close: bool,
    /// What the access log will say of it.
    note: Note,
}

// === impl Shared ===

impl Shared {
    /// Whether this listener's sites speak TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.current.load().table.router.serves_tls()
    }

    /// The whole answer to a fault that no request stands behind, as bytes; counts it.
    pub(crate) fn last_words(&self, fault: &Fault) -> Vec<u8> {
        self.metrics.count_request(respond::status(fault.kind));
        self.metrics.count_refusal(fault.kind);
        let table = &self.current.load().table;
        respond::raw_fault(fault, table.hide_server_header, table.pages.of(None))
    }
}

// === impl Conversation ===

impl Conversation {
    fn new(
        shared: Arc<Shared>,
        peer: Peer,
        session: Option<Session>,
        identity: Option<Arc<ClientIdentity>>,
        gate: GateHandle,
    ) -> Self {
        Self {
            shared,
            peer,
            session,
            identity,
            gate,
            carried: Arc::default(),
            broken: AtomicBool::new(false),
            to_end: AtomicBool::new(false),
            upgrade: Mutex::new(None),
            tunnel: Mutex::new(None),
            hop: OnceLock::new(),
            patience: Mutex::default(),
            own: OnceLock::new(),
        }
    }

    /// Protocol and cipher of the client's TLS, as logs name them.
    fn session_names(&self) -> Option<[&'static str; 2]> {
        self.session.as_ref().map(|session| [session.protocol, session.cipher])
    }

    /// What is known of the client's certificate without asking a responder, with TLS.
    fn verdict(&self) -> Option<Verdict> {
        let identity = self.identity.as_deref();
        identity.map_or(self.peer.tls.then_some(Verdict::None), ClientIdentity::verdict)
    }

    fn hop(&self) -> &Hop {
        let Peer { client, local, tls } = self.peer;
        self.hop.get_or_init(|| Hop::new(client, tls, local.port()))
    }

    /// Has the connection end after what it does now.
    fn end_soon(&self) {
        self.to_end.store(true, Ordering::Relaxed);
    }

    fn is_to_end(&self) -> bool {
        self.to_end.load(Ordering::Relaxed)
    }

    fn begin_request(self: &Arc<Self>) -> RequestInFlight {
        self.gate.begin_answer();
        RequestInFlight { conversation: self.clone(), ends_by_close: false, note: Note::default() }
    }

    fn observe(&self) -> Observation {
        Observation {
            read: self.gate.read(),
            written: self.gate.written(),
            flushed: self.gate.is_flushed(),
            busy: self.gate.is_answering(),
        }
    }

    fn upgrade(&self) -> std::sync::MutexGuard<'_, Option<OnUpgrade>> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tunnel(&self) -> std::sync::MutexGuard<'_, Option<PendingTunnel>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RequestInFlight ===

impl RequestInFlight {
    /// The answer broke off: where its framing does not show it, the connection must not end as if it were whole.
    fn broke(&self) {
        self.note.broke_off();
        self.conversation.broken.fetch_or(self.ends_by_close, Ordering::Relaxed);
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.conversation.gate.end_answer();
    }
}

/// How hyper's part of a connection came to its end.
#[derive(Debug)]
enum End {
    Hyper(hyper::Result<()>),
    Expired(Expiry),
}

/// What the client's TLS has settled, with TLS.
fn session_of(io: &Link) -> Option<Session> {
    let (protocol, cipher) = io.negotiated()?;
    Some(Session { protocol, cipher, fingerprint: io.fingerprint(), certificate: None })
}

/// Serves one client until it leaves, is told to, or becomes a tunnel's.
pub(crate) async fn serve(io: Link, peer: Peer, shared: Arc<Shared>) {
    let limits = shared.current.load().table.limits.clone();
    let (session, identity) = (session_of(&io), io.identity());
    let (gate, handle) = Gate::new(io);
    let conversation = Arc::new(Conversation::new(shared, peer, session, identity, handle));
    let asked = conversation.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        // Counted here and not in the future: it may be polled for the first time much later.
        let in_flight = asked.begin_request();
        let asked = asked.clone();
        async move { Ok::<_, Infallible>(service::answer(request, &asked, in_flight).await) }
    });
    let mut connection =
        builder(&limits).serve_connection(TokioIo::new(gate), service).with_upgrades();

    let mut clock = Clock::new(&limits, Instant::now());
    let mut watch = Watch::default();
    let end = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Hyper(ended));
        }
        let Some((at, expiry)) = clock.deadline(conversation.observe(), Instant::now) else {
            return Poll::Pending;
        };
        ready!(watch.poll(at, cx));
        Poll::Ready(End::Expired(expiry))
    })
    .await;
    match connection.into_parts() {
        Some(parts) => finish(parts.io.into_inner(), end, &conversation).await,
        None => {
            if let Some(gate) = opening::begin(&conversation).await {
                finish(gate, End::Hyper(Ok(())), &conversation).await;
            }
        }
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Our clock knows what hyper's does not: what is flushed, what is idle, what to say. As nginx does, a client's
    // FIN in the middle of its request ends the request: nobody is there to read the answer, most likely.
    builder.header_read_timeout(None::<Duration>).half_close(false).max_headers(MOST_HEADERS);
    let most = limits.max_header_bytes;
    if most != usize::MAX {
        let most = most.saturating_add(HEADER_LEEWAY);
        builder.max_header_size(most).max_buf_size(most.saturating_mul(2).max(LEAST_BUFFER));
    }
    builder
}

async fn finish(gate: Gate, end: End, conversation: &Conversation) {
    let client = conversation.peer.client;
    let (io, kept_back) = gate.into_parts();
    match end {
        End::Expired(Expiry::Head) => {
            refuse(io, &Fault::new(FaultKind::RequestTimeout), conversation).await;
        }
        End::Expired(Expiry::Idle) => linger::close(io).await,
        End::Expired(Expiry::Stalled) => {
            tracing::debug!(%client, "client does not take its answer");
            linger::abort(io);
        }
        End::Hyper(ended) => {
            let mut refused = None;
            if let Err(error) = ended {
                refused = error.is_parse().then(|| refusal(&error, &kept_back));
                let error: &dyn std::error::Error = &error;
                tracing::debug!(%client, error, "client connection ended early");
            }
            if conversation.broken.load(Ordering::Relaxed) {
                linger::abort(io);
            } else if let Some(fault) = refused {
                // hyper says nothing to HTTP/2, and where an answer may stand half said, nothing must follow it.
                if kept_back.is_empty() && conversation.gate.written() != 0 {
                    conversation.shared.metrics.count_request(respond::status(fault.kind));
                    note_unrouted(&fault, conversation);
                    conversation.shared.metrics.count_refusal(fault.kind);
                    linger::close(io).await;
                } else {
                    refuse(io, &fault, conversation).await;
                }
            } else {
                linger::close(io).await;
            }
        }
    }
}

/// The fault behind hyper's own refusal. Its errors do not tell a long target from a long header; its answer does.
fn refusal(error: &hyper::Error, kept_back: &[u8]) -> Fault {
    match kept_back.get("HTTP/1.1 ".len()..) {
        Some(rest) if rest.starts_with(b"414 ") => Fault::new(FaultKind::UriTooLong),
        _ => Fault::of_client(error),
    }
}

fn note_unrouted(fault: &Fault, conversation: &Conversation) {
    let Conversation { shared, peer, .. } = conversation;
    note::unrouted(&shared.access_log, peer.client, Some(conversation), fault);
}

/// Says what hyper cannot: the page of a fault that no request stands behind.
async fn refuse(io: Link, fault: &Fault, conversation: &Conversation) {
    note_unrouted(fault, conversation);
    let page = conversation.shared.last_words(fault);
    linger::say_and_close(io, &page).await;
}
