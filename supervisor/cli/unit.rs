//! `holdfast stop --from-systemd`: what the unit runs to end the gateway, before the manager sends any signal.
//!
//! Which end it is, the manager's own job says: a restart leaves the workers to the next supervisor, a stop drains. A restart
//! never drains, whatever goes wrong: a supervisor that does not answer is killed, which its workers outlive. Called by
//! anybody else it does nothing: without a job there is nothing that it could know.

use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_proto::admin::StopRequest;
use holdfast_proto::process::{self, ProcessId};
use holdfast_supervisor::directories::runtime_default;
use holdfast_supervisor::left;
use tokio::time::timeout;

use crate::args::Admin;
use crate::dial::{connect, failed};
use crate::{Outcome, output};

/// For an answer of the supervisor, and for its end where it only has to let go.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where it cannot be told.
const UNIT: &str = "holdfast.service";
/// Either is set for each command that the manager runs at an end (systemd.exec(5)).
const CALLED: [&str; 2] = ["MAINPID", "SERVICE_RESULT"];

/// What the manager does with the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Restart,
    Stop,
}

/// Ends the gateway as the manager's job wants it, and waits for that.
pub(crate) async fn stop(admin: &Admin) -> anyhow::Result<Outcome> {
    if !CALLED.iter().any(|name| std::env::var_os(name).is_some()) {
        output::complain(
            "holdfast: --from-systemd is for the unit's ExecStop, and nothing was done. To stop the gateway: \
             holdfast stop\n",
        );
        return Ok(Outcome::Refused);
    }
    let job = job();
    let main = std::env::var("MAINPID").ok().and_then(|pid| pid.parse().ok());
    let Some(main) = main.and_then(|pid| ProcessId::of(pid).ok()) else {
        // The supervisor is gone already. Nobody comes for its workers where this is a stop.
        if job == Some(Job::Stop) {
            let ended = left::end(&runtime_default()).await;
            if ended > 0 {
                output::complain(&format!("ended {ended} processes that had no supervisor\n"));
            }
        }
        return Ok(Outcome::Done);
    };
    let detach = job == Some(Job::Restart);
    let asked = timeout(PATIENCE, ask(admin, detach)).await;
    let refusal = match asked {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some(format!("the gateway has not answered in {PATIENCE:?}")),
    };
    if !detach {
        if let Some(refusal) = refusal {
            // The manager has signals.
            output::complain(&format!("holdfast: {refusal}\n"));
            return Ok(Outcome::Refused);
        }
        process::gone(main).await;
        return Ok(Outcome::Done);
    }
    if refusal.is_none() && timeout(PATIENCE, process::gone(main)).await.is_ok() {
        return Ok(Outcome::Done);
    }
    let why = refusal.unwrap_or_else(|| "the supervisor does not end".to_owned());
    output::complain(&format!("holdfast: {why}; killing it, its workers live on\n"));
    left::kill(main);
    process::gone(main).await;
    Ok(Outcome::Done)
}

async fn ask(admin: &Admin, detach: bool) -> anyhow::Result<()> {
    let request = StopRequest { drain_timeout_ms: None, detach };
    let answer = connect(admin).await?.stop(request).await;
    answer.map(drop).map_err(|error| failed(&error))
}

fn job() -> Option<Job> {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unit = unit_of(&cgroup).unwrap_or(UNIT);
    let asked = Command::new("systemctl")
        .args(["list-jobs", "--no-legend", "--no-pager", "--plain", unit])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    match asked {
        Ok(answer) => job_in(&String::from_utf8_lossy(&answer.stdout), unit),
        Err(error) => {
            output::complain(&format!(
                "holdfast: cannot ask systemctl what is to be done: {error}\n"
            ));
            None
        }
    }
}

/// The service that a process belongs to, by its `/proc/PID/cgroup`.
fn unit_of(cgroup: &str) -> Option<&str> {
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut names = paths.flat_map(|path| path.rsplit('/'));
    names.find(|name| name.ends_with(".service"))
}

/// What `systemctl list-jobs` says of a unit: `number unit type state`.
fn job_in(listing: &str, unit: &str) -> Option<Job> {
    let columns = |line: &str| -> Option<Job> {
        let mut words = line.split_whitespace().skip(1);
        if words.next() != Some(unit) {
            return None;
        }
        match words.next()? {
            "restart" | "try-restart" => Some(Job::Restart),
            "stop" => Some(Job::Stop),
            _ => None,
        }
    };
    listing.lines().find_map(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_from_a_stop() {
        let listing =
            " 12 other.service    stop    running\n 1304 holdfast.service restart running\n";
        assert_eq!(job_in(listing, "holdfast.service"), Some(Job::Restart));
        assert_eq!(job_in(listing, "other.service"), Some(Job::Stop));
        assert_eq!(job_in(listing, "third.service"), None);
        // The gateway starts by itself after a crash.
        assert_eq!(job_in("7 holdfast.service start waiting", "holdfast.service"), None);
        assert_eq!(job_in("No jobs listed.", "holdfast.service"), None);
        assert_eq!(job_in("", "holdfast.service"), None);
    }

    #[test]
    fn the_unit_is_the_innermost_service() {
        let unified = "0::/system.slice/holdfast.service\n";
        assert_eq!(unit_of(unified), Some("holdfast.service"));
        let hybrid =
            "12:pids:/x\n1:name=systemd:/user.slice/user@0.service/app.slice/edge.service\n0::/y\n";
        assert_eq!(unit_of(hybrid), Some("edge.service"));
        assert_eq!(unit_of("0::/init.scope\n"), None);
    }
}
