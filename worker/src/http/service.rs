//! One request, from hyper to its answer: validate, route, act, answer. Every branch of a request is here.
//!
//! Nothing here touches a socket; a fault of any kind becomes an answer in one place, by `respond`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONNECTION, SERVER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::fault::{Fault, FaultKind};
use crate::headers;
use crate::http::body::{Reply, RequestBody};
use crate::http::forward::{Answer, Errand};
use crate::http::opening::PendingTunnel;
use crate::http::{Conversation, RequestInFlight};
use crate::pool::Binding;
use crate::respond;
use crate::route::{Action, Redirect, Routed};
use crate::snapshot::Serving;
use crate::tunnel::TunnelFacts;
use crate::websocket::Opening;

/// Answers one request. It never fails: a fault is an answer too.
pub(super) async fn answer(
    request: Request<Incoming>,
    conversation: &Arc<Conversation>,
    in_flight: RequestInFlight,
) -> Response<Reply> {
    let serving = conversation.shared.current.load();
    let hide_server = serving.table().hide_server_header();
    let line = (request.method().clone(), request.uri().clone());
    let mut response = act(request, conversation, &serving).await.unwrap_or_else(|fault| {
        tracing::debug!(client = %conversation.peer.client, %fault, "request failed");
        respond::fault(&fault, hide_server).map(Reply::page)
    });
    let status = response.status();
    // Looked at as late as possible: an answer that leaves after the drain began must be the last one.
    if conversation.shared.drain.is_begun() && status != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    conversation.shared.metrics.count_request(status);
    let (method, target) = line;
    tracing::debug!(client = %conversation.peer.client, %method, %target, %status, "answered");
    response.map(|reply| reply.hold(in_flight))
}
