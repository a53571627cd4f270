//! `holdfast upgrade`: begins one and follows it across the supervisor's exec; and what the supervisor asks a new
//! executable.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use clap::Parser;
use holdfast_proto::admin::upgrade_status::Step;
use holdfast_proto::admin::{UpgradeRequest, UpgradeStatus, WatchUpgradeRequest};
use holdfast_supervisor::upgrade::takeover_check;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tonic::{Code, Streaming};

use crate::Outcome;
use crate::args::{Admin, Cli, UpgradeArgs};
use crate::dial::{connect, failed, show};
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
    let last = progress::beside(&args.admin, follow(&args.admin, steps)).await?;
    if !args.admin.json {
        output::complain(&problem_text(&last));
    }
    show(&args.admin, || upgrade_json(&last), || upgrade_text(&last))?;
    let replaced = last.replaced.iter().all(|worker| worker.error.is_empty());
    Ok(if last.step() == Step::Done && replaced { Outcome::Done } else { Outcome::Refused })
}

/// Follows an upgrade to its last step.
async fn follow(admin: &Admin, mut steps: Steps) -> anyhow::Result<UpgradeStatus> {
    let mut shown = Step::Unspecified;
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
            if is_last(status.step()) {
                return Ok(status);
            }
            if status.step() != shown && !admin.json {
                shown = status.step();
                output::complain(&step_text(&status));
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
            Ok(Err(error)) if error.code() == Code::NotFound => bail!(
                "what has become of the upgrade is not known ({}). See `holdfast status`",
                printable(error.message())
            ),
            // It is not back yet.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    bail!("the gateway has not been heard of for {SILENCE:?}. See `holdfast status`")
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

fn problem_text(status: &UpgradeStatus) -> String {
    let reason = printable(&status.reason);
    match status.step() {
        Step::Refused => format!("error: {reason}\nnothing was changed\n"),
        Step::RolledBack => format!("error: rolled back: {reason}\n"),
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
