//! The operators' socket, from early in the start to the end, across upgrades.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;

use super::{RunError, named};
use crate::grpc;
use crate::state::Supervisor;
use crate::upgrade;

/// Time for the last answers to operators, at the end.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The operators' socket. It answers until everything has ended, so that a drain can be watched and hurried.
pub(super) struct Admin {
    task: tokio::task::JoinHandle<()>,
    ended: tokio::sync::oneshot::Sender<()>,
}

impl Admin {
    pub(super) fn serve(supervisor: &Arc<Supervisor>) -> Result<Self, RunError> {
        let system = |source| RunError::System { what: "serve operators", source };
        let socket = match supervisor.upgrades.kept(upgrade::ADMIN) {
            Some(held) => listening(held).map_err(system)?,
            None => named(supervisor, "admin.sock", 0o660)?,
        };
        supervisor.upgrades.keep(upgrade::ADMIN, &socket).map_err(system)?;
        let serving = supervisor.clone();
        let (ended, end) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let ended = async move { drop(end.await) };
            if let Err(error) = grpc::serve_operators(serving, socket, ended).await {
                tracing::error!(error = &error as &dyn std::error::Error, "admin socket");
            }
        });
        Ok(Self { task, ended })
    }

    /// Lets calls in progress have their answers; a watch without an end is cut.
    pub(super) async fn end(self) {
        // A server that has failed is not there to be told.
        self.ended.send(()).unwrap_or_default();
        drop(tokio::time::timeout(LAST_ANSWERS, self.task).await);
    }

    /// Until a stop; an upgrade in between ends this executable, or changes nothing.
    pub(super) async fn serve_until_stopped(
        mut self,
        supervisor: &Arc<Supervisor>,
    ) -> Result<Self, RunError> {
        loop {
            // Cancel-safe, both: they only wait.
            let asked = tokio::select! {
                asked = supervisor.upgrades.asked() => asked,
                () = supervisor.stopped() => return Ok(self),
            };
            if let Some(ready) = upgrade::prepare(supervisor, asked).await {
                ready.announce();
                // Calls have their answers, or are told to dial again: the socket's queue outlives this executable.
                self.end().await;
                ready.take_over().await;
                self = Self::serve(supervisor)?;
            }
        }
    }
}

fn listening(held: OwnedFd) -> std::io::Result<UnixListener> {
    let held = StdUnixListener::from(held);
    held.set_nonblocking(true)?;
    UnixListener::from_std(held)
}
