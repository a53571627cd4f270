//! What would become of a request: the listener's own worker is asked, and what the prober says of its backends is added.
//!
//! Nothing is decided here. A worker that cannot answer is told of, never stood in for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use holdfast_proto::admin::{BackendHealth, ExplainRequest, ExplainResponse, PoolHealth};
use holdfast_proto::control::WorkerState;
use tonic::Status;

use super::names;
use crate::group::Group;
use crate::state::Supervisor;
use crate::worker::Worker;

/// Asks the worker that serves the listener.
pub(super) async fn explain(
    supervisor: &Supervisor,
    question: ExplainRequest,
) -> Result<ExplainResponse, Status> {
    let client = question.client.as_str();
    if !client.is_empty()
        && client.parse::<IpAddr>().is_err()
        && client.parse::<SocketAddr>().is_err()
    {
        let message = format!("the client {client:?} is neither IP nor IP:PORT");
        return Err(Status::invalid_argument(message));
    }
    let groups = supervisor.groups();
    let asked = &question.listener;
    let Some(group) = groups.iter().find(|group| group.address.to_string() == *asked) else {
        let names = groups.iter().map(|group| group.address.to_string()).collect();
        return Err(names::unknown(&format!("no listener {asked:?}"), asked, names));
    };
    let Some(worker) = serving(group) else {
        let message = format!("no worker of {} serves just now", group.address);
        return Err(Status::failed_precondition(message));
    };
    let (pid, version) = (worker.incarnation.pid(), worker.view().version);
    let mut told = worker.explain(question).await.ok_or_else(|| {
        Status::deadline_exceeded(format!(
            "worker {pid} of {} (version {version}) has not answered: it is stopped, or too old to know the question \
             (`holdfast restart` replaces it)",
            group.address
        ))
    })?;
    add_health(&mut told, &supervisor.health.report());
    Ok(told)
}

/// The worker that new connections come to.
fn serving(group: &Group) -> Option<Arc<Worker>> {
    let workers = group.workers();
    let serves = |worker: &&Arc<Worker>| worker.view().state == WorkerState::Serving;
    workers.iter().rev().find(serves).cloned()
}

fn add_health(told: &mut ExplainResponse, pools: &[PoolHealth]) {
    let Some(forward) = &mut told.forward else { return };
    for backend in &mut forward.backends {
        let of_pool = |it: &&PoolHealth| it.pool == backend.pool && it.settings == forward.settings;
        let is_it = |it: &&BackendHealth| it.address == backend.address && it.port == backend.port;
        let known = pools.iter().find(of_pool).and_then(|pool| pool.backends.iter().find(is_it));
        if let Some(known) = known {
            (backend.state, backend.last) = (known.state.clone(), known.last.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use holdfast_proto::admin::{ExplainBackend, ExplainForward};

    use super::*;

    #[test]
    fn health_goes_by_pool_settings_address_and_port() {
        let health = |settings: &str, port, state: &str| PoolHealth {
            pool: "chat".to_owned(),
            settings: settings.to_owned(),
            backends: vec![BackendHealth {
                address: "10.0.0.1".to_owned(),
                port,
                state: state.to_owned(),
                ..BackendHealth::default()
            }],
        };
        let backend = |port| ExplainBackend {
            pool: "chat".to_owned(),
            address: "10.0.0.1".to_owned(),
            port,
            ..ExplainBackend::default()
        };
        let forward = ExplainForward {
            settings: "plain".to_owned(),
            backends: vec![backend(80), backend(81)],
            ..ExplainForward::default()
        };
        let mut told = ExplainResponse { forward: Some(forward), ..ExplainResponse::default() };
        add_health(&mut told, &[health("other", 80, "Unhealthy"), health("plain", 80, "Healthy")]);
        let backends = told.forward.unwrap().backends;
        assert_eq!(backends[0].state, "Healthy");
        assert_eq!(backends[1].state, "", "of another port nothing is known");
    }
}
