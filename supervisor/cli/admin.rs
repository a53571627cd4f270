//! The commands that talk to a running gateway: one admin call each, its answer printed, its exit code chosen.
//!
//! Nothing is decided here that the gateway should decide: a refusal is its word, passed on.

use anyhow::{Context, bail};
use holdfast_proto::admin::{
    ApplyRequest, ChangeResponse, CloseTunnelsRequest, GetRequest, HealthRequest, LogFilterRequest,
    ReloadRequest, RestartRequest, RevisionsRequest, RollbackRequest, StatusRequest, StopRequest,
};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::{
    Admin, ApplyArgs, CloseArgs, Command, ConfigArgs, LogLevelArgs, RestartArgs, RollbackArgs,
    StopArgs, WatchArgs,
};
use crate::dial::{Client, connect, failed, show};
use crate::validate::read_document;
use crate::{drain, explain, output, progress, tunnels, unit, upgrade, watch};

/// Carries out a command that needs a running gateway.
pub(crate) fn call(command: Command) -> anyhow::Result<Outcome> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(dispatch(command))
}

async fn dispatch(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Apply(args) => apply(args).await,
        Command::Reload(admin) => reload(&admin).await,
        Command::Config(args) => config(args).await,
        Command::Revisions(admin) => revisions(&admin).await,
        Command::Rollback(args) => rollback(args).await,
        Command::Status(args) => status(&args).await,
        Command::Health(args) => health(&args).await,
        Command::Tunnels(args) => tunnels::tunnels(&args).await.map(|()| Outcome::Done),
        Command::Explain(args) => explain::explain(args).await,
        Command::Close(args) => close(args).await,
        Command::Drain(args) => drain::drain(args).await,
        Command::Undrain(args) => drain::undrain(args).await,
        Command::Restart(args) => restart(args).await,
        Command::Upgrade(args) => upgrade::upgrade(args).await,
        Command::LogLevel(args) => log_level(args).await,
        Command::Stop(args) if args.from_systemd => unit::stop(&args.admin).await,
        Command::Stop(args) => stop(args).await,
        Command::Run(_)
        | Command::Demo(_)
        | Command::Validate(_)
        | Command::Schema
        | Command::Import(_)
        | Command::Worker
        | Command::Prober
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::TakeoverCheck
        | Command::FetchPage { .. }
        | Command::DemoBackend(_) => bail!("this command does not call a gateway"),
    }
}

// === impl commands ===

async fn status(args: &WatchArgs) -> anyhow::Result<Outcome> {
    watch::ask(
        args,
        async |client: &mut Client| Ok(client.status(StatusRequest {}).await?.into_inner()),
        output::status_json,
        output::status_text,
    )
    .await?;
    Ok(Outcome::Done)
}

async fn health(args: &WatchArgs) -> anyhow::Result<Outcome> {
    watch::ask(
        args,
        async |client: &mut Client| Ok(client.health(HealthRequest {}).await?.into_inner()),
        output::health_json,
        output::health_text,
    )
    .await?;
    Ok(Outcome::Done)
}

async fn revisions(admin: &Admin) -> anyhow::Result<Outcome> {
    let answer = connect(admin).await?.revisions(RevisionsRequest {}).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    show(admin, || output::revisions_json(&answer), || output::revisions_text(&answer))?;
    Ok(Outcome::Done)
}

async fn config(args: ConfigArgs) -> anyhow::Result<Outcome> {
    let answer = connect(&args.admin).await?.get(GetRequest { revision: args.revision }).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    let effective: Value = serde_json::from_str(&answer.effective_json)
        .context("the gateway's effective configuration is not JSON")?;
    output::print_json(&if args.admin.json {
        json!({"revision": answer.revision, "effective": effective})
    } else {
        effective
    })?;
    Ok(Outcome::Done)
}

async fn apply(args: ApplyArgs) -> anyhow::Result<Outcome> {
    let document = read_document(&args.file)?;
    let request = ApplyRequest { document, if_revision: args.if_revision, dry_run: args.dry_run };
    let answer = connect(&args.admin).await?.apply(request).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    report_change(&args.admin, &args.file.display().to_string(), &answer, args.dry_run)
}

async fn reload(admin: &Admin) -> anyhow::Result<Outcome> {
    let answer = connect(admin).await?.reload(ReloadRequest {}).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    report_change(admin, "configuration file", &answer, false)
}

async fn rollback(args: RollbackArgs) -> anyhow::Result<Outcome> {
    let answer =
        connect(&args.admin).await?.rollback(RollbackRequest { revision: args.revision }).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    report_change(&args.admin, &format!("revision {}", args.revision), &answer, false)
}

fn report_change(
    admin: &Admin,
    document: &str,
    change: &ChangeResponse,
    dry_run: bool,
) -> anyhow::Result<Outcome> {
    if !admin.json {
        output::complain(&output::diagnostics_text(document, &change.diagnostics));
        output::complain(&output::refusals_text(change));
    }
    show(admin, || output::change_json(change), || output::change_text(change, dry_run))?;
    let served = change.accepted && change.refusals.is_empty();
    Ok(if served { Outcome::Done } else { Outcome::Refused })
}

async fn close(args: CloseArgs) -> anyhow::Result<Outcome> {
    let request = CloseTunnelsRequest { ids: args.tunnels };
    let answer = connect(&args.admin).await?.close_tunnels(request).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    if !args.admin.json {
        for id in &answer.unknown {
            let id = output::printable(id);
            output::complain(&format!("error: no tunnel {id} is open (see `holdfast tunnels`)\n"));
        }
    }
    show(
        &args.admin,
        || json!({"closed": answer.closed, "unknown": answer.unknown}),
        || output::closed_text(&answer.closed),
    )?;
    Ok(if answer.unknown.is_empty() { Outcome::Done } else { Outcome::Refused })
}

async fn restart(args: RestartArgs) -> anyhow::Result<Outcome> {
    let listener = args.listener.map(|address| address.to_string()).unwrap_or_default();
    let mut client = connect(&args.admin).await?;
    let work = progress::beside(&args.admin, client.restart(RestartRequest { listener }));
    let then = "the worker that is being replaced just now is, with its connections; those of other listeners are not. See \
                `holdfast status`";
    let answer = progress::unless_interrupted(then, work).await?;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    if !args.admin.json {
        output::complain(&output::not_replaced_text(&answer.replaced));
    }
    show(&args.admin, || output::restart_json(&answer), || output::restart_text(&answer))?;
    let all_serve = answer.replaced.iter().all(|worker| worker.error.is_empty());
    Ok(if all_serve { Outcome::Done } else { Outcome::Refused })
}

async fn log_level(args: LogLevelArgs) -> anyhow::Result<Outcome> {
    let request = LogFilterRequest { filter: args.filter };
    let answer = connect(&args.admin).await?.log_filter(request).await;
    let filter = answer.map_err(|error| failed(&error))?.into_inner().filter;
    show(
        &args.admin,
        || json!({"log_filter": filter}),
        || format!("{}\n", output::printable(&filter)),
    )?;
    Ok(Outcome::Done)
}

async fn stop(args: StopArgs) -> anyhow::Result<Outcome> {
    let drain_timeout_ms = args.drain_timeout.map(|seconds| u64::from(seconds) * 1000);
    let request = StopRequest { drain_timeout_ms, detach: false };
    let answer = connect(&args.admin).await?.stop(request).await;
    answer.map_err(|error| failed(&error))?;
    show(
        &args.admin,
        || json!({"draining": true}),
        || "the gateway drains, then ends\n".to_owned(),
    )?;
    Ok(Outcome::Done)
}
