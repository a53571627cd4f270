//! The fd socket: listening sockets down to workers; up, from workers that outlived a supervisor.
//!
//! A worker dials, says who it is, and gets its listener's socket; the tunnels' descriptors will travel here too.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::fd_channel::{FdChannel, FdListener, FdReply, FdRequest};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::sync::Semaphore;

use crate::state::Supervisor;

/// Time for a dialler to say who it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Diallers at once.
const AT_ONCE: usize = 64;

type Channel = FdChannel<FdReply, FdRequest>;

/// Serves the fd socket for ever.
pub async fn serve(supervisor: Arc<Supervisor>, socket: FdListener) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let channel: Channel = match socket.accept().await {
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
            if let Err(error) = answer(&supervisor, &channel).await {
                tracing::warn!(%error, "fd channel");
            }
            drop(slot);
        });
    }
}

async fn answer(supervisor: &Supervisor, channel: &Channel) -> std::io::Result<()> {
    let first = tokio::time::timeout(HELLO_PATIENCE, channel.receive()).await?;
    let Some((request, mut fds)) = first? else { return Ok(()) };
    let peer = getsockopt(channel, PeerCredentials)?;
    let refuse = |reason: String| FdReply { refusal: reason };
    let Some(hello) = &request.hello else {
        return channel.send(&refuse("no Hello".to_owned()), &[]).await;
    };
    let pid = u32::try_from(peer.pid()).unwrap_or_default();
    let incarnation = match supervisor.children.recognise(hello, pid) {
        Ok(incarnation) => incarnation,
        Err(stranger) => return channel.send(&refuse(stranger.to_string()), &[]).await,
    };
    if request.brings_listening_socket
        && let Some(fd) = fds.pop()
    {
        supervisor.brought.put(incarnation.number, TcpListener::from(fd));
        return channel.send(&FdReply::default(), &[]).await;
    }
    let Some(worker) = supervisor.worker(incarnation.number).await else {
        return channel.send(&refuse("this child is no worker".to_owned()), &[]).await;
    };
    channel.send(&FdReply::default(), &[worker.socket.as_fd()]).await
}
