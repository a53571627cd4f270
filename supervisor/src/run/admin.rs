//! The operators' sockets, the named one and the one on the network, from early in the start to the end, across upgrades.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;

use super::{RunError, named};
use crate::state::Supervisor;
use crate::upgrade;
use crate::{grpc, network};

/// Time for the last answers to operators, at the end.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The operators' socket. It answers until everything has ended, so that a drain can be watched and hurried.
pub(super) struct Admin {
    /// Held from here on: an upgrade that failed for want of descriptors could not have it a second time.
    socket: Arc<UnixListener>,
    task: tokio::task::JoinHandle<()>,
    network: tokio::task::JoinHandle<()>,
    ended: tokio::sync::watch::Sender<bool>,
}

impl Admin {
    pub(super) fn serve(supervisor: &Arc<Supervisor>) -> Result<Self, RunError> {
        let system = |source| RunError::System { what: "serve operators", source };
        let socket = match supervisor.upgrades.kept(upgrade::ADMIN) {
            Some(held) => listening(held).map_err(system)?,
            None => named(supervisor, "admin.sock", 0o660)?,
        };
        supervisor.upgrades.keep(upgrade::ADMIN, &socket).map_err(system)?;
        Ok(Self::serve_on(Arc::new(socket), supervisor))
    }

    /// Whatever it needs, it has: nothing here can fail.
    fn serve_on(socket: Arc<UnixListener>, supervisor: &Arc<Supervisor>) -> Self {
        let (serving, dialled) = (supervisor.clone(), socket.clone());
        let ended = tokio::sync::watch::Sender::new(false);
        let end = || {
            let mut ended = ended.subscribe();
            // Without a sender it is over as well.
            async move { drop(ended.wait_for(|ended| *ended).await) }
        };
        let socket_ended = end();
        let task = tokio::spawn(async move {
            if let Err(error) = grpc::serve_operators(serving, dialled, socket_ended).await {
                tracing::error!(error = &error as &dyn std::error::Error, "admin socket");
            }
        });
        supervisor.restore_network();
        let network = tokio::spawn(network::serve(supervisor.clone(), end()));
        Self { socket, task, network, ended }
    }

    /// Lets calls in progress have their answers; a watch without an end is cut.
    pub(super) async fn end(self) {
        self.ended.send_replace(true);
        let both = futures_util::future::join(self.task, self.network);
        drop(tokio::time::timeout(LAST_ANSWERS, both).await);
    }

    /// Until a stop; an upgrade in between ends this executable, or changes nothing.
    pub(super) async fn serve_until_stopped(mut self, supervisor: &Arc<Supervisor>) -> Self {
        loop {
            // Cancel-safe, both: they only wait.
            let asked = tokio::select! {
                asked = supervisor.upgrades.asked() => asked,
                () = supervisor.stopped() => return self,
            };
            if let Some(ready) = upgrade::prepare(supervisor, asked).await {
                ready.announce();
                // Calls have their answers, or are told to dial again: the socket's queue outlives this executable.
                let socket = self.socket.clone();
                self.end().await;
                ready.take_over().await;
                self = Self::serve_on(socket, supervisor);
            }
        }
    }
}

fn listening(held: OwnedFd) -> std::io::Result<UnixListener> {
    let held = StdUnixListener::from(held);
    held.set_nonblocking(true)?;
    UnixListener::from_std(held)
}
