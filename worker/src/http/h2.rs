//! One client connection over HTTP/2 (RFC 9113): the streams by hyper, the budgets and deadlines that it does not know,
//! and a proper end.
//!
//! ```text
//! idle ──request──> busy ──last answer taken──> idle        busy: a stream whose client takes nothing is reset
//!   idle too long, a drain, enough requests: GOAWAY, and the end when the streams that there are have ended
//!   a budget overdrawn (resets, frames that carry nothing, h2's own): the connection is reset
//! ```
//!
//! Requests are answered by `service`, as those of HTTP/1.1 are: nothing is decided here that depends on what a request says.
//! A client that misbehaves costs its own connection, and nobody else's.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::gate::Gate;
use crate::http::watch::Watch;
use crate::http::{Conversation, Peer, Shared, linger, service};
use crate::link::Link;

mod clock;
mod connect;
mod request;
mod streams;

pub(super) use connect::ByConnect;
pub(super) use request::make_http1;

use clock::{Clock, Expiry};
use connect::Bootstrap;
use streams::Streams;

/// Streams at once of one connection: what browsers were tuned to, and nginx's bound is near.
const MOST_STREAMS: u32 = 128;
/// Requests of one connection, as Azure has it; then it is closed, and the client opens another.
const MOST_REQUESTS: u64 = 1000;
/// All fields of a request (Azure: 16 KB), counted as RFC 9113 section 6.5.2 does. hyper answers more with 431.
const MOST_FIELDS: u32 = 16 * 1024;
/// What a client may send of one body before the backend has taken it.
const STREAM_WINDOW: u32 = 64 * 1024;
/// And of all bodies of a connection.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// What waits of one answer for a client with room for it.
const SEND_BUFFER: usize = 64 * 1024;
/// After a GOAWAY, how long a client without a stream may stay.
const LEAVING: Duration = Duration::from_secs(5);

/// How the connection came to its end.
enum End {
    Hyper(hyper::Result<()>),
    Stalled,
    Overdrawn(&'static str),
    /// It did not leave when it was told to.
    Stays,
}

/// Serves one client until it leaves or is told to.
pub(crate) async fn serve(io: Link, peer: Peer, shared: Arc<Shared>) {
    let (mut clock, websockets) = terms(&shared);
    let (session, identity) = (super::session_of(&io), io.identity());
    let (mut gate, handle) = Gate::open_to_all(io);
    let conversation = Arc::new(Conversation::new(shared, peer, session, identity, handle));
    let streams = Streams::new(conversation.carried.clone());
    let service = service_fn({
        let (conversation, streams) = (conversation.clone(), streams.clone());
        move |mut request: http::Request<Incoming>| {
            // Counted here and not in the future: it may be polled for the first time much later.
            let in_flight = conversation.begin_request();
            let begun = streams.begin(request.headers(), !request.body().is_end_stream());
            let bootstrap = Bootstrap::of(&mut request, websockets);
            let conversation = conversation.clone();
            async move {
                let response = match bootstrap {
                    // Boxed: it is rare, and each request's task would have room for it.
                    Some(bootstrap) => {
                        Box::pin(bootstrap.answer(request, &conversation, in_flight)).await
                    }
                    None => service::answer(request, &conversation, in_flight).await,
                };
                Ok::<_, Infallible>(response.map(|reply| begun.answer(reply)))
            }
        }
    });
    // Borrowed: h2 would drop it as soon as it is done with it, and that may be too early for the client.
    let io = TokioIo::new(&mut gate);
    let end = {
        let mut connection = pin!(builder(&streams, websockets).serve_connection(io, service));
        let mut drain = pin!(conversation.shared.drain.begun());
        let mut alarm = pin!(streams.alarm());
        let mut watch = Watch::default();
        let mut leaving = false;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(End::of(ended));
                }
                if alarm.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(End::Overdrawn("more requests are reset than answered"));
                }
                if streams.carries_nothing(conversation.gate.read()) {
                    return Poll::Ready(End::Overdrawn("frames carry nothing"));
                }
                let told = !leaving
                    && (streams.begun() >= MOST_REQUESTS
                        || conversation.is_to_end()
                        || drain.as_mut().poll(cx).is_ready());
                if !told {
                    let seen = conversation.observe();
                    let Some((at, expiry)) = clock.deadline(seen, leaving, Instant::now) else {
                        return Poll::Pending;
                    };
                    ready!(watch.poll(at, cx));
                    match expiry {
                        Expiry::Stalled => return Poll::Ready(End::Stalled),
                        Expiry::Left => return Poll::Ready(End::Stays),
                        Expiry::Idle => {}
                    }
                }
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        })
        .await
    };
    finish(gate, &end, &conversation).await;
}

/// What is in force when a connection begins: its deadlines, and whether it may carry `WebSockets`.
fn terms(shared: &Shared) -> (Clock, bool) {
    let serving = shared.current.load();
    (Clock::new(&serving.table.limits, Instant::now()), serving.table.websockets_over_http2)
}

fn builder(streams: &Streams, websockets: bool) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(MOST_FIELDS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    if websockets {
        builder.enable_connect_protocol();
    }
    builder
}

/// Ends the connection as its client deserves: one that may still be reading is let read to the end.
async fn finish(gate: Gate, end: &End, conversation: &Conversation) {
    let client = conversation.peer.client;
    let (io, _) = gate.into_parts();
    match end {
        End::Hyper(ended) => {
            if let Err(error) = ended {
                let error: &dyn std::error::Error = error;
                tracing::debug!(%client, error, "client connection ended early");
            }
            linger::close(io).await;
        }
        End::Stays => {
            tracing::debug!(%client, "client did not leave");
            linger::close(io).await;
        }
        End::Stalled => {
            tracing::debug!(%client, "client does not take its answers");
            linger::abort(io);
        }
        End::Overdrawn(why) => {
            conversation.shared.metrics.count_overdrawn();
            tracing::info!(%client, why, "an HTTP/2 connection is cut off");
            linger::abort(io);
        }
    }
}

// === impl End ===

impl End {
    /// What hyper says of it. h2 has budgets of its own, of what a client may have it do for nothing.
    fn of(ended: hyper::Result<()>) -> Self {
        let cause = ended.as_ref().err().and_then(|error| error.source()?.downcast_ref());
        let overdrawn = |cause: &h2::Error| {
            cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
        };
        if cause.is_some_and(overdrawn) {
            return Self::Overdrawn("h2 has had enough of it");
        }
        Self::Hyper(ended)
    }
}
