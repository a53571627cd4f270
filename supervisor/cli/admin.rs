//! The commands that talk to a running gateway: one admin call each, its answer printed, its exit code chosen.
//!
//! Nothing is decided here that the gateway should decide: a refusal is its word, passed on.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use holdfast_proto::admin::admin_client::AdminClient;
use holdfast_proto::admin::{
    ApplyRequest, ChangeResponse, CloseTunnelsRequest, DrainRequest, GetRequest, HealthRequest,
    ReloadRequest, RestartRequest, RevisionsRequest, RollbackRequest, StatusRequest, StopRequest,
    TunnelsRequest,
};
use holdfast_proto::uds;
use holdfast_supervisor::directories::runtime_default;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::Outcome;
use crate::args::{
    Admin, ApplyArgs, CloseArgs, Command, ConfigArgs, DrainArgs, RestartArgs, RollbackArgs,
    StopArgs,
};
use crate::validate::read_document;
use crate::{output, upgrade};

/// A tunnel list of 1,000,000 entries fits; the gateway is trusted, so this only bounds accidents.
const LONGEST_ANSWER: usize = 512 * 1024 * 1024;

pub(crate) type Client = AdminClient<Channel>;

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
        | Command::Worker
        | Command::Prober
        | Command::TakeoverCheck
        | Command::DemoBackend(_) => bail!("this command does not call a gateway"),
    }
}

// === impl connection ===

/// The admin socket of the gateway that runs on `runtime_dir`.
pub(crate) fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("admin.sock")
}

pub(crate) async fn connect(admin: &Admin) -> anyhow::Result<Client> {
    let socket = match &admin.admin {
        Some(address) => parse_address(address)?,
        None => socket_in(&runtime_default()),
    };
    if socket.as_os_str().len() > uds::LONGEST_SOCKET_PATH {
        bail!(
            "the socket path {} is longer than {} bytes: start the gateway on a shorter \
             --runtime-dir",
            socket.display(),
            uds::LONGEST_SOCKET_PATH
        );
    }
    let channel =
        uds::connect(&socket).await.map_err(|error| unreachable_gateway(&socket, error))?;
    Ok(AdminClient::new(channel).max_decoding_message_size(LONGEST_ANSWER))
}

fn parse_address(address: &str) -> anyhow::Result<PathBuf> {
    match address.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.strip_prefix("//").unwrap_or(path).into()),
        None if address.starts_with('/') => Ok(address.into()),
        _ => bail!("cannot use the admin address {address:?}: write unix:PATH of an admin.sock"),
    }
}

/// What happened, and what to do about it.
fn unreachable_gateway(socket: &Path, error: tonic::transport::Error) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let kind =
        error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let at = socket.display();
    match kind {
        Some(io::ErrorKind::NotFound) => anyhow!(
            "no gateway runs here: there is no socket {at}. Start one with `holdfast run --config \
             FILE` or `holdfast demo`, or name its socket with --admin unix:PATH"
        ),
        Some(io::ErrorKind::ConnectionRefused) => anyhow!(
            "no gateway answers on {at}: it has ended, leaving its socket behind. Start it again; \
             its workers, if they still run, are adopted"
        ),
        Some(io::ErrorKind::PermissionDenied) => anyhow!(
            "you may not open {at}: call as the user that runs the gateway (see `ls -l {at}`)"
        ),
        _ => error.context(format!("cannot reach the gateway on {at}")),
    }
}

/// A call's failure in the operator's words.
pub(crate) fn failed(status: &Status) -> anyhow::Error {
    let said = output::printable(status.message());
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown => anyhow!(
            "the gateway went away during the call ({said}): whether it was carried out is not \
             known. See `holdfast status` and `holdfast revisions`"
        ),
        Code::Unimplemented => anyhow!(
            "the running gateway does not know this command: it is of another version than this \
             executable ({})",
            holdfast_proto::VERSION
        ),
        Code::PermissionDenied => anyhow!("the gateway does not let you do this: {said}"),
        _ => anyhow!("refused: {said}"),
    }
}

// === impl commands ===

pub(crate) fn show(
    admin: &Admin,
    json: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> io::Result<()> {
    if admin.json { output::print_json(&json()) } else { output::print(&text()) }
}

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(address: &str) -> Admin {
        Admin { admin: Some(address.to_owned()), json: false }
    }

    #[test]
    fn an_admin_address_is_a_unix_socket() {
        for (address, path) in [
            ("unix:/run/a.sock", "/run/a.sock"),
            ("unix:///run/a.sock", "/run/a.sock"),
            ("/run/a.sock", "/run/a.sock"),
            ("unix:a.sock", "a.sock"),
        ] {
            assert_eq!(parse_address(address).unwrap(), Path::new(path));
        }
        for address in ["unix:", "", "127.0.0.1:9000", "https://gateway"] {
            assert!(parse_address(address).is_err(), "{address}");
        }
    }

    #[tokio::test]
    async fn an_absent_gateway_is_told_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let address = format!("unix:{}", socket.display());
        let error = status(&at(&address)).await.unwrap_err().to_string();
        assert!(error.contains("no gateway runs here"), "{error}");
        assert!(error.contains("holdfast run"), "{error}");

        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let error = status(&at(&address)).await.unwrap_err().to_string();
        assert!(error.contains("no gateway answers"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_path_that_is_too_long_is_told() {
        let error = status(&at(&format!("unix:/{}", "x".repeat(120)))).await.unwrap_err();
        assert!(error.to_string().contains("longer than 107 bytes"), "{error}");
    }
}
