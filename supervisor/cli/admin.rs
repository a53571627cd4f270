//! The commands that talk to a running gateway: one admin call each, its answer printed, its exit code chosen.
//!
//! Nothing is decided here that the gateway should decide: a refusal is its word, passed on.

use anyhow::{Context, bail};
use holdfast_proto::admin::{
    ApplyRequest, ChangeResponse, CloseTunnelsRequest, DrainRequest, GetRequest, HealthRequest,
    ReloadRequest, RestartRequest, RevisionsRequest, RollbackRequest, StatusRequest, StopRequest,
    TunnelsRequest,
};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::{
    Admin, ApplyArgs, CloseArgs, Command, ConfigArgs, DrainArgs, RestartArgs, RollbackArgs,
    StopArgs,
};
use crate::dial::{connect, failed, show};
use crate::validate::read_document;
use crate::{output, upgrade};

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
        Command::Status(admin) => status(&admin).await,
        Command::Health(admin) => health(&admin).await,
        Command::Tunnels(admin) => tunnels(&admin).await,
        Command::Close(args) => close(args).await,
        Command::Drain(args) => drain(args, Rotation::Out).await,
        Command::Undrain(args) => drain(args, Rotation::In).await,
        Command::Restart(args) => restart(args).await,
        Command::Upgrade(args) => upgrade::upgrade(args).await,
        Command::Stop(args) => stop(args).await,
        Command::Run(_)
        | Command::Demo(_)
        | Command::Validate(_)
        | Command::Schema
        | Command::Import(_)
        | Command::Worker
        | Command::Prober
        | Command::TakeoverCheck
        | Command::FetchPage { .. }
        | Command::DemoBackend(_) => bail!("this command does not call a gateway"),
    }
}

// === impl connection ===

// === impl commands ===

async fn status(admin: &Admin) -> anyhow::Result<Outcome> {
    let answer = connect(admin).await?.status(StatusRequest {}).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    show(admin, || output::status_json(&answer), || output::status_text(&answer))?;
    Ok(Outcome::Done)
}

async fn health(admin: &Admin) -> anyhow::Result<Outcome> {
    let answer = connect(admin).await?.health(HealthRequest {}).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    show(admin, || output::health_json(&answer), || output::health_text(&answer))?;
    Ok(Outcome::Done)
}

async fn tunnels(admin: &Admin) -> anyhow::Result<Outcome> {
    let answer = connect(admin).await?.tunnels(TunnelsRequest {}).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    show(admin, || output::tunnels_json(&answer), || output::tunnels_text(&answer))?;
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

/// Which way a backend goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    Out,
    In,
}

async fn drain(args: DrainArgs, rotation: Rotation) -> anyhow::Result<Outcome> {
    let target = args.target;
    let name = format!("{}/{}", target.pool, target.backend);
    let request = DrainRequest { pool: target.pool, backend: target.backend };
    let mut client = connect(&args.admin).await?;
    let answer = match rotation {
        Rotation::Out => client.drain(request).await,
        Rotation::In => client.undrain(request).await,
    };
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    show(
        &args.admin,
        || json!({"changed": answer.changed, "tunnels": answer.tunnels}),
        || match (rotation, answer.changed) {
            (Rotation::Out, true) => {
                format!("{name} gets no new connections; {} tunnels live on\n", answer.tunnels)
            }
            (Rotation::Out, false) => {
                format!("{name} was drained already; {} tunnels live on\n", answer.tunnels)
            }
            (Rotation::In, true) => format!("{name} is back in rotation\n"),
            (Rotation::In, false) => format!("{name} was not drained\n"),
        },
    )?;
    Ok(Outcome::Done)
}

async fn restart(args: RestartArgs) -> anyhow::Result<Outcome> {
    let listener = args.listener.map(|address| address.to_string()).unwrap_or_default();
    let answer = connect(&args.admin).await?.restart(RestartRequest { listener }).await;
    let answer = answer.map_err(|error| failed(&error))?.into_inner();
    show(&args.admin, || output::restart_json(&answer), || output::restart_text(&answer))?;
    let all_serve = answer.replaced.iter().all(|worker| worker.error.is_empty());
    Ok(if all_serve { Outcome::Done } else { Outcome::Refused })
}

async fn stop(args: StopArgs) -> anyhow::Result<Outcome> {
    let drain_timeout_ms = args.drain_timeout.map(|seconds| u64::from(seconds) * 1000);
    let answer = connect(&args.admin).await?.stop(StopRequest { drain_timeout_ms }).await;
    answer.map_err(|error| failed(&error))?;
    show(
        &args.admin,
        || json!({"draining": true}),
        || "the gateway drains, then ends\n".to_owned(),
    )?;
    Ok(Outcome::Done)
}
