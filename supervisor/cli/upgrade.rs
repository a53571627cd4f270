//! `holdfast upgrade`: begins one and follows it across the supervisor's exec; and what the supervisor asks a new
//! executable.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Parser;
use holdfast_proto::admin::upgrade_status::Step;
use holdfast_proto::admin::{Replacement, UpgradeRequest, UpgradeStatus, WatchUpgradeRequest};
use holdfast_supervisor::upgrade::takeover_check;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tonic::{Code, Streaming};

use crate::Outcome;
use crate::args::{Admin, Cli, UpgradeArgs};
use crate::dial::{connect, failed, show};
use crate::failure::{Kind, fail};
use crate::output::{self, printable};
use crate::progress;
use crate::run::terms;

/// Longest silence: one worker's replacement (start, drain, handover) takes at most half of it, the two starts of a
/// rollback together as well.
const SILENCE: Duration = Duration::from_secs(150);
/// One attempt to reach a gateway that is just starting: it waits in the socket's queue, which a rollback drops.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long nobody may listen: the socket outlives an upgrade, but a gateway that is killed is perhaps started again.
const GONE: Duration = Duration::from_secs(5);
/// Between attempts.
const REDIAL: Duration = Duration::from_millis(50);

type Steps = Streaming<UpgradeStatus>;

/// Upgrades the gateway and waits for the outcome.
pub(crate) async fn upgrade(args: UpgradeArgs) -> anyhow::Result<Outcome> {
    let binary = args.binary.map(std::path::absolute).transpose()?;
    let binary = match &binary {
        None => String::new(),
        Some(path) => path.to_str().ok_or_else(|| anyhow!("the path is not UTF-8"))?.to_owned(),
    };
    let steps = connect(&args.admin).await?.upgrade(UpgradeRequest { binary }).await;
    let steps = steps.map_err(|error| failed(&error))?.into_inner();
    // Boxed: most of it is for the exec in between, and would stand on the stack.
    let work = Box::pin(progress::beside(&args.admin, follow(&args.admin, steps)));
    let then = "the upgrade goes on, or is rolled back, without you. See `holdfast status`";
    let last = progress::unless_interrupted(then, work).await??;
    if !args.admin.json {
        output::complain(&problem_text(&last));
        output::complain(&output::not_replaced_text(&last.replaced));
    }
    show(&args.admin, || upgrade_json(&last), || upgrade_text(&last))?;
    let replaced = last.replaced.iter().all(|worker| worker.error.is_empty());
    Ok(if last.step() == Step::Done && replaced { Outcome::Done } else { Outcome::Refused })
}

/// Follows an upgrade to its last step.
async fn follow(admin: &Admin, mut steps: Steps) -> anyhow::Result<UpgradeStatus> {
    let mut shown = Step::Unspecified;
    let mut replaced = 0;
    let mut id = String::new();
    let mut heard = Instant::now();
    loop {
        while let Ok(message) = timeout(SILENCE, steps.message()).await {
            let status = match message {
                Ok(Some(status)) => status,
                Err(error) if id.is_empty() => return Err(failed(&error)),
                // This executable of the gateway has ended.
                Ok(None) | Err(_) => break,
            };
            heard = Instant::now();
            if status.step() != shown && !admin.json {
                shown = status.step();
                output::complain(&step_text(&status));
            }
            if !admin.json {
                output::complain(&replaced_text(&status, replaced));
                replaced = status.replaced.len();
            }
            if is_last(status.step()) {
                return Ok(status);
            }
            id.clone_from(&status.id);
        }
        steps = redial(admin, &id, heard).await?;
    }
}

