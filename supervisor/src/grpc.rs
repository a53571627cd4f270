//! The three gRPC faces: operators on `admin.sock` and over the network, workers and prober on `control.sock`.
//!
//! Thin: each method turns a message into a call and back; the only makers of `tonic::Status` are in here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use holdfast_proto::admin::admin_server::AdminServer;
use holdfast_proto::control::Hello;
use holdfast_proto::control::prober_control_server::ProberControlServer;
use holdfast_proto::control::worker_control_server::WorkerControlServer;
use tokio::net::UnixListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::audit::Who;
use crate::children::{self, Incarnation};
use crate::network::Connection;
use crate::state::Supervisor;

mod admin;
mod explain;
mod foreign;
pub(crate) mod history;
mod incoming;
mod names;
mod probe;
mod roles;
pub(crate) mod view;
mod worker;

/// Bytes of what a worker may say at once.
const LONGEST_REPORT: usize = 64 * 1024 * 1024;
/// Largest admin request: a document with its certificates, bytes.
const LARGEST_DOCUMENT: usize = 32 * 1024 * 1024;

/// Serves operators until `stop`. Whoever may open the socket may do everything.
pub async fn serve_operators(
    supervisor: Arc<Supervisor>,
    socket: Arc<UnixListener>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let dialled = incoming::incoming(socket, "operators");
    let mut server = Server::builder();
    server.add_routes(routes(supervisor).await).serve_with_incoming_shutdown(dialled, stop).await
}

/// Serves operators over the network until `stop`, by a server with TLS. Each may do what his role allows.
pub(crate) async fn serve_network(
    supervisor: Arc<Supervisor>,
    server: Server,
    dialled: impl Stream<Item = std::io::Result<Connection>>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let mut server = server.layer(roles::Guard::new(supervisor.clone()));
    server.add_routes(routes(supervisor).await).serve_with_incoming_shutdown(dialled, stop).await
}

/// What operators can call.
async fn routes(supervisor: Arc<Supervisor>) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    let admin = AdminServer::new(admin::Operators::new(supervisor))
        .max_decoding_message_size(LARGEST_DOCUMENT)
        .max_encoding_message_size(LARGEST_DOCUMENT);
    health.set_serving::<AdminServer<admin::Operators>>().await;
    let mut routes = Routes::new(health_service).add_service(admin);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(holdfast_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Older tools know the older one only.
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(new), Ok(old)) => routes = routes.add_service(new).add_service(old),
        (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "no reflection service"),
    }
    routes
}

/// Serves workers and the prober until `stop`.
pub async fn serve_children(
    supervisor: Arc<Supervisor>,
    socket: UnixListener,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let dialled = incoming::incoming(Arc::new(socket), "workers and prober");
    // What a worker says of its pools and tunnels grows with them. It is trusted with less than what it is sent.
    let workers = WorkerControlServer::new(worker::Workers::new(supervisor.clone()))
        .max_decoding_message_size(LONGEST_REPORT);
    Server::builder()
        .add_service(workers)
        .add_service(ProberControlServer::new(probe::Probers::new(supervisor)))
        .serve_with_incoming_shutdown(dialled, stop)
        .await
}

/// The pid and uid at the other end of a request's socket.
fn peer<T>(request: &Request<T>) -> Option<(u32, u32)> {
    let info = request.extensions().get::<UdsConnectInfo>()?;
    let cred = info.peer_cred?;
    Some((u32::try_from(cred.pid()?).ok()?, cred.uid()))
}

/// Who asks for something.
fn who<T>(request: &Request<T>) -> Who {
    // Written down by the guard of callers over the network.
    if let Some(client) = request.extensions().get::<Who>() {
        return client.clone();
    }
    peer(request).map_or(Who::Unknown, |(pid, uid)| Who::Process { pid, uid })
}

/// Who opens a session: its first message must be a Hello that fits.
fn recognise(
    supervisor: &Supervisor,
    hello: Option<&Hello>,
    peer: Option<(u32, u32)>,
) -> Result<Arc<Incarnation>, Status> {
    let incarnation = identify(supervisor, hello, peer)?;
    match hello.and_then(children::foreign) {
        Some(stranger) => Err(Status::failed_precondition(stranger.to_string())),
        None => Ok(incarnation),
    }
}

/// The same, in whatever protocol.
fn identify(
    supervisor: &Supervisor,
    hello: Option<&Hello>,
    peer: Option<(u32, u32)>,
) -> Result<Arc<Incarnation>, Status> {
    let hello = hello.ok_or_else(|| Status::failed_precondition("the first message is Hello"))?;
    let (pid, _) = peer.ok_or_else(|| Status::unauthenticated("no peer credentials"))?;
    supervisor.children.identify(hello, pid).map_err(|stranger| {
        supervisor.children.note_stranger(pid, stranger);
        Status::permission_denied(stranger.to_string())
    })
}

/// Zero means "no deadline" on the wire; a deadline of now is one millisecond away.
fn deadline_ms(deadline: Option<Duration>) -> u64 {
    deadline.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1))
}
