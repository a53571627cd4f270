//! What becomes of a connection that hyper gives up as upgraded: a tunnel, if a verified 101 was its last answer.
//!
//! hyper does so for every connection whose last wish was an upgrade, whatever it was answered. So one without a 101
//! comes back to be ended like any other: dropped here, it would reset under its answer.

use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::gate::Gate;
use crate::http::Conversation;
use crate::http::note::Note;
use crate::load::Held;
use crate::tunnel::{TunnelFacts, TunnelId};
use crate::websocket;

/// A handshake that both sides have agreed on.
#[derive(Debug)]
pub(super) struct PendingTunnel {
    /// The backend's side.
    pub(super) backend: OnUpgrade,
    /// What is known of it.
    pub(super) facts: TunnelFacts,
    /// A cookie has led it to a backend that is drained.
    pub(super) lingers: bool,
    /// Counted with its backend until the tunnel is.
    pub(super) held: Held,
    /// What the access log will say of the handshake.
    pub(super) note: Note,
}

/// Begins the tunnel that the last request of this connection asked for, or gives the connection back.
pub(super) async fn begin(conversation: &Conversation) -> Option<Gate> {
    let client = conversation.upgrade().take()?;
    let Some(pending) = conversation.tunnel().take() else { return reclaim(client).await };
    let PendingTunnel { backend, facts, lingers, held, note } = pending;
    let (peer, trace_id) = (facts.client, facts.trace_id.clone());
    let tunnels = &conversation.shared.tunnels;
    let gate = conversation.gate.clone();
    match websocket::begin(client, gate, backend, facts, held, tunnels).await {
        Ok(id) => {
            tell(conversation, id, note, lingers);
            tracing::debug!(tunnel = id, client = %peer, %trace_id, "tunnel begun");
        }
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(client = %peer, %trace_id, error, "no tunnel came about");
        }
    }
    None
}

/// Tells of a tunnel that has opened, whichever way: from now on the 101 counts as said.
pub(super) fn tell(conversation: &Conversation, id: TunnelId, note: Note, lingers: bool) {
    let shared = &conversation.shared;
    note.opened(id);
    shared.metrics.count_request(StatusCode::SWITCHING_PROTOCOLS);
    if lingers {
        shared.current.note_lingering();
    }
}

/// hyper has let go of the connection already, so this does not wait.
async fn reclaim(client: OnUpgrade) -> Option<Gate> {
    match client.await {
        Ok(upgraded) => Some(upgraded.downcast::<TokioIo<Gate>>().ok()?.io.into_inner()),
        Err(error) => {
            tracing::debug!(%error, "a connection did not come back");
            None
        }
    }
}
