//! Admin over the network: its address, its TLS and who is let in, as the document in force says.
//!
//! What must never happen here: that anything listens without TLS on both sides, that a change of this touches traffic, or
//! that one that cannot be carried out takes away what there was. What callers may do is [`crate::grpc`]'s.
//!
//! ```text
//! document → prepare (bind, TLS): can fail, changes nothing → ledger → open → serve: the next door beside the last one
//! ```
//! Calls of a door that has closed go on to their end, unless somebody who came in by it would no longer be let in, or may do
//! less: then all of them have [`LINGER`] for their answers, and their connections are cut. Who may do what is looked up for each call,
//! so that it holds for old connections at once.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_proto::admin;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::change::ChangeError;
use crate::config;
use crate::config::gateway::{AdminClient, AdminIdentity, AdminNetwork, Gateway};
use crate::grpc;
use crate::sockets;
use crate::state::Supervisor;
use crate::upgrade::{self, chain};

pub(crate) mod certificate;
mod connection;

use certificate::Names;
use connection::Connections;
pub(crate) use connection::{Connection, Peer};

/// A TLS handshake is one round trip and some milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Calls at a time on a connection; a page that watches everything has four.
const MOST_CALLS: u32 = 64;
/// Between two questions whether a silent client is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// For answers of a door that is cut. The one to the change that has closed it is on its way already.
const LINGER: Duration = Duration::from_secs(5);
/// Between two attempts to open a door that could not be opened at a start: an interface may come up late.
const RETRY: Duration = Duration::from_secs(5);
/// The name of the problem that operators are told of.
const PROBLEM: &str = "admin network";
/// The same, where it is served all the same.
const FILES: &str = "admin files";

/// Admin over the network, now.
#[derive(Debug, Default)]
pub(crate) struct Network {
    open: watch::Sender<Option<Arc<Door>>>,
    /// What is in force wants a door that there is not.
    missing: watch::Sender<bool>,
}

/// Where and how operators come in.
#[derive(Debug)]
pub(crate) struct Door {
    settings: Arc<AdminNetwork>,
    identity: Arc<AdminIdentity>,
    socket: TcpListener,
    /// With the TLS of both.
    server: Server,
}

/// What a document makes of the network, not in force yet. What was bound for it is free again when it is let go of.
pub(crate) enum Prepared {
    Same,
    Shut,
    Open(Arc<Door>),
}

/// Why admin over the network is not as a document says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// The address.
    #[error("cannot listen on {address}: {why}")]
    Bind { address: SocketAddr, why: io::Error },
    /// Of a document that was good once.
    #[error("a certificate, key or authority of it can no longer be used")]
    Files,
    /// The certificate is none that TLS can be served with.
    #[error("its certificates cannot be used for TLS: {0}")]
    Tls(String),
}

// === impl NetworkError ===

impl NetworkError {
    /// What to do about it.
    pub(crate) fn mend(&self) -> &'static str {
        match self {
            Self::Bind { why, .. } => match why.kind() {
                io::ErrorKind::AddrInUse => {
                    "choose another port, or free this one (`ss -ltnp` tells who has it)"
                }
                io::ErrorKind::AddrNotAvailable => "write an address of this host",
                io::ErrorKind::PermissionDenied => "choose a port from 1024 on",
                _ => "choose another address or port",
            },
            Self::Files | Self::Tls(_) => {
                "give a chain, its key and the authorities of clients, in PEM"
            }
        }
    }
}

// === impl Network ===

impl Network {
    /// Makes ready what a document wants; nothing is changed by it.
    pub(crate) fn prepare(
        &self,
        wanted: Option<&Arc<AdminNetwork>>,
        kept: Option<TcpListener>,
    ) -> Result<Prepared, NetworkError> {
        let now = self.open.borrow().clone();
        let Some(wanted) = wanted else {
            return Ok(if now.is_some() { Prepared::Shut } else { Prepared::Same });
        };
        if now.as_ref().is_some_and(|door| door.settings == *wanted) {
            return Ok(Prepared::Same);
        }
        let address = wanted.listen;
        // Files that cannot be used now: what they held before is as good as it was.
        let identity = wanted.identity.clone().or_else(|| Some(now.as_ref()?.identity.clone()));
        let identity = identity.ok_or(NetworkError::Files)?;
        let server = server(&identity)?;
        let bound = kept.filter(|it| it.local_addr().is_ok_and(|bound| bound == address));
        let socket = match (now.filter(|door| door.settings.listen == address), bound) {
            (Some(door), _) => door.socket.try_clone(),
            (None, Some(bound)) => Ok(bound),
            (None, None) => sockets::listen(address),
        };
        let socket = socket.map_err(|why| NetworkError::Bind { address, why })?;
        let settings = wanted.clone();
        Ok(Prepared::Open(Arc::new(Door { settings, identity, socket, server })))
    }

