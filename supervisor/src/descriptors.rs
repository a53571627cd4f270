//! The fd socket: listening sockets down to workers; up, from workers that outlived a supervisor.
//!
//! A worker dials, says who it is, and gets its listener's socket; the tunnels' descriptors will travel here too.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::control::vault_reply::{Granted, Kind as Reply};
use holdfast_proto::control::vault_request::{Attach, Kind as Request};
use holdfast_proto::fd_channel::FdListener;
use holdfast_proto::vault::VaultEnd;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::sync::Semaphore;

use crate::state::Supervisor;

/// Time for a dialler to say who it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Diallers at once.
const AT_ONCE: usize = 64;

/// Serves the fd socket for ever.
pub async fn serve(supervisor: Arc<Supervisor>, socket: FdListener) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let channel: VaultEnd = match socket.accept().await {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the fd socket");
                // EMFILE lasts until something is closed; asking again at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let supervisor = supervisor.clone();
        tokio::spawn(async move {
            let answered = answer(&supervisor, &channel).await;
            drop(slot);
            // Held until the worker leaves: an end would tell it that this supervisor is gone.
            let held = async {
                while channel.receive().await?.is_some() {}
                std::io::Result::Ok(())
            };
            let ended = match answered {
                Ok(true) => held.await,
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "fd channel");
            }
        });
    }
}

/// Whether the dialler is one of ours, and has its answer.
async fn answer(supervisor: &Supervisor, channel: &VaultEnd) -> std::io::Result<bool> {
    let first = tokio::time::timeout(HELLO_PATIENCE, channel.receive()).await?;
    let Some((request, fds)) = first? else { return Ok(false) };
    let Some(Request::Attach(attach)) = request.kind else { return Ok(false) };
    match grant(supervisor, channel, &attach, fds).await? {
        Ok(socket) => {
            let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
            let granted = Granted { listening_socket: socket.is_some(), ..Granted::default() };
            channel.send(&Reply::Granted(granted).into(), &fds).await?;
            Ok(true)
        }
        Err(refusal) => {
            let granted = Granted { refusal, ..Granted::default() };
            channel.send(&Reply::Granted(granted).into(), &[]).await?;
            Ok(false)
        }
    }
}

/// The socket that a dialler gets (none if it brought its own), or why it is refused.
async fn grant(
    supervisor: &Supervisor,
    channel: &VaultEnd,
    attach: &Attach,
    mut fds: Vec<OwnedFd>,
) -> std::io::Result<Result<Option<Arc<TcpListener>>, String>> {
    let peer = getsockopt(channel, PeerCredentials)?;
    let Some(hello) = &attach.hello else { return Ok(Err("no Hello".to_owned())) };
    let pid = u32::try_from(peer.pid()).unwrap_or_default();
    let incarnation = match supervisor.children.recognise(hello, pid) {
        Ok(incarnation) => incarnation,
        Err(stranger) => return Ok(Err(stranger.to_string())),
    };
    if attach.listening_socket
        && let Some(fd) = fds.pop()
    {
        supervisor.brought.put(incarnation.number, TcpListener::from(fd));
        return Ok(Ok(None));
    }
    let Some(worker) = supervisor.worker(incarnation.number).await else {
        return Ok(Err("this child is no worker".to_owned()));
    };
    Ok(Ok(worker.socket()))
}
