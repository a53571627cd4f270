//! The end: everything drains, or everything but the supervisor lives on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::children::{Incarnation, Role};
use crate::group::Adopted;
use crate::service;
use crate::state::Supervisor;

/// Drains everything; gone when this returns. Where the workers are left to the next supervisor, for them it is as if this
/// one had been killed. `found` are those that the start has found.
pub(super) async fn end(supervisor: &Supervisor, found: &[Arc<Incarnation>]) {
    let left = supervisor.stop.borrow().map(|at| at.saturating_duration_since(Instant::now()));
    service::stopping(supervisor.service.is_detached(), left.unwrap_or_default());
    if supervisor.service.is_detached() {
        tracing::info!("leaving the workers to the next supervisor");
        // First: what this process lets go of from now on is not to be thrown away.
        supervisor.service.end().await;
        supervisor.vault.end();
        supervisor.counters.save();
        return;
    }
    if !*supervisor.started.borrow() {
        take_in(supervisor, found);
    }
    let mut stop = supervisor.stop.subscribe();
    loop {
        let now = Instant::now();
        let deadline = stop.borrow_and_update().unwrap_or(now).saturating_duration_since(now);
        tracing::info!(?deadline, "stopping");
        let all = async {
            let groups = supervisor.all_groups();
            let stops = groups
                .iter()
                .map(|group| group.stop(deadline, supervisor.service.is_lent(group.address)));
            futures_util::future::join_all(stops).await;
        };
        // Cancel-safe: a stop that is begun again only takes the shorter deadline.
        tokio::select! {
            () = all => break,
            changed = stop.changed() => if changed.is_err() { break },
        }
    }
    supervisor.prober.stop().await;
    supervisor.service.end().await;
    remove_sockets(supervisor);
    tracing::info!("stopped");
}

/// Keeps workers of an earlier supervisor that a start which was stopped has not come to: they end with everything else.
fn take_in(supervisor: &Supervisor, found: &[Arc<Incarnation>]) {
    let groups = supervisor.all_groups();
    let kept = groups.iter().flat_map(|group| group.workers()).map(|it| it.incarnation.number);
    let kept: BTreeSet<u64> = kept.collect();
    let mut rest: BTreeMap<SocketAddr, Vec<Adopted>> = BTreeMap::new();
    for incarnation in found.iter().filter(|it| !kept.contains(&it.number)) {
        if let Role::Worker { listener, generation } = incarnation.role {
            let worker = Adopted { incarnation: incarnation.clone(), generation };
            rest.entry(listener).or_default().push(worker);
        }
    }
    for (address, workers) in rest {
        supervisor.resume_retired(address, workers);
    }
}

/// Hangs up, and takes the sockets' names away.
pub(super) fn remove_sockets(supervisor: &Supervisor) {
    supervisor.vault.end();
    for name in ["admin.sock", "control.sock", "fd.sock"] {
        let path = supervisor.directories.runtime.join(name);
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "cannot remove");
        }
    }
}
