//! One worker's channel: lets it in, then reads and writes side by side until either fails.
//!
//! Waits for this worker alone: what others say or do not read is no concern of it. A worker that does not read its
//! answers is not read either.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::control::vault_reply::{Granted, Kind as Reply};
use holdfast_proto::control::vault_request::{Attach, Kind as Request};
use holdfast_proto::control::{VaultReply, VaultRequest};
use holdfast_proto::failpoint;
use holdfast_proto::fd_channel::{Outlet, is_crowded};
use holdfast_proto::vault::VaultEnd;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{sleep, timeout};

use super::books::{Fault, Luggage, Name, Party, Posted};
use super::{Desk, Reception};
use crate::children::{self, Role};

/// Time for a dialler to say who it is, and to take a refusal.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Before asking again when too many descriptors of this user are on their way to workers, this one or others.
const CROWDED_PAUSE: Duration = Duration::from_millis(2);

/// Why a channel ended before its worker hung up.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error("the fd channel failed")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("it said nothing for {HELLO_PATIENCE:?}")]
    Silent,
}

/// Why a packet did not go now.
enum Unsent {
    /// No room after all.
    Full,
    Failed(io::Error),
}

/// Takes the worker off the books when its channel ends, however that comes.
struct Attachment {
    desk: Arc<Desk>,
    party: Party,
    bell: Arc<Notify>,
}

/// Who came, and what it is given.
struct Guest {
    name: Name,
    luggage: Luggage<OwnedFd>,
    socket: Option<Arc<TcpListener>>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.desk.detach(self.party);
    }
}

/// Serves one dialler to its end.
pub(super) async fn serve<R: Reception>(
    channel: VaultEnd,
    desk: Arc<Desk>,
    reception: Arc<R>,
    slot: OwnedSemaphorePermit,
) {
    if let Err(error) = talk(&channel, desk, &*reception, slot).await {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "fd channel");
    }
}

async fn talk<R: Reception>(
    channel: &VaultEnd,
    desk: Arc<Desk>,
    reception: &R,
    slot: OwnedSemaphorePermit,
) -> Result<(), ChannelError> {
    let first = timeout(HELLO_PATIENCE, channel.receive()).await;
    let Some((request, fds)) = first.map_err(|_| ChannelError::Silent)?? else { return Ok(()) };
    let guest = match admit(channel, reception, request, fds).await? {
        Ok(guest) => guest,
        Err(refusal) => {
            let granted = Granted { refusal, ..Granted::default() };
            let reply = Reply::Granted(granted).into();
            let sent = timeout(HELLO_PATIENCE, channel.send(&reply, &[])).await;
            return sent.map_err(|_| ChannelError::Silent)?.map_err(ChannelError::Io);
        }
    };
    drop(slot);
    tracing::debug!(listener = %guest.name.listener, generation = guest.name.generation,
        "worker attached");
    let (party, bell) = desk.attach(guest.name, guest.luggage);
    let attachment = Attachment { desk, party, bell };
    let heard = Notify::new();
    // Cut anywhere, either leaves whole packets behind, and the channel ends with them.
    tokio::select! {
        ended = read(channel, &attachment, &heard) => ended,
        failed = write(channel, &attachment, &heard, guest.socket) => failed,
    }
}

/// Who it is, or why it may not attach.
async fn admit<R: Reception>(
    channel: &VaultEnd,
    reception: &R,
    request: VaultRequest,
    fds: Vec<OwnedFd>,
) -> Result<Result<Guest, String>, ChannelError> {
    let Some(Request::Attach(attach)) = request.kind else { return Err(Fault::Phase.into()) };
    let Attach { hello, listening_socket, arena, tally, arena_version, polls } = attach;
    let announced = [listening_socket, arena, tally];
    let announced = announced.into_iter().filter(|it| *it).count();
    if announced != fds.len() {
        return Err(Fault::Manifest { announced, came: fds.len() }.into());
    }
    let mut fds = fds.into_iter();
    let mut pick = |brought: bool| if brought { fds.next() } else { None };
    let (brought, arena, tally) = (pick(listening_socket), pick(arena), pick(tally));
    let peer = getsockopt(channel, PeerCredentials).map_err(io::Error::from)?;
    let pid = u32::try_from(peer.pid()).unwrap_or_default();
    let hello = hello.unwrap_or_default();
    let incarnation = match reception.recognise(&hello, pid) {
        Ok(incarnation) => incarnation,
        Err(stranger) => return Ok(Err(stranger.to_string())),
    };
    let Role::Worker { listener, generation } = incarnation.role else {
        return Ok(Err("this child is no worker".to_owned()));
    };
    let has_socket = brought.is_some();
    reception.came(incarnation.number, brought.map(TcpListener::from));
    if let Some(stranger) = children::foreign(&hello) {
        // The socket is all that it and we mean the same by.
        return Ok(Err(stranger.to_string()));
    }
    let socket = if has_socket {
        None
    } else {
        match reception.listening_socket(incarnation.number).await {
            Ok(socket) => socket,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
    let name = Name { listener, generation };
    let luggage = Luggage { version: arena_version, arena, tally, keeps_polls: polls };
    Ok(Ok(Guest { name, luggage, socket }))
}

/// Hears the worker until it hangs up.
async fn read(
    channel: &VaultEnd,
    attachment: &Attachment,
    heard: &Notify,
) -> Result<(), ChannelError> {
    let Attachment { desk, party, .. } = attachment;
    loop {
        while desk.lock().books.is_clogged(*party) {
            heard.notified().await;
        }
        let Some((request, fds)) = channel.receive().await? else { return Ok(()) };
        let request = request.kind.ok_or(Fault::Phase)?;
        let budget = (desk.budget)();
        desk.change(|books| {
            books.set_budget(budget);
            books.hear(*party, request, fds)
        })?;
        // Held, and not yet said so.
        failpoint!("vault.heard");
    }
}

/// Tells the worker whatever there is to tell. Never ends by itself.
async fn write(
    channel: &VaultEnd,
    attachment: &Attachment,
    heard: &Notify,
    mut socket: Option<Arc<TcpListener>>,
) -> Result<(), ChannelError> {
    let Attachment { desk, party, bell } = attachment;
    loop {
        let posted = {
            let mut outlet = channel.writable().await?;
            desk.change(|books| {
                books.post(*party, |reply, fds| send(&mut outlet, reply, fds, socket.as_deref()))
            })
        };
        match posted {
            Ok(Posted::Sent) => {
                // It went with the first packet.
                socket = None;
                heard.notify_one();
                failpoint!("vault.told");
            }
            Ok(Posted::Nothing) => bell.notified().await,
            Ok(Posted::Gone) => return Err(Fault::Gone.into()),
            Err(Unsent::Full) => {}
            Err(Unsent::Failed(error)) if is_crowded(&error) => sleep(CROWDED_PAUSE).await,
            Err(Unsent::Failed(error)) => return Err(error.into()),
        }
    }
}

fn send(
    outlet: &mut Outlet<'_, VaultReply>,
    mut reply: VaultReply,
    fds: &[&OwnedFd],
    socket: Option<&TcpListener>,
) -> Result<(), Unsent> {
    let mut all: Vec<BorrowedFd<'_>> = Vec::new();
    if let (Some(Reply::Granted(granted)), Some(socket)) = (&mut reply.kind, socket) {
        granted.listening_socket = true;
        all.push(socket.as_fd());
    }
    all.extend(fds.iter().map(AsFd::as_fd));
    match outlet.try_send(&reply, &all) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unsent::Full),
        Err(error) => Err(Unsent::Failed(error)),
    }
}
