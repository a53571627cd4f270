//! A line's first exchange: what the worker brings, and what it is granted.

use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use holdfast_proto::control::vault_reply::{Granted, Kind as Reply};
use holdfast_proto::control::vault_request::{Attach, Kind as Request};
use holdfast_proto::fd_channel::FdChannel;
use holdfast_proto::vault::WorkerEnd;

use super::{Line, LineError};
use crate::tunnel::LeftPoll;

/// What a line has brought, but for the listening socket, which is in its slot.
pub(crate) struct Attached {
    pub(super) channel: WorkerEnd,
    pub(crate) arena: Option<OwnedFd>,
    pub(crate) tally: Option<OwnedFd>,
    /// What workers that are gone have left.
    pub(crate) polls: Vec<LeftPoll>,
    /// This vault takes epoll instances.
    pub(super) keeps_polls: bool,
}

impl Line {
    /// Dials, and brings the listening socket and `shared`, as far as they are here.
    pub(super) async fn attach(
        &self,
        arena_version: u32,
        shared: &[BorrowedFd<'_>],
        brings: bool,
    ) -> Result<Attached, LineError> {
        let channel: WorkerEnd = FdChannel::connect(&self.path).map_err(LineError::Dial)?;
        let held = self.slot.borrow().clone();
        let attach = Attach {
            hello: Some(self.hello.clone()),
            listening_socket: held.is_some(),
            arena: brings,
            tally: brings,
            arena_version,
            polls: true,
        };
        let mut brought: Vec<_> = held.iter().map(|socket| socket.as_fd()).collect();
        brought.extend(shared);
        let attach = Request::Attach(attach).into();
        channel.send(&attach, &brought).await.map_err(LineError::Talk)?;
        let (reply, fds) =
            channel.receive().await.map_err(LineError::Talk)?.ok_or(LineError::HungUp)?;
        let Some(Reply::Granted(granted)) = reply.kind else { return Err(LineError::HungUp) };
        if !granted.refusal.is_empty() {
            return Err(LineError::Refused(granted.refusal));
        }
        self.taken(channel, &granted, fds)
    }

    fn taken(
        &self,
        channel: WorkerEnd,
        granted: &Granted,
        fds: Vec<OwnedFd>,
    ) -> Result<Attached, LineError> {
        let count = fds.len();
        let announced = [granted.listening_socket, granted.arena, granted.tally];
        if announced.iter().filter(|flag| **flag).count() + granted.polls.len() != count {
            return Err(LineError::Manifest { what: "grant", fds: count });
        }
        let mut fds = fds.into_iter();
        let [socket, arena, tally] = announced.map(|flag| if flag { fds.next() } else { None });
        if let Some(socket) = socket.map(TcpListener::from)
            && !self.drain.is_begun()
        {
            socket.set_nonblocking(true).map_err(LineError::Talk)?;
            self.slot.send_replace(Some(Arc::new(socket)));
        }
        let polls = granted.polls.iter().zip(fds);
        let polls =
            polls.map(|(it, fd)| LeftPoll::new(it.id, it.generations.clone(), fd)).collect();
        Ok(Attached { channel, arena, tally, polls, keeps_polls: granted.keeps_polls })
    }
}
