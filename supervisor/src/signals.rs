//! Signals of the supervisor: SIGTERM and SIGINT stop, SIGHUP reads the configuration file again.
//!
//! They are caught before anything is started, so that none of them ends the process half-way.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::grpc;
use crate::state::Supervisor;

/// The signals, caught.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Until SIGTERM or SIGINT.
    pub(crate) async fn told_to_stop(&mut self) {
        // Cancel-safe: signals.
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Until SIGTERM, SIGINT or an operator's `stop`. A second one stops without waiting for tunnels.
    pub(crate) async fn until_stop(mut self, supervisor: &Arc<Supervisor>) {
        let mut stop = supervisor.stop.subscribe();
        loop {
            // Cancel-safe: signals and a watch.
            tokio::select! {
                _ = self.terminate.recv() => supervisor.begin_stop(grpc::STOP_DRAIN),
                _ = self.interrupt.recv() => supervisor.begin_stop(grpc::STOP_DRAIN),
                _ = self.hangup.recv() => {
                    let supervisor = supervisor.clone();
                    tokio::spawn(async move { hangup(&supervisor).await });
                    continue;
                }
                _ = stop.changed() => {}
            }
            break;
        }
        let supervisor = supervisor.clone();
        tokio::spawn(async move {
            // Either signal: whoever asks twice is in a hurry.
            self.told_to_stop().await;
            supervisor.begin_stop(Duration::ZERO);
        });
    }
}

async fn hangup(supervisor: &Supervisor) {
    match supervisor.reload("reload of", "SIGHUP".to_owned()).await {
        Ok(outcome) => tracing::info!("{}", outcome.message),
        Err(error) => {
            for diagnostic in error.diagnostics() {
                tracing::error!("{diagnostic}");
            }
            tracing::error!(error = &error as &dyn std::error::Error, "reload refused");
        }
    }
}
