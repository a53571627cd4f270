//! The listening socket on its way into this process, and back to a supervisor that lost it.
//!
//! The supervisor owns the address; a worker only borrows the socket until its drain begins. After a supervisor's
//! death the worker brings its socket along when it redials, so that the address is never unbound.

use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_proto::control::Hello;
use holdfast_proto::control::vault_reply::Kind as Reply;
use holdfast_proto::control::vault_request::{Attach, Kind as Request};
use holdfast_proto::vault::WorkerEnd;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::control::Backoff;
use crate::drain::Drain;

/// The listening socket, once it is here.
pub(crate) type Slot = watch::Sender<Option<Arc<TcpListener>>>;

/// Why there is no fd channel.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error("cannot dial the supervisor's fd socket")]
    Dial(#[source] io::Error),
    #[error("cannot talk on the supervisor's fd socket")]
    Talk(#[source] io::Error),
    #[error("the supervisor refused this worker: {0}")]
    Refused(String),
    #[error("the supervisor sent {0} descriptors instead of the listening socket")]
    Manifest(usize),
    #[error("the supervisor answered with something else")]
    Phase,
    #[error("the supervisor hung up")]
    HungUp,
}

/// Keeps the fd channel up, fills the slot, and lets go of the socket when the drain begins.
pub(crate) async fn keep(path: PathBuf, hello: Hello, slot: Slot, drain: Drain) {
    let mut backoff = Backoff::new();
    let attached = async {
        loop {
            let error = match attach(&path, &hello, &slot, &mut backoff).await {
                Ok(()) => AttachError::HungUp,
                Err(error) => error,
            };
            tracing::debug!(error = &error as &dyn Error, "no fd channel; dialling again");
            sleep(backoff.next()).await;
        }
    };
    // Cut anywhere, an attachment leaves only a closed channel behind.
    tokio::select! {
        () = attached => {}
        () = drain.begun() => {}
    }
    slot.send_replace(None);
}

/// One channel from its hello until the supervisor hangs up.
async fn attach(
    path: &std::path::Path,
    hello: &Hello,
    slot: &Slot,
    backoff: &mut Backoff,
) -> Result<(), AttachError> {
    let channel = WorkerEnd::connect(path).map_err(AttachError::Dial)?;
    let held = slot.borrow().clone();
    let request = Request::Attach(Attach {
        hello: Some(hello.clone()),
        listening_socket: held.is_some(),
        ..Attach::default()
    });
    let brought: Vec<_> = held.iter().map(AsFd::as_fd).collect();
    channel.send(&request.into(), &brought).await.map_err(AttachError::Talk)?;
    let (reply, fds) =
        channel.receive().await.map_err(AttachError::Talk)?.ok_or(AttachError::HungUp)?;
    let Some(Reply::Granted(granted)) = reply.kind else { return Err(AttachError::Phase) };
    if !granted.refusal.is_empty() {
        return Err(AttachError::Refused(granted.refusal));
    }
    let count = fds.len();
    match (held, fds.into_iter().next()) {
        (None, Some(fd)) if count == 1 => {
            let socket = TcpListener::from(fd);
            socket.set_nonblocking(true).map_err(AttachError::Talk)?;
            slot.send_replace(Some(Arc::new(socket)));
        }
        // Without a socket this worker is to drain, and will hear it on its line.
        (_, None) => {}
        _ => return Err(AttachError::Manifest(count)),
    }
    backoff.reset();
    // Nothing else is said on this channel yet; what comes is closed again.
    while channel.receive().await.map_err(AttachError::Talk)?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use holdfast_proto::control::{VaultReply, VaultRequest, vault_reply::Granted};
    use holdfast_proto::fd_channel::FdListener;
    use tokio::task::JoinSet;

    fn brings(request: VaultRequest) -> bool {
        matches!(request.kind, Some(Request::Attach(attach)) if attach.listening_socket)
    }

    fn granted(listening_socket: bool) -> VaultReply {
        Reply::Granted(Granted { listening_socket, ..Granted::default() }).into()
    }

    #[tokio::test]
    async fn the_socket_comes_once_and_is_brought_back_to_the_next_supervisor() {
        let dir = std::env::temp_dir().join(format!("holdfast-socket-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("fd.sock");
        drop(std::fs::remove_file(&path));
        let supervisor = FdListener::bind(&path).unwrap();
        let (slot, drain) = (Slot::new(None), Drain::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(path, Hello::default(), slot.clone(), drain.clone()));

        let first = supervisor.accept::<VaultReply, VaultRequest>().await.unwrap();
        let (request, fds) = first.receive().await.unwrap().unwrap();
        assert!(!brings(request) && fds.is_empty());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        first.send(&granted(true), &[socket.as_fd()]).await.unwrap();
        let mut filled = slot.subscribe();
        let held = filled.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(held.local_addr().unwrap(), socket.local_addr().unwrap());

        drop(first);
        let second = supervisor.accept::<VaultReply, VaultRequest>().await.unwrap();
        let (request, fds) = second.receive().await.unwrap().unwrap();
        assert!(brings(request) && fds.len() == 1);
        second.send(&granted(false), &[]).await.unwrap();

        drain.begin(crate::drain::Order { tunnel_deadline: None, reason: String::new() });
        tasks.join_next().await.unwrap().unwrap();
        assert!(slot.borrow().is_none());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
