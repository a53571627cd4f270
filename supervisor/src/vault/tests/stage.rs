//! A vault on a socket, and workers that this process plays.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use holdfast_proto::control::vault_reply::{self, Granted, Kind as Reply};
use holdfast_proto::control::vault_request::{self, Attach, Kind as Request};
use holdfast_proto::process::ProcessId;
use holdfast_proto::vault::WorkerEnd;

use super::super::*;
use super::*;
use crate::children::{Children, Role};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const VERSION: u32 = 7;

pub(super) struct Office {
    pub(super) children: Children,
    pub(super) sockets: Mutex<HashMap<u64, Option<Arc<TcpListener>>>>,
    pub(super) came: Mutex<Vec<(u64, bool)>>,
}

impl Reception for Office {
    fn recognise(&self, hello: &Hello, peer_pid: u32) -> Result<Arc<Incarnation>, Stranger> {
        self.children.recognise(hello, peer_pid)
    }

    fn came(&self, incarnation: u64, socket: Option<TcpListener>) {
        self.came.lock().unwrap().push((incarnation, socket.is_some()));
    }

    async fn listening_socket(&self, worker: u64) -> Result<Option<Arc<TcpListener>>, String> {
        self.sockets.lock().unwrap().get(&worker).cloned().ok_or_else(|| "unknown".to_owned())
    }
}

pub(super) struct Stage {
    pub(super) vault: Vault,
    pub(super) office: Arc<Office>,
    pub(super) directory: tempfile::TempDir,
}

/// A worker's end, and who it is.
pub(super) struct Actor {
    pub(super) end: WorkerEnd,
    pub(super) hello: Hello,
    pub(super) number: u64,
}

pub(super) type Packet = (Reply, Vec<OwnedFd>);

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with(Vault::default()).await
    }

    pub(super) async fn with(vault: Vault) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let office = Arc::new(Office {
            children: Children::new(directory.path()),
            sockets: Mutex::default(),
            came: Mutex::default(),
        });
        vault.serve(directory.path().join("fd.sock"), office.clone()).await.unwrap();
        Self { vault, office, directory }
    }

    pub(super) fn dial(&self) -> WorkerEnd {
        WorkerEnd::connect(&self.directory.path().join("fd.sock")).unwrap()
    }

    /// The same worker dials again.
    pub(super) fn redial(&self, worker: &Actor) -> Actor {
        Actor { end: self.dial(), hello: worker.hello.clone(), number: worker.number }
    }

    /// A worker that is known and has dialled.
    pub(super) fn actor(&self, port: u16, generation: u64) -> Actor {
        let me = ProcessId::me().unwrap();
        let role = Role::Worker { listener: address(port), generation };
        let incarnation = self.office.children.expect(role);
        self.office.children.born(&incarnation, me).unwrap();
        self.office.sockets.lock().unwrap().insert(incarnation.number, None);
        let hello = Hello {
            protocol: holdfast_proto::PROTOCOL,
            pid: me.pid,
            start_time: me.start_time,
            token: incarnation.token.clone(),
            ..Hello::default()
        };
        Actor { end: self.dial(), hello, number: incarnation.number }
    }

    /// One that is attached, with an arena; the first of its listener has heard that there is nothing to hand.
    pub(super) async fn worker(&self, port: u16, generation: u64) -> Actor {
        let actor = self.actor(port, generation);
        let Granted { arena, .. } = actor.attach().await.0;
        if !arena {
            let kept = vault_request::Keep { arena: true, tally: false };
            actor.say(Request::Keep(kept), &[memfd().as_fd()]).await;
            // In either order.
            let heard = [actor.hear().await.0, actor.hear().await.0];
            assert!(heard.iter().any(|reply| matches!(reply, Reply::Kept(_))), "{heard:?}");
            assert!(heard.iter().any(|reply| matches!(reply, Reply::HandedAll(_))), "{heard:?}");
        }
        actor
    }

    pub(super) fn held(&self, port: u16) -> usize {
        self.vault.holdings().tunnels.get(&address(port)).copied().unwrap_or_default()
    }
}

impl Actor {
    pub(super) async fn say(&self, kind: Request, fds: &[BorrowedFd<'_>]) {
        self.end.send(&kind.into(), fds).await.unwrap();
    }

    pub(super) async fn hear(&self) -> Packet {
        self.heard().await.expect("the channel lives")
    }

    /// `None`: the vault has hung up.
    pub(super) async fn heard(&self) -> Option<Packet> {
        let received = tokio::time::timeout(PATIENCE, self.end.receive()).await.expect("in time");
        // A reset is what is left of a channel that was not read to its end.
        let (reply, fds) = received.ok()??;
        Some((reply.kind.unwrap(), fds))
    }

    pub(super) async fn attach_with(
        &self,
        attach: Attach,
        fds: &[BorrowedFd<'_>],
    ) -> (Granted, Vec<OwnedFd>) {
        let hello = Some(self.hello.clone());
        self.say(Request::Attach(Attach { hello, ..attach }), fds).await;
        match self.hear().await {
            (Reply::Granted(granted), fds) => (granted, fds),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn attach(&self) -> (Granted, Vec<OwnedFd>) {
        self.attach_with(Attach { arena_version: VERSION, ..Attach::default() }, &[]).await
    }

    /// Deposits; gives back the answer, and passes over the news before it.
    pub(super) async fn deposit(
        &self,
        ids: &[u64],
        legs: &[BorrowedFd<'_>],
    ) -> vault_reply::Stored {
        self.say(deposit(ids), legs).await;
        loop {
            match self.hear().await.0 {
                Reply::Stored(stored) => return stored,
                Reply::Successor(_) | Reply::HandedAll(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(super) async fn window(&self, tunnels: u32) {
        self.say(Request::Window(vault_request::Window { tunnels }), &[]).await;
    }

    pub(super) async fn handed(&self) -> (Vec<Held>, Vec<OwnedFd>) {
        match self.hear().await {
            (Reply::Handed(handed), fds) => (handed.tunnels, fds),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(super) fn deposit(ids: &[u64]) -> Request {
    let held = |id: &u64| Held { id: *id, index: u32::try_from(*id).unwrap() };
    Request::Deposit(vault_request::Deposit { tunnels: ids.iter().map(held).collect() })
}

pub(super) fn release(ids: &[u64]) -> Request {
    Request::Release(vault_request::Release { ids: ids.to_vec() })
}

pub(super) fn memfd() -> OwnedFd {
    rustix::fs::memfd_create("vault-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap()
}

/// A pipe whose writing end is both legs.
pub(super) fn legs() -> (std::io::PipeReader, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, writer.into())
}
