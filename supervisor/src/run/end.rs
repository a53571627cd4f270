//! The end: everything drains, or everything but the supervisor lives on.

use tokio::time::Instant;

use crate::service;
use crate::state::Supervisor;

/// Drains everything; gone when this returns. Where the workers are left to the next supervisor, for them it is as if this
/// one had been killed.
pub(super) async fn end(supervisor: &Supervisor) {
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
