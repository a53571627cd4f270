//! What signals mean: SIGTERM and SIGINT stop, a second one at once; SIGHUP reads the configuration file again.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::state::Supervisor;

/// The signals that a supervisor answers.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on they no longer end the process by themselves.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Carries signals out for as long as there are any. The second of those that stop does not wait for tunnels.
    pub(crate) async fn heed(mut self, supervisor: Arc<Supervisor>) {
        let hangups = Arc::new(Notify::new());
        tokio::spawn(reload_at(hangups.clone(), supervisor.clone()));
        loop {
            // Cancel-safe: signals.
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    hangups.notify_one();
                    continue;
                }
            }
            // Whoever asks twice, in whichever way, is in a hurry.
            let again = supervisor.stopping();
            let patience = if again { Duration::ZERO } else { supervisor.stop_drain() };
            supervisor.begin_stop(patience);
        }
    }
}

/// One reload at a time. However many signals come during one, they are one permit: one more reload afterwards, which
/// reads the file later than the last of them.
async fn reload_at(hangups: Arc<Notify>, supervisor: Arc<Supervisor>) {
    loop {
        hangups.notified().await;
        hangup(&supervisor).await;
    }
}

async fn hangup(supervisor: &Supervisor) {
    supervisor.started().await;
    match supervisor.reload("reload of", "SIGHUP".to_owned()).await {
        Ok(outcome) => tracing::info!("{}", outcome.message),
        Err(error) => {
            for diagnostic in error.diagnostics() {
                tracing::error!("{diagnostic}");
            }
            tracing::error!(error = &*error as &dyn std::error::Error, "reload refused");
        }
    }
}
