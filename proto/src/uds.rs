//! tonic over unix sockets: how a child or the CLI dials one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Longest path that fits `sockaddr_un`, bytes (108 with the terminating zero; unix(7)).
pub const LONGEST_SOCKET_PATH: usize = 107;

/// A gRPC channel over the unix socket at `path`.
///
/// # Errors
/// What dialling gave: nobody listens there, no permission, a path that is too long.
pub async fn connect(path: &Path) -> Result<Channel, tonic::transport::Error> {
    dial(endpoint(), path).await
}

/// The same, for who must not wait for ever: calls fail when the other end has not answered a ping of HTTP/2 for twice
/// `silence`, however long they take themselves.
///
/// # Errors
/// As [`connect`].
pub async fn connect_watched(
    path: &Path,
    silence: Duration,
) -> Result<Channel, tonic::transport::Error> {
    let watched = endpoint().http2_keep_alive_interval(silence).keep_alive_timeout(silence);
    dial(watched, path).await
}

/// The URI only fills HTTP/2's :authority; the connector decides where the bytes go.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://holdfast.local")
}

async fn dial(endpoint: Endpoint, path: &Path) -> Result<Channel, tonic::transport::Error> {
    let path: PathBuf = path.to_owned();
    endpoint
        .connect_with_connector(service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
}
