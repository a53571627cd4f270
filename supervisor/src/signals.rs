//! What signals mean: SIGTERM and SIGINT stop, a second one at once; SIGHUP reads the configuration file again; SIGUSR2
//! upgrades. SIGUSR1 is the service manager's, where it has no time to ask: this process ends and leaves the workers to the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::audit::{Audit, Who};
use crate::change::file::Occasion;
use crate::state::Supervisor;
use crate::upgrade::early;

/// The signals that a supervisor answers.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
    detach: Signal,
    /// Never read. Who has started this process may have it ignore them, and then nobody is told how a child has ended.
    _children: Signal,
}

impl Signals {
    /// From here on they no longer end the process by themselves.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            detach: signal(SignalKind::user_defined1())?,
            _children: signal(SignalKind::child())?,
        })
    }

    /// Carries signals out for as long as there are any. The second of those that stop does not wait for tunnels.
    pub(crate) async fn heed(mut self, supervisor: Arc<Supervisor>) {
        let hangups = Arc::new(Notify::new());
        tokio::spawn(reload_at(hangups.clone(), supervisor.clone()));
        // Those that came while this process re-executed itself.
        let early = early::take();
        if early.stop {
            stop(&supervisor).await;
        }
        if early.hangup {
            hear(&supervisor, &hangups);
        }
        loop {
            // Cancel-safe: signals.
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    hear(&supervisor, &hangups);
                    continue;
                }
                _ = self.upgrade.recv() => {
                    tokio::spawn(upgrade(supervisor.clone()));
                    continue;
                }
                _ = self.detach.recv() => {
                    detach(&supervisor).await;
                    continue;
                }
            }
            stop(&supervisor).await;
        }
    }
}

/// Whoever asks twice, in whichever way, is in a hurry.
async fn stop(supervisor: &Supervisor) {
    let again = supervisor.stopping();
    let patience = if again { Duration::ZERO } else { supervisor.stop_drain() };
    let revision = supervisor.revision();
    let audit = Audit::begin(&Who::Signal("SIGTERM or SIGINT"), "Stop", "", revision).await;
    supervisor.begin_stop(patience);
    audit.done(&format!("drains for {patience:?} at most"), revision);
}

async fn detach(supervisor: &Supervisor) {
    let revision = supervisor.revision();
    let audit = Audit::begin(&Who::Signal("SIGUSR1"), "Stop", "", revision).await;
    audit.done(supervisor.begin_detach(), revision);
}

/// Counted, so that one that is not answered before an upgrade is answered after it.
fn hear(supervisor: &Supervisor, hangups: &Notify) {
    supervisor.upgrades.hangups.fetch_add(1, Ordering::Relaxed);
    hangups.notify_one();
}

/// One reload at a time. However many signals come during one, they are one permit: one more reload afterwards, which
/// reads the file later than the last of them.
async fn reload_at(hangups: Arc<Notify>, supervisor: Arc<Supervisor>) {
    loop {
        hangups.notified().await;
        let heard = supervisor.upgrades.hangups.load(Ordering::Relaxed);
        hangup(&supervisor).await;
        supervisor.upgrades.hangups.fetch_sub(heard, Ordering::Relaxed);
    }
}

async fn hangup(supervisor: &Supervisor) {
    supervisor.started().await;
    let who = Who::Signal("SIGHUP");
    let audit = Audit::begin(&who, "Reload", "", supervisor.revision()).await;
    let reloaded = supervisor.reload(Occasion::Hangup, audit.by().to_owned()).await;
    audit.changed(&reloaded, supervisor.revision());
    match reloaded {
        Ok(outcome) => tracing::info!("{}", outcome.message),
        Err(error) => {
            for diagnostic in error.diagnostics() {
                tracing::error!("{diagnostic}");
            }
            tracing::error!(error = &*error as &dyn std::error::Error, "reload refused");
        }
    }
}

/// To the file that this executable was started from, as `holdfast upgrade` does without a path.
async fn upgrade(supervisor: Arc<Supervisor>) {
    supervisor.started().await;
    let revision = supervisor.revision();
    let audit = Audit::begin(&Who::Signal("SIGUSR2"), "Upgrade", "", revision).await;
    match supervisor.upgrades.ask(None, audit.by().to_owned()) {
        Ok(_) => audit.done("begun; the log tells its steps", revision),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "upgrade refused");
            audit.refused(&error.to_string(), revision);
        }
    }
}