    /// The client that a certificate is of, if it is one of those that are let in.
    pub(crate) fn client(&self, names: &Names) -> Option<AdminClient> {
        let door = self.open.borrow();
        let mut clients = door.as_ref()?.settings.clients.iter();
        clients.find(|client| names.has(&client.name)).cloned()
    }
}

/// A server whose clients must show a certificate of the authorities.
fn server(identity: &AdminIdentity) -> Result<Server, NetworkError> {
    let chain_pem: String = identity.chain_der.iter().map(|der| pem("CERTIFICATE", der)).collect();
    let authorities = identity.authorities_der.iter();
    let authorities: String = authorities.map(|der| pem("CERTIFICATE", der)).collect();
    let own = Identity::from_pem(chain_pem, pem("PRIVATE KEY", &identity.key_der));
    let tls = ServerTlsConfig::new()
        .identity(own)
        .client_ca_root(Certificate::from_pem(authorities))
        .timeout(HANDSHAKE);
    let server = Server::builder()
        .max_concurrent_streams(MOST_CALLS)
        .http2_keepalive_interval(Some(KEEPALIVE));
    server.tls_config(tls).map_err(|error| NetworkError::Tls(chain(&error)))
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// What changes from one to the other, for a plan that people read.
pub(crate) fn difference(
    before: Option<&Arc<AdminNetwork>>,
    after: Option<&Arc<AdminNetwork>>,
) -> Option<admin::Change> {
    let (kind, address, detail) = match (before, after) {
        (None, None) => return None,
        (Some(before), Some(after)) if before == after => return None,
        (None, Some(after)) => ("add", after.listen, String::new()),
        (Some(before), None) => ("remove", before.listen, String::new()),
        (Some(before), Some(after)) => {
            let parts = [
                ("address", before.listen != after.listen),
                ("clients", before.clients != after.clients),
                ("certificates", before.identity != after.identity),
            ];
            let parts = parts.iter().filter(|(_, changed)| *changed).map(|(part, _)| *part);
            ("update", after.listen, parts.collect::<Vec<_>>().join(", "))
        }
    };
    let what = format!("admin {address}");
    Some(admin::Change { what, kind: kind.to_owned(), detail, tunnels: 0 })
}

impl Supervisor {
    /// Makes ready what a document wants.
    ///
    /// # Errors
    /// It cannot be had; told of the document's place.
    pub(crate) fn prepare_network(
        &self,
        gateway: &Gateway,
        document: &str,
    ) -> Result<Prepared, ChangeError> {
        // Since an upgrade that could not open it, the socket may be here without a door.
        let kept = self.upgrades.kept(upgrade::ADMIN_NETWORK).map(TcpListener::from);
        self.network.prepare(gateway.global.admin.as_ref(), kept).map_err(|error| {
            let (reason, mend) = (error.to_string(), error.mend().to_owned());
            ChangeError::Invalid(vec![config::about_admin(document, reason, mend)])
        })
    }

    /// Puts in force what was prepared. Nothing of it can fail any more.
    pub(crate) fn open_network(&self, prepared: Prepared) {
        let next = match prepared {
            Prepared::Same => {
                if self.network.open.borrow().is_none() {
                    self.upgrades.forget(upgrade::ADMIN_NETWORK);
                }
                return self.network_is_missing(None);
            }
            Prepared::Shut => None,
            Prepared::Open(door) => Some(door),
        };
        let stays = |address| next.as_ref().is_some_and(|door| door.settings.listen == address);
        let before = self.network.open.borrow().clone();
        if let Some(before) = before.filter(|before| !stays(before.settings.listen)) {
            tracing::info!(address = %before.settings.listen, "admin over the network is closed here");
            sockets::give_back(&before.socket);
        }
        let broken = next.as_ref().is_some_and(|door| door.settings.identity.is_none());
        self.problem(
            FILES,
            broken.then(|| {
                "files of admin over the network cannot be used; what they held before is served"
                    .to_owned()
            }),
        );
        match &next {
            Some(door) => {
                let clients = door.settings.clients.len();
                tracing::info!(address = %door.settings.listen, clients, "admin over the network is open");
                if let Err(error) = self.upgrades.keep(upgrade::ADMIN_NETWORK, &door.socket) {
                    tracing::warn!(%error, "an upgrade will refuse operators over the network for a moment");
                }
            }
            None => self.upgrades.forget(upgrade::ADMIN_NETWORK),
        }
        self.network.open.send_replace(next);
        self.network_is_missing(None);
    }

    /// Opens what the revision in force wants and is not there. Traffic never waits for it: what cannot be opened is told,
    /// and tried again.
    pub(crate) fn restore_network(&self) {
        let in_force = self.in_force();
        let wanted = in_force.as_ref().and_then(|it| it.gateway.global.admin.as_ref());
        let kept = self.upgrades.kept(upgrade::ADMIN_NETWORK).map(TcpListener::from);
        match self.network.prepare(wanted, kept) {
            Ok(prepared) => self.open_network(prepared),
            Err(error) => self.network_is_missing(Some(&error)),
        }
    }

    fn network_is_missing(&self, error: Option<&NetworkError>) {
        let told = error
            .map(|error| format!("admin over the network is not as the document says: {error}"));
        let changed = self.network.missing.send_if_modified(|missing| {
            std::mem::replace(missing, error.is_some()) != error.is_some()
        });
        if let (true, Some(told)) = (changed, &told) {
            tracing::error!("{told}");
        }
        self.problem(PROBLEM, told);
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "Same",
            Self::Shut => "Shut",
            Self::Open(_) => "Open",
        })
    }
}

