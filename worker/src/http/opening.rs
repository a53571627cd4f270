//! From a verified 101 to a tunnel: what the service leaves behind for the moment when hyper lets go of the client.

use hyper::upgrade::OnUpgrade;

use crate::http::Conversation;
use crate::tunnel::TunnelFacts;
use crate::websocket;

/// A handshake that both sides have agreed on.
#[derive(Debug)]
pub(super) struct PendingTunnel {
    /// The client's side, resolved when hyper has written the 101 into the gate.
    pub(super) client: OnUpgrade,
    /// The backend's side.
    pub(super) backend: OnUpgrade,
    /// What is known of it.
    pub(super) facts: TunnelFacts,
}

/// Begins the tunnel that the last request of this connection asked for.
pub(super) async fn begin(conversation: &Conversation) {
    let Some(pending) = conversation.tunnel().take() else {
        tracing::error!("a connection was upgraded without a handshake");
        return;
    };
    let PendingTunnel { client, backend, facts } = pending;
    let (peer, trace_id) = (conversation.peer.client, facts.trace_id.clone());
    let tunnels = &conversation.shared.tunnels;
    let gate = conversation.gate.clone();
    match websocket::begin(client, gate, backend, facts, tunnels).await {
        Ok(id) => tracing::debug!(tunnel = id, client = %peer, %trace_id, "tunnel begun"),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(client = %peer, %trace_id, error, "no tunnel came about");
        }
    }
}
