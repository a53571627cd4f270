//! What is told of a running gateway, as JSON: the shapes that scripts and the status page rely on, so they only ever grow.
//!
//! One place for both, so that the page never says something else than `holdfast status --json`. Everything here is pure.

use std::collections::BTreeMap;

use holdfast_proto::admin::{
    HealthResponse, ListenerStatus, RevisionsResponse, SilentWorker, StatusResponse, TunnelInfo,
    TunnelsResponse, WorkerStatus,
};
use serde_json::{Value, json};

/// The `status` command's JSON.
pub fn status_json(status: &StatusResponse) -> Value {
    let prober = status.prober.clone().unwrap_or_default();
    json!({
        "revision": status.revision,
        "version": status.version,
        "ready": status.ready,
        "supervisor": {"pid": status.supervisor_pid},
        "prober": {"pid": prober.pid, "state": prober.state, "version": prober.version},
        "listeners": status.listeners.iter().map(listener_json).collect::<Vec<_>>(),
        "problems": status.problems,
        "log_filter": status.log_filter,
        "tunnels_ended": status.tunnels_ended.iter().collect::<BTreeMap<_, _>>(),
    })
}

fn listener_json(listener: &ListenerStatus) -> Value {
    json!({
        "name": listener.name,
        "address": listener.address,
        "sites": listener.sites,
        "workers": listener.workers.iter().map(worker_json).collect::<Vec<_>>(),
    })
}

fn worker_json(worker: &WorkerStatus) -> Value {
    json!({
        "pid": worker.pid,
        "generation": worker.generation,
        "version": worker.version,
        "state": worker.state,
        "revision": worker.revision,
        "tunnels": worker.tunnels,
        "protected": worker.protected,
        "reason": worker.reason,
        "pinned": worker.pinned,
    })
}

/// The `health` command's JSON.
pub fn health_json(health: &HealthResponse) -> Value {
    health
        .pools
        .iter()
        .map(|pool| {
            let backends: Vec<_> = pool
                .backends
                .iter()
                .map(|backend| {
                    json!({
                        "address": backend.address,
                        "port": backend.port,
                        "state": backend.state,
                        "since": backend.since,
                        "last": backend.last,
                    })
                })
                .collect();
            json!({"pool": pool.pool, "settings": pool.settings, "backends": backends})
        })
        .collect()
}

/// The `tunnels` command's JSON.
pub fn tunnels_json(tunnels: &TunnelsResponse) -> Value {
    tunnels.tunnels.iter().map(tunnel_json).collect()
}

/// One of the tunnels in it.
pub fn tunnel_json(tunnel: &TunnelInfo) -> Value {
    json!({
        "id": tunnel.id,
        "listener": tunnel.listener,
        "site": tunnel.site,
        "pool": tunnel.pool,
        "settings": tunnel.settings,
        "backend": tunnel.backend,
        "client": tunnel.client,
        "opened": tunnel.opened,
        "age_seconds": seconds(tunnel.age_ms),
        "idle_seconds": seconds(tunnel.idle_ms),
        "bytes_in": tunnel.bytes_in,
        "bytes_out": tunnel.bytes_out,
        "trace_id": tunnel.trace_id,
        "pinned": told(&tunnel.pinned),
        "client_end": told(&tunnel.client_end),
        "backend_end": told(&tunnel.backend_end),
    })
}

/// What is said of a worker whose tunnels nobody can tell, wherever they are listed or counted.
pub fn silent_words(silent: &SilentWorker) -> String {
    let SilentWorker { listener, pid, tunnels } = silent;
    let missing = match tunnels {
        1 => "1 tunnel is".to_owned(),
        more => format!("{more} tunnels are"),
    };
    format!(
        "worker {pid} of {listener} has not answered, it is stopped or very busy: its {missing} not among these"
    )
}

/// A word, where there is one.
fn told(word: &str) -> Option<&str> {
    (!word.is_empty()).then_some(word)
}

#[allow(clippy::cast_precision_loss, reason = "2^53 ms are 285,000 years")]
/// For people and scripts, who count in seconds.
pub fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// The `revisions` command's JSON.
pub fn revisions_json(revisions: &RevisionsResponse) -> Value {
    revisions
        .revisions
        .iter()
        .map(|revision| {
            json!({
                "revision": revision.revision,
                "applied_at": revision.applied_at,
                "source": revision.source,
                "by": revision.by,
                "in_force": revision.in_force,
            })
        })
        .collect()
}
