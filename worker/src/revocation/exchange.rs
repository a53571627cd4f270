//! One question to one responder, over HTTP/1.1 (RFC 6960, appendix A): how long, how much, and nothing else. What comes
//! back is bytes; redirects are not followed, and nothing of the gateway's own is told but the question.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::pool::connect::race;
use crate::pool::resolve::Addresses;
use crate::respond::BoxError;
use crate::tls::ocsp::Responder;

/// What a responder has for all of it, its name's lookup and its connection among it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest response. A usual one has half a KiB to three.
const LARGEST: usize = 64 * 1024;
/// Largest head of one.
const LARGEST_HEAD: usize = 16 * 1024;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("the responder's name was not resolved")]
    Resolve(#[source] io::Error),
    #[error("the responder was not reached")]
    Connect(#[source] io::Error),
    #[error("the responder did not answer in HTTP")]
    Http(#[from] hyper::Error),
    #[error("the responder answered with status {0}")]
    Status(StatusCode),
    #[error("the response broke off, or is too long")]
    Body(#[source] BoxError),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the responder did not answer in time")]
    TimedOut,
}

// === impl ExchangeError ===

impl ExchangeError {
    /// Whether nobody was there, rather than somebody who says something else than what was asked.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Resolve(_) | Self::Connect(_) | Self::TimedOut)
    }
}

/// Posts a question.
pub(super) async fn exchange(
    responder: &Responder,
    question: Bytes,
) -> Result<Bytes, ExchangeError> {
    timeout(PATIENCE, post(responder, question)).await.map_err(|_| ExchangeError::TimedOut)?
}

async fn post(responder: &Responder, question: Bytes) -> Result<Bytes, ExchangeError> {
    let found;
    let addresses = if let Some(address) = &responder.literal {
        std::slice::from_ref(address)
    } else {
        found = Addresses::default().of(&responder.host).await.map_err(ExchangeError::Resolve)?;
        &*found
    };
    let stream = race::first_of(addresses, responder.port).await.map_err(ExchangeError::Connect)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LARGEST_HEAD)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await?;
    // Ends with this exchange, whatever comes of it.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(Uri::from(responder.target.clone()))
        .header(HOST, responder.authority.clone())
        .header(CONTENT_TYPE, "application/ocsp-request")
        .header(ACCEPT, "application/ocsp-response")
        .header(CONNECTION, "close")
        .body(Full::new(question))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(ExchangeError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    Ok(body.map_err(ExchangeError::Body)?.to_bytes())
}

#[cfg(test)]
mod tests;