/// Serves whatever door is open, until `ended`; then calls have their answers, until whoever waits loses patience.
pub(crate) async fn serve(supervisor: Arc<Supervisor>, ended: impl Future<Output = ()>) {
    let mut doors = supervisor.network.open.subscribe();
    let mut ended = pin!(ended);
    let mut retry = interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let door = doors.borrow_and_update().clone();
        let serving = door.as_ref().and_then(|door| Serving::begin(&supervisor, door));
        let over = loop {
            // Cancel-safe, all three: they only wait.
            tokio::select! {
                () = &mut ended => break true,
                changed = doors.changed() => break changed.is_err(),
                _ = retry.tick() => {
                    try_again(&supervisor);
                    if door.is_some() && serving.is_none() {
                        break false;
                    }
                }
            }
        };
        if over {
            if let Some(serving) = serving {
                // It may wait for a client that watches something for ever; who waits for this loses patience.
                serving.end().await;
            }
            return;
        }
        let Some(serving) = serving else { continue };
        let next = doors.borrow().clone();
        let stays = |door: &Arc<Door>| next.as_ref().is_some_and(|next| keeps(door, next));
        let cut = !door.as_ref().is_some_and(stays);
        tokio::spawn(serving.retire(cut));
    }
}

/// Whether everybody who came in by one door would be let in by the next one, and may do there what that allowed.
fn keeps(door: &Door, next: &Door) -> bool {
    let may = |client: &AdminClient| {
        let mut clients = next.settings.clients.iter();
        clients.find(|it| it.name == client.name).is_some_and(|it| it.role >= client.role)
    };
    door.identity.authorities_der == next.identity.authorities_der
        && door.settings.clients.iter().all(may)
}

fn try_again(supervisor: &Supervisor) {
    if !*supervisor.network.missing.borrow() {
        return;
    }
    // A change that is under way brings its own.
    if let Ok(_unchanged) = supervisor.changing.try_lock() {
        supervisor.restore_network();
    }
}

/// A door that is served.
struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    connections: Arc<Connections>,
}

// === impl Serving ===

impl Serving {
    fn begin(supervisor: &Arc<Supervisor>, door: &Door) -> Option<Self> {
        let listener = door.socket.try_clone().and_then(tokio::net::TcpListener::from_std);
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                // Out of descriptors, say. The unix socket is there.
                tracing::error!(%error, "admin over the network cannot be served");
                return None;
            }
        };
        let connections = Arc::new(Connections::default());
        let incoming = connections.clone().incoming(listener);
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let (supervisor, server) = (supervisor.clone(), door.server.clone());
        let task = tokio::spawn(async move {
            let served = grpc::serve_network(supervisor, server, incoming, stopped).await;
            if let Err(error) = served {
                tracing::error!(error = &error as &dyn std::error::Error, "admin over the network");
            }
        });
        Some(Self { stop, task, connections })
    }

    /// Takes no new calls, and ends with the last one.
    async fn end(self) {
        // A server that has failed is not there to be told.
        self.stop.send(()).unwrap_or_default();
        drop(self.task.await);
    }

    /// The same beside the next one. Whoever is shaking hands is served still; `cut`: but nobody for long.
    async fn retire(self, cut: bool) {
        let Self { stop, task, connections } = self;
        let ending = async {
            // Each has its own time limit; this one is for a server that has failed.
            drop(timeout(HANDSHAKE, connections.close()).await);
            stop.send(()).unwrap_or_default();
            drop(task.await);
        };
        if !cut {
            ending.await;
        } else if timeout(LINGER, ending).await.is_err() {
            connections.cut();
        }
    }
}

#[cfg(test)]
mod tests;
