//! Status, health and tunnels as operators see them.

use std::net::SocketAddr;

use futures_util::future::join_all;
use holdfast_proto::admin::{
    ListenerStatus, ProberStatus, StatusResponse, TunnelInfo, TunnelsResponse, WorkerStatus,
};
use holdfast_proto::control::{Tunnel, WorkerState};
use jiff::Timestamp;

use crate::group::Group;
use crate::state::Supervisor;
use crate::status::StatusSource;
use crate::vault::Vault;
use crate::worker::{Intent, Worker};

/// The same with the figures of this moment: workers are asked for them.
pub(crate) async fn status_now(supervisor: &Supervisor) -> StatusResponse {
    let groups = supervisor.all_groups();
    let workers: Vec<_> = groups.iter().flat_map(|group| group.workers()).collect();
    join_all(workers.iter().map(|worker| worker.report_now())).await;
    status(supervisor)
}

/// Everything about processes and revision, as last heard.
pub(super) fn status(supervisor: &Supervisor) -> StatusResponse {
    let prober = supervisor.prober.view();
    let in_force = supervisor.in_force();
    let listeners = supervisor.all_groups();
    StatusResponse {
        revision: supervisor.revision(),
        version: holdfast_proto::VERSION.to_owned(),
        supervisor_pid: std::process::id(),
        prober: Some(ProberStatus {
            pid: prober.pid,
            state: if prober.connected { "serving" } else { "starting" }.to_owned(),
            version: prober.version,
        }),
        listeners: listeners
            .iter()
            .map(|group| {
                let snapshots = in_force.as_ref().map(|it| &it.compiled.listeners);
                let snapshot = snapshots.and_then(|all| all.get(&group.address));
                let sites = snapshot.map_or_else(Vec::new, |it| it.sites.clone());
                listener(
                    group,
                    sites.into_iter().map(|site| site.name).collect(),
                    &supervisor.vault,
                )
            })
            .collect(),
        ready: supervisor.ready().is_ok(),
        log_filter: holdfast_proto::log_filter::now(),
        tunnels_ended: supervisor.metrics.readings().ended.into_iter().collect(),
        problems: supervisor.problems(),
    }
}

fn listener(group: &Group, sites: Vec<String>, vault: &Vault) -> ListenerStatus {
    let address = group.address.to_string();
    ListenerStatus {
        name: address.clone(),
        address,
        sites,
        workers: group.workers().iter().map(|it| worker(it, group.address, vault)).collect(),
    }
}

fn worker(worker: &Worker, listener: SocketAddr, vault: &Vault) -> WorkerStatus {
    let view = worker.view();
    let reason = match (&view.foreign, &*worker.intent().borrow()) {
        (Some(why), _) => Some(why.clone()),
        (None, Intent::Drain { reason, .. }) => Some(reason.clone()),
        (None, _) => None,
    };
    let state = match view.state {
        _ if reason.is_some() => "draining",
        WorkerState::Serving => "serving",
        WorkerState::Draining => "draining",
        WorkerState::Starting | WorkerState::Unspecified => "starting",
    };
    WorkerStatus {
        pid: worker.incarnation.pid(),
        generation: worker.generation,
        version: view.version,
        state: state.to_owned(),
        revision: view.revision,
        tunnels: view.tunnels,
        // The vault knows best, but hears of a tunnel's end a moment after the worker.
        protected: view.tunnels.min(vault.protected(listener, worker.generation) as u64),
        reason: reason.unwrap_or_default(),
        pinned: view.pinned,
    }
}

/// Every live tunnel of every worker, newest last, and whose are missing.
pub(crate) async fn tunnels(supervisor: &Supervisor) -> TunnelsResponse {
    let groups = supervisor.all_groups();
    let asking = groups.iter().map(|group| async move {
        let held = supervisor.vault.ids_of(group.address);
        (group.address, held, group.tunnels().await)
    });
    let mut answer = TunnelsResponse::default();
    for (address, mut held, (tunnels, silent)) in join_all(asking).await {
        let listener = address.to_string();
        // Those that were opened meanwhile are not missing, nor are those that have ended.
        held = &held & &supervisor.vault.ids_of(address);
        for tunnel in tunnels {
            held.remove(&tunnel.id);
            answer.tunnels.push(info(&listener, tunnel));
        }
        // Those that a silent worker has not deposited are known to nobody else.
        answer.unlisted += silent.iter().map(|it| it.tunnels).sum::<u64>().max(held.len() as u64);
        answer.silent.extend(silent);
    }
    answer.tunnels.sort_by(|a, b| (&a.opened, &a.id).cmp(&(&b.opened, &b.id)));
    // One that changes hands just now is listed by both.
    answer.tunnels.dedup_by(|a, b| (&a.id, &a.listener) == (&b.id, &b.listener));
    answer
}

fn info(listener: &str, tunnel: Tunnel) -> TunnelInfo {
    let opened_ms = i64::try_from(tunnel.opened_unix_ms).unwrap_or_default();
    let opened = Timestamp::from_millisecond(opened_ms).unwrap_or_default();
    let age = Timestamp::now().as_millisecond() - opened_ms;
    TunnelInfo {
        id: id_text(tunnel.id),
        listener: listener.to_owned(),
        site: tunnel.site,
        pool: tunnel.pool,
        settings: tunnel.settings,
        backend: tunnel.backend,
        client: tunnel.client,
        opened: opened.to_string(),
        bytes_in: tunnel.bytes_in,
        bytes_out: tunnel.bytes_out,
        idle_ms: tunnel.idle_ms,
        age_ms: u64::try_from(age).unwrap_or_default(),
        trace_id: tunnel.trace_id,
        pinned: tunnel.pinned,
        client_end: tunnel.client_end,
        backend_end: tunnel.backend_end,
    }
}

/// How people name a tunnel.
pub(super) fn id_text(id: u64) -> String {
    format!("{id:x}")
}

/// The number behind such a name.
pub(super) fn id_number(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}
