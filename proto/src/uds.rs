//! tonic over unix sockets: how a child or the CLI dials one.

use std::path::{Path, PathBuf};

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
    let path: PathBuf = path.to_owned();
    // The URI only fills HTTP/2's :authority; the connector decides where the bytes go.
    Endpoint::from_static("http://holdfast.local")
        .connect_with_connector(service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
}