async fn redial(admin: &Admin, id: &str, heard: Instant) -> anyhow::Result<Steps> {
    let mut reached = Instant::now();
    while heard.elapsed() < SILENCE {
        sleep(REDIAL).await;
        let mut client = match timeout(ATTEMPT, connect(admin)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) if reached.elapsed() > GONE => return Err(error),
            // Where nobody answers in the socket's queue, somebody still holds it.
            Ok(Err(_)) | Err(_) => continue,
        };
        reached = Instant::now();
        let request = WatchUpgradeRequest { id: id.to_owned() };
        match timeout(ATTEMPT, client.watch_upgrade(request)).await {
            Ok(Ok(steps)) => return Ok(steps.into_inner()),
            Ok(Err(error)) if error.code() == Code::NotFound => {
                let why = printable(error.message());
                return Err(fail(
                    Kind::OutcomeUnknown,
                    format!(
                        "what has become of the upgrade is not known ({why}). `holdfast status` says which version \
                         serves; every connection was kept"
                    ),
                ));
            }
            // It is not back yet.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(fail(
        Kind::NoAnswer,
        format!(
            "the gateway has not been heard of for {SILENCE:?}. Its workers serve on. See `holdfast status`"
        ),
    ))
}

fn is_last(step: Step) -> bool {
    matches!(step, Step::Done | Step::Refused | Step::RolledBack)
}

fn step_text(status: &UpgradeStatus) -> String {
    let (binary, to) = (printable(&status.binary), printable(&status.to_version));
    match status.step() {
        Step::Checking => format!("asking {binary} whether it can take over\n"),
        Step::TakingOver => format!("{binary} ({to}) takes over\n"),
        Step::Starting => format!("version {to} starts\n"),
        Step::Replacing => format!("version {to} serves; replacing workers\n"),
        _ => String::new(),
    }
}

/// A line for each listener whose worker has been replaced since the first `told` ones.
fn replaced_text(status: &UpgradeStatus, told: usize) -> String {
    let all = match status.listeners {
        0 => String::new(),
        all => format!(" of {all}"),
    };
    let new = status.replaced.iter().enumerate().skip(told);
    let line = |(place, worker): (usize, &Replacement)| {
        let listener = printable(&worker.listener);
        let outcome = if worker.error.is_empty() {
            format!("worker {} has taken over from {}", worker.new_pid, worker.old_pid)
        } else {
            "not replaced".to_owned()
        };
        format!("{}{all}: {listener}: {outcome}\n", place + 1)
    };
    new.map(line).collect()
}

fn problem_text(status: &UpgradeStatus) -> String {
    let reason = printable(&status.reason);
    let from = printable(&status.from_version);
    match status.step() {
        Step::Refused => format!(
            "error: {reason}\nnothing was changed: version {from} serves on, with every connection. Mend that, or name \
             another executable with --binary\n"
        ),
        Step::RolledBack => format!(
            "error: rolled back: {reason}\nno connection was closed by it. The gateway's log has what the new executable \
             said\n"
        ),
        _ => String::new(),
    }
}

fn upgrade_text(status: &UpgradeStatus) -> String {
    let (from, to) = (printable(&status.from_version), printable(&status.to_version));
    match status.step() {
        Step::Done => {
            format!("upgraded from {from} to {to}\n{}", output::replaced_text(&status.replaced))
        }
        Step::RolledBack => format!("version {from} runs as before\n"),
        _ => String::new(),
    }
}

fn upgrade_json(status: &UpgradeStatus) -> Value {
    let outcome = match status.step() {
        Step::Done => "done",
        Step::RolledBack => "rolled back",
        _ => "refused",
    };
    json!({
        "id": status.id,
        "outcome": outcome,
        "binary": status.binary,
        "from": status.from_version,
        "to": (!status.to_version.is_empty()).then_some(&status.to_version),
        "reason": (!status.reason.is_empty()).then_some(&status.reason),
        "replaced": output::replaced_json(&status.replaced),
    })
}

/// `holdfast takeover-check`: the question is on standard input, the answer goes to standard output.
pub(crate) fn check() -> anyhow::Result<()> {
    let understands = |arguments: &[String]| {
        let parsed = Cli::try_parse_from(arguments);
        parsed.map(drop).map_err(|error| error.to_string())
    };
    let answer = takeover_check(io::stdin().lock(), terms(), understands);
    io::stdout().lock().write_all(answer.as_bytes())?;
    Ok(())
}
