//! What long work looks like while it goes on: one line on standard error, where that is a terminal, written over again.
//!
//! The line is told by the gateway's own status and never decides anything: work that it cannot look at goes on unseen. Who
//! leaves by Ctrl-C is told what the gateway goes on with.

use std::io::{IsTerminal, stderr};
use std::pin::pin;
use std::time::Duration;

use holdfast_proto::admin::{StatusRequest, StatusResponse, WorkerStatus};
use tokio::time::interval;

use crate::args::Admin;
use crate::dial::{Client, connect};
use crate::failure::{Kind, fail};
use crate::output;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// Waits for work that the gateway does, unless somebody presses Ctrl-C; `then` says what becomes of it in that case.
pub(crate) async fn unless_interrupted<T>(
    then: &str,
    work: impl Future<Output = T>,
) -> anyhow::Result<T> {
    // Cancel-safe: what the gateway has been told it does without us.
    tokio::select! {
        done = work => Ok(done),
        // Where it cannot be caught, it ends this process as ever.
        Ok(()) = tokio::signal::ctrl_c() => {
            Err(fail(Kind::Interrupted, format!("interrupted: {then}")))
        }
    }
}

/// Does some work and shows meanwhile which workers start, which drain, and what they still have.
pub(crate) async fn beside<T>(admin: &Admin, work: impl Future<Output = T>) -> T {
    if !stderr().is_terminal() {
        return work.await;
    }
    let mut work = pin!(work);
    let mut client = None;
    let mut ticks = interval(EVERY);
    loop {
        let look = async {
            ticks.tick().await;
            look(admin, &mut client).await
        };
        // Cancel-safe: the work is only borrowed, and a look that is cut short is done again.
        tokio::select! {
            biased;
            done = &mut work => {
                output::end_progress();
                return done;
            }
            status = look => {
                if let Some(status) = status {
                    output::progress(&told(&status));
                }
            }
        }
    }
}

/// Nothing: nobody answers just now.
async fn look(admin: &Admin, client: &mut Option<Client>) -> Option<StatusResponse> {
    let mut dialled = match client.take() {
        Some(client) => client,
        None => connect(admin).await.ok()?,
    };
    let status = dialled.status(StatusRequest {}).await.ok()?.into_inner();
    *client = Some(dialled);
    Some(status)
}

/// Those that come and go; empty when all stand still.
fn told(status: &StatusResponse) -> String {
    let mut parts = Vec::new();
    for listener in &status.listeners {
        let moves = |worker: &&WorkerStatus| worker.state != "serving";
        for worker in listener.workers.iter().filter(moves) {
            let what = match (worker.state.as_str(), worker.tunnels) {
                ("draining", 0) => "drains".to_owned(),
                ("draining", left) => format!("drains, {} left", output::tunnels_count(left)),
                (state, _) => state.to_owned(),
            };
            parts.push(format!("{}: worker {} {what}", listener.address, worker.pid));
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use holdfast_proto::admin::ListenerStatus;

    use super::*;

    #[test]
    fn workers_that_come_and_go_are_told_with_what_is_left() {
        let worker = |pid, state: &str, tunnels| WorkerStatus {
            pid,
            state: state.into(),
            tunnels,
            ..WorkerStatus::default()
        };
        let status = |workers: Vec<WorkerStatus>| StatusResponse {
            listeners: vec![ListenerStatus {
                address: "127.0.0.1:80".into(),
                workers,
                ..ListenerStatus::default()
            }],
            ..StatusResponse::default()
        };
        let moving = status(vec![worker(1, "draining", 7), worker(2, "starting", 0)]);
        assert_eq!(
            told(&moving),
            "127.0.0.1:80: worker 1 drains, 7 tunnels left; 127.0.0.1:80: worker 2 starting"
        );
        assert_eq!(told(&status(vec![worker(2, "serving", 7)])), "");
    }
}
