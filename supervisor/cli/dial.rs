//! Reaching a running gateway, by its socket or over the network, and what to tell a person when it does not answer or refuses.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use holdfast_proto::admin::admin_client::AdminClient;
use holdfast_proto::uds;
use holdfast_supervisor::directories::runtime_default;
use serde_json::Value;
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::args::Admin;
use crate::failure::{Kind, fail};
use crate::hello::{Heard, Patience};
use crate::{left, output};

mod network;

/// A tunnel list of 1,000,000 entries fits; the gateway is trusted, so this only bounds accidents.
const LONGEST_ANSWER: usize = 512 * 1024 * 1024;
/// A call fails when the gateway has not answered a ping for twice as long: a machine may swap, but not for ever.
const SILENCE: Duration = Duration::from_secs(15);
/// Between attempts.
const REDIAL: Duration = Duration::from_millis(50);

pub(crate) type Client = AdminClient<Channel>;

pub(crate) async fn connect(admin: &Admin) -> anyhow::Result<Client> {
    let channel = match &admin.admin {
        Some(address) if network::is_meant(address) => network::connect(admin, address).await?,
        Some(address) => dial_socket(&parse_address(address)?, false).await?,
        None => dial_socket(&socket_in(&runtime_default()), true).await?,
    };
    Ok(AdminClient::new(channel).max_decoding_message_size(LONGEST_ANSWER))
}

/// A channel to somebody who answers.
async fn dial_socket(socket: &Path, is_default: bool) -> anyhow::Result<Channel> {
    if socket.as_os_str().len() > uds::LONGEST_SOCKET_PATH {
        bail!(
            "the socket path {} is longer than {} bytes: start the gateway on a shorter \
             --runtime-dir",
            socket.display(),
            uds::LONGEST_SOCKET_PATH
        );
    }
    let mut patience = Patience::new(socket);
    loop {
        let channel = uds::connect_watched(socket, SILENCE).await;
        let channel = channel.map_err(|error| unreachable_gateway(socket, is_default, error))?;
        match patience.hear(&channel).await? {
            Heard::Answer => return Ok(channel),
            Heard::Cut => patience.note_cut()?,
        }
        sleep(REDIAL).await;
    }
}

fn parse_address(address: &str) -> anyhow::Result<PathBuf> {
    match address.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.strip_prefix("//").unwrap_or(path).into()),
        None if address.starts_with('/') => Ok(address.into()),
        _ => bail!(
            "cannot use the admin address {address:?}: write unix:PATH of an admin.sock, or https://HOST:PORT"
        ),
    }
}

/// What happened, and what to do about it.
fn unreachable_gateway(
    socket: &Path,
    is_default: bool,
    error: tonic::transport::Error,
) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let kind =
        error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let at = socket.display();
    let runtime_dir = socket.parent().unwrap_or(Path::new("/"));
    if let Ok(found) = std::fs::metadata(socket)
        && !found.file_type().is_socket()
    {
        return fail(
            Kind::NoGateway,
            format!(
                "{at} is no socket, so nothing was asked: name the admin.sock of a gateway's runtime directory with --admin \
                 unix:PATH"
            ),
        );
    }
    match kind {
        Some(io::ErrorKind::NotFound) => fail(
            Kind::NoGateway,
            format!(
                "no gateway runs here: there is no socket {at}. {}{}Start one with `holdfast run --config \
                 FILE` or `holdfast demo`, or name another with --admin (unix:PATH, or https://HOST:PORT)",
                left::adopted(runtime_dir),
                if is_default { left::elsewhere(runtime_dir) } else { "" }
            ),
        ),
        Some(io::ErrorKind::ConnectionRefused) => fail(
            Kind::SupervisorGone,
            format!(
                "no gateway answers on {at}: its supervisor has ended, leaving its socket behind. {}\
                 Start it again with `holdfast run`, or `systemctl start holdfast`",
                left::sentence(runtime_dir)
            ),
        ),
        Some(io::ErrorKind::PermissionDenied) => fail(
            Kind::NoPermission,
            format!(
                "you may not open {at}: {}. Nothing was asked or changed, and the gateway runs as \
                 before. Call as that user (`sudo -u`), or as root",
                left::owner(socket)
            ),
        ),
        _ => error.context(format!("cannot reach the gateway on {at}")),
    }
}

/// A call's failure in the operator's words.
pub(crate) fn failed(status: &Status) -> anyhow::Error {
    let said = output::printable(status.message());
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown => fail(
            Kind::OutcomeUnknown,
            format!(
                "the gateway went away during the call, or fell silent ({said}): whether it was \
                 carried out is not known. Its workers serve on. See `holdfast status` and `holdfast revisions`"
            ),
        ),
        Code::Unimplemented => fail(
            Kind::OtherVersion,
            format!(
                "the running gateway does not know this command: it is of another version than this \
                 executable ({}), or this is not the admin address of one. Nothing was changed; `holdfast upgrade` brings it to this version",
                holdfast_proto::VERSION
            ),
        ),
        Code::PermissionDenied | Code::Unauthenticated => fail(
            Kind::NoPermission,
            format!("the gateway does not let you do this: {said}. Nothing was changed"),
        ),
        Code::Internal | Code::DataLoss => fail(
            Kind::OutcomeUnknown,
            format!(
                "the gateway failed: {said}. It serves on; whether the command was carried out is not \
                 known. See its log, `holdfast status` and `holdfast revisions`"
            ),
        ),
        Code::DeadlineExceeded => fail(Kind::NoAnswer, said),
        _ => fail(
            Kind::Refused,
            format!("refused: {said}. Nothing was changed; the gateway serves as before"),
        ),
    }
}

pub(crate) fn show(
    admin: &Admin,
    json: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> io::Result<()> {
    if admin.json { output::print_json(&json()) } else { output::print(&text()) }
}

/// The admin socket of the gateway that runs on `runtime_dir`.
pub(crate) fn socket_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("admin.sock")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(address: &str) -> Admin {
        Admin { admin: Some(address.to_owned()), ..Admin::default() }
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
        let error = connect(&at(&address)).await.unwrap_err().to_string();
        assert!(error.contains("no gateway runs here"), "{error}");
        assert!(error.contains("holdfast run"), "{error}");

        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let error = connect(&at(&address)).await.unwrap_err().to_string();
        assert!(error.contains("no gateway answers"), "{error}");

        let directory = format!("unix:{}", directory.path().display());
        let error = connect(&at(&directory)).await.unwrap_err().to_string();
        assert!(error.contains("is no socket") && error.contains("admin.sock"), "{error}");
    }

    #[tokio::test]
    async fn somebody_elses_socket_is_told_from_a_gateway_that_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("other.sock");
        let other = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { while other.accept().await.is_ok() {} });
        let address = format!("unix:{}", socket.display());
        let error = connect(&at(&address)).await.unwrap_err().to_string();
        assert!(error.contains("is no Holdfast gateway"), "{error}");
        assert!(error.contains("Nothing was asked"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_path_that_is_too_long_is_told() {
        let error = connect(&at(&format!("unix:/{}", "x".repeat(120)))).await.unwrap_err();
        assert!(error.to_string().contains("longer than 107 bytes"), "{error}");
    }
}
