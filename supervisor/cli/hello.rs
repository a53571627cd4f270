//! The first word with a gateway: before it is asked for anything, it has to answer at all.
//!
//! A supervisor that is stopped, or hangs, takes connections like any other, as the kernel does that for it. Asked straight
//! away, it would be waited for without an end, and would carry the command out whenever it goes on. So it is asked for its
//! health first, in gRPC's own words, which changes nothing; nobody is waited for longer than [`LONGEST`].

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::failure::{Kind, fail};
use crate::{left, output};

/// Longest wait for a supervisor that runs: more than it takes to become another executable on a machine that swaps.
const LONGEST: Duration = Duration::from_secs(30);
/// One that is found stopped for so long is not about to go on.
const STOPPED: Duration = Duration::from_secs(3);
/// A gateway that becomes another executable hangs up once or twice.
const MOST_CUTS: u32 = 20;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Who waits at a terminal for longer is told so.
const NOTICE: Duration = Duration::from_secs(2);

/// How much longer somebody is waited for who has been dialled since a moment.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    socket: &'a Path,
    begun: Instant,
    stopped_since: Option<Instant>,
    cuts: u32,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It answers.
    Answer,
    /// The connection was cut: a supervisor that became another executable just then, say. Nothing was asked.
    Cut,
}

// === impl Patience ===

impl<'a> Patience<'a> {
    /// All of it, for who is to answer on a socket.
    pub(crate) fn new(socket: &'a Path) -> Self {
        Self { socket, begun: Instant::now(), stopped_since: None, cuts: 0 }
    }

    /// Waits for the first word.
    pub(crate) async fn hear(&mut self, channel: &Channel) -> anyhow::Result<Heard> {
        let mut client = HealthClient::new(channel.clone());
        let mut word = pin!(client.check(HealthCheckRequest::default()));
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: the question is only borrowed.
            tokio::select! {
                biased;
                answer = &mut word => {
                    output::end_progress();
                    return Ok(match answer {
                        // Made here, not by the gateway.
                        Err(status) if std::error::Error::source(&status).is_some() => Heard::Cut,
                        // Whatever it says, it answers.
                        Ok(_) | Err(_) => Heard::Answer,
                    });
                }
                _ = looks.tick() => self.look()?,
            }
        }
    }

    /// Fails where whoever listens hangs up again and again.
    pub(crate) fn note_cut(&mut self) -> anyhow::Result<()> {
        self.cuts += 1;
        if self.cuts < MOST_CUTS {
            return self.look();
        }
        let at = self.socket.display();
        Err(fail(
            Kind::NoAnswer,
            format!(
                "who answers on {at} is no Holdfast gateway: it hangs up. Nothing was asked or changed; name the admin.sock of \
                 a gateway's runtime directory with --admin unix:PATH"
            ),
        ))
    }

    /// Fails where there is no more of it.
    fn look(&mut self) -> anyhow::Result<()> {
        let runtime_dir = self.socket.parent().unwrap_or(Path::new("/"));
        let supervisor = supervisor_in(runtime_dir);
        match supervisor.filter(|pid| is_stopped(*pid)) {
            Some(pid) => {
                let since = *self.stopped_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= STOPPED {
                    return Err(fail(Kind::NoAnswer, stopped(pid, runtime_dir)));
                }
            }
            None => self.stopped_since = None,
        }
        if self.begun.elapsed() >= LONGEST {
            return Err(fail(Kind::NoAnswer, silent(supervisor, runtime_dir)));
        }
        if self.begun.elapsed() >= NOTICE && stderr().is_terminal() {
            output::progress("waiting for the gateway to answer");
        }
        Ok(())
    }
}

fn stopped(pid: u32, runtime_dir: &Path) -> String {
    format!(
        "the gateway's supervisor (pid {pid}) is stopped, by a SIGSTOP or a debugger. Nothing was asked or changed. {}`kill \
         -CONT {pid}` lets it go on",
        left::serving(runtime_dir)
    )
}

fn silent(pid: Option<u32>, runtime_dir: &Path) -> String {
    let (named, kill) = match pid {
        Some(pid) => (format!(" (pid {pid})"), format!("`kill -9 {pid}`")),
        None => (String::new(), "SIGKILL".to_owned()),
    };
    format!(
        "the gateway's supervisor{named} has not answered for {LONGEST:?}: the machine is overloaded, or it hangs. Nothing \
         was asked or changed. {}Try again; if it stays so, {kill} ends the supervisor alone, and `systemctl start holdfast` \
         or `holdfast run` adopts its workers with their connections",
        left::serving(runtime_dir)
    )
}

/// The supervisor on a runtime directory, as it has written down.
fn supervisor_in(runtime_dir: &Path) -> Option<u32> {
    let pid = fs::read_to_string(runtime_dir.join("holdfast.pid")).ok()?;
    pid.trim().parse().ok()
}

/// Whether a process is stopped, or held by a debugger (proc(5)).
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn who_runs_is_not_stopped_and_who_is_not_there_neither() {
        assert!(!is_stopped(std::process::id()));
        assert!(!is_stopped(u32::MAX));
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(supervisor_in(directory.path()), None);
        fs::write(directory.path().join("holdfast.pid"), "17\n").unwrap();
        assert_eq!(supervisor_in(directory.path()), Some(17));
    }

    #[test]
    fn nobody_is_waited_for_without_an_end() {
        let mut patience = Patience::new(Path::new("/nowhere/admin.sock"));
        assert!(patience.look().is_ok());
        patience.begun = patience.begun.checked_sub(LONGEST).unwrap();
        let told = patience.look().unwrap_err().to_string();
        for part in ["has not answered for 30s", "Nothing was asked", "SIGKILL"] {
            assert!(told.contains(part), "{part} is not in: {told}");
        }
    }
}
