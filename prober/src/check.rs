//! One check: resolve, connect, TLS, GET, judge the answer.
//!
//! Every check uses a connection of its own, so it sees what a new client's connection would see. Redirects are
//! answers like any other. Nothing of a check outlives it: dropping its future closes its socket.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::expect::BodyMatch;
use crate::failure::{CheckFailure, Phase};
use crate::plan::{Destination, Plan};

/// How much of a body is searched. Health pages are small; a probe pointed at a download must not read it all.
const BODY_LIMIT: usize = 1024 * 1024;

/// Runs one check within the plan's timeout; its words where it succeeds.
pub(crate) async fn check(plan: &Plan) -> Result<String, CheckFailure> {
    let deadline = Deadline { at: Instant::now() + plan.timeout, timeout: plan.timeout };
    let addresses = resolve(plan, deadline).await?;
    let stream = connect(&addresses, &plan.destination, deadline).await?;
    match &plan.tls {
        None => exchange(plan, stream, deadline).await,
        Some(tls) => {
            let connector = TlsConnector::from(tls.config.clone());
            let handshake = connector.connect(tls.name.clone(), stream);
            let stream = deadline
                .bound(Phase::Handshake, handshake)
                .await?
                .map_err(CheckFailure::Handshake)?;
            // Boxed: a TLS stream's state is large, and most checks do not have one.
            Box::pin(exchange(plan, stream, deadline)).await
        }
    }
}

/// The bound on a whole check.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    timeout: Duration,
}

// === impl Deadline ===

impl Deadline {
    async fn bound<T>(
        self,
        phase: Phase,
        step: impl Future<Output = T>,
    ) -> Result<T, CheckFailure> {
        timeout_at(self.at, step)
            .await
            .map_err(|_| CheckFailure::Timeout { timeout: self.timeout, phase })
    }
}

async fn resolve(plan: &Plan, deadline: Deadline) -> Result<Vec<SocketAddr>, CheckFailure> {
    let name = match &plan.destination {
        Destination::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, plan.port)]),
        Destination::Name(name) => name,
    };
    let addresses: Vec<SocketAddr> = deadline
        .bound(Phase::Resolve, lookup_host((name.as_str(), plan.port)))
        .await?
        .map_err(|source| CheckFailure::Resolve { name: name.clone(), source })?
        .collect();
    if addresses.is_empty() {
        return Err(CheckFailure::NoAddress(name.clone()));
    }
    Ok(addresses)
}

/// Tries one address after another. Each gets an even share of the time that is left, so that one which swallows
/// packets leaves some for the next.
async fn connect(
    addresses: &[SocketAddr],
    destination: &Destination,
    deadline: Deadline,
) -> Result<TcpStream, CheckFailure> {
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = addresses.len().saturating_sub(tried);
        let now = Instant::now();
        let share = deadline.at.saturating_duration_since(now)
            / u32::try_from(left).unwrap_or(u32::MAX).max(1);
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // The request goes out in one write; without this its tail may wait for an ACK.
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
            Ok(Err(source)) => {
                last = Some(CheckFailure::Connect { address: *address, others: tried, source });
            }
            Err(_) if left <= 1 && tried == 0 => {
                return Err(CheckFailure::Timeout {
                    timeout: deadline.timeout,
                    phase: Phase::Connect,
                });
            }
            Err(_) => {
                let source = io::ErrorKind::TimedOut.into();
                last = Some(CheckFailure::Connect { address: *address, others: tried, source });
            }
        }
    }
    Err(last.unwrap_or_else(|| CheckFailure::NoAddress(format!("{destination:?}"))))
}

/// Asks and judges. The connection is driven beside the exchange and dropped with it.
async fn exchange<S>(plan: &Plan, stream: S, deadline: Deadline) -> Result<String, CheckFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(CheckFailure::Answer)?;
    let exchange = async {
        let answer = deadline
            .bound(Phase::Answer, sender.send_request(plan.request()))
            .await?
            .map_err(CheckFailure::Answer)?;
        judge(plan, answer, deadline).await
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        // Nothing is lost by dropping the other: the exchange is over.
        judged = &mut exchange => judged,
        // The peer may close right behind its answer, which then waits in hyper's channel for the exchange; an
        // error of the connection reaches the exchange as its own.
        _ended = &mut connection => exchange.await,
    }
}

async fn judge(
    plan: &Plan,
    answer: Response<Incoming>,
    deadline: Deadline,
) -> Result<String, CheckFailure> {
    let status = answer.status();
    if !plan.statuses.contain(status.as_u16()) {
        let expected = plan.statuses.to_string();
        return Err(CheckFailure::Status { got: status.as_u16(), expected });
    }
    let mut wanted = BodyMatch::new(&plan.body);
    let mut body = answer.into_body();
    let mut read = 0_usize;
    while !wanted.found() {
        let Some(frame) = deadline.bound(Phase::Body, body.frame()).await? else {
            return Err(CheckFailure::NoMatch(plan.body.clone()));
        };
        let frame = frame.map_err(|_| CheckFailure::Cut(plan.body.clone()))?;
        let Some(data) = frame.data_ref() else { continue };
        let piece = data.get(..BODY_LIMIT.saturating_sub(read)).unwrap_or(data);
        wanted.push(piece);
        read = read.saturating_add(data.len());
        if !wanted.found() && read >= BODY_LIMIT {
            return Err(CheckFailure::NoMatchYet { limit: BODY_LIMIT, text: plan.body.clone() });
        }
    }
    Ok(format!("status {}", status.as_u16()))
}
