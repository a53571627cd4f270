//! Connections of a private socket, for as long as there is a supervisor: a shortage of descriptors makes diallers wait.
//! It must never end the service, and never be asked for without a pause: the kernel says no at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::net::{UnixListener, UnixStream};

/// Before the next accept when there are no descriptors left: they come back when something is closed.
const PAUSE: Duration = Duration::from_millis(100);

/// Whoever dials `listener`, for ever; `who` waits is for the log.
pub(super) fn incoming(
    listener: Arc<UnixListener>,
    who: &'static str,
) -> impl Stream<Item = io::Result<UnixStream>> {
    unfold((listener, false), move |(listener, mut short)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if short {
                        tracing::info!("{who} are heard again");
                    }
                    return Some((Ok(stream), (listener, false)));
                }
                Err(error) => {
                    // Once a shortage: it is asked for many times.
                    if !std::mem::replace(&mut short, true) {
                        tracing::warn!(%error, "cannot accept on a private socket: {who} wait in its queue");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}
