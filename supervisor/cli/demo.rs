//! `holdfast demo`: a whole gateway in front of two chat backends, with nothing else installed.
//!
//! Owns what is particular to a demonstration: the backends' processes, the certificate, the document and the words
//! that tell what to try. The gateway itself is the real one, started as `holdfast run` starts it. What never happens
//! here: a second gateway on a runtime directory that has one.

pub(crate) mod backend;
mod certificate;
mod chat;
mod page;

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, bail, ensure};
use holdfast_supervisor::directories::runtime_default;
use holdfast_supervisor::lock::Lock;
use holdfast_supervisor::run::Options;
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::args::DemoArgs;
use crate::dial::socket_in;
use crate::run::supervise;
use crate::{logging, output};

/// A pool has one port for all its backends (it belongs to the backend settings), so the second backend needs the
/// first one's port on another loopback address; some other program may have it.
const PORT_ATTEMPTS: usize = 8;

/// The backends' names and addresses.
const BACKENDS: [(&str, Ipv4Addr); 2] =
    [("alpha", Ipv4Addr::LOCALHOST), ("bravo", Ipv4Addr::new(127, 0, 0, 2))];

/// Runs the demonstration until it is told to stop.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let _log = logging::start("supervisor");
    let runtime_dir = args.runtime_dir.clone().unwrap_or_else(runtime_default);
    let runtime_dir = std::path::absolute(&runtime_dir)
        .with_context(|| format!("cannot use {}", runtime_dir.display()))?;
    refuse_second_gateway(&runtime_dir)?;
    create_private(&runtime_dir)?;
    // Held while files are written that a gateway here might be reading; the supervisor takes it again for its life.
    let lock = Lock::take(&runtime_dir)?;
    let directory = runtime_dir.join("demo");
    create_private(&directory)?;

    let backends = start_backends()?;
    let certificate = certificate::ensure(&directory)?;
    let config = directory.join("demo.json");
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    let document = document(args, &certificate, &addresses)?;
    fs::write(&config, document).with_context(|| format!("cannot write {}", config.display()))?;
    let guide = guide(args, &runtime_dir, &config, &backends);
    drop(lock);
    supervise(Options {
        config: Some(config),
        runtime_dir: Some(runtime_dir),
        state_dir: Some(directory.join("state")),
        status_listen: args.status_listen,
        status_token_file: None,
        // The backends are children that end with this executable.
        upgrade: None,
        on_ready: Some(Box::new(move |_ready| {
            // A closed standard output only loses the guide; the gateway serves all the same.
            drop(output::print(&guide));
        })),
    })
}

/// The lock of the runtime directory decides; asking first gives the better answer.
fn refuse_second_gateway(runtime_dir: &Path) -> anyhow::Result<()> {
    let socket = socket_in(runtime_dir);
    ensure!(
        UnixStream::connect(&socket).is_err(),
        "a gateway runs here already (it answers on {}). Stop it with `holdfast stop`, or give the \
         demo a place and ports of its own: --runtime-dir DIR --http-port N --https-port N \
         --status-listen IP:PORT",
        socket.display()
    );
    Ok(())
}

/// A directory that only this user can enter: it is to hold a private key.
fn create_private(directory: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let found = fs::symlink_metadata(directory)
        .with_context(|| format!("cannot look at {}", directory.display()))?;
    ensure!(
        found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0,
        "{} must be a directory of your own that nobody else may write to: choose another with \
         --runtime-dir, or `chmod 700` it",
        directory.display()
    );
    Ok(())
}

// === impl BackendProcess ===

/// A backend's process; it ends when this is dropped, and by itself when this process is gone.
struct BackendProcess {
    name: &'static str,
    address: SocketAddr,
    child: Child,
    /// Held open for as long as the backend is to live.
    orders: ChildStdin,
}

impl BackendProcess {
    fn start(name: &'static str, listen: SocketAddr) -> anyhow::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("holdfast")
            .args(["demo-backend", "--name", name, "--listen", &listen.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its own group: a terminal's Ctrl-C is for the gateway, which still drains into the backends.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the backend {name}"))?;
        let (Some(orders), Some(reports)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the backend {name} started without pipes");
        };
        let mut report = String::new();
        let read = BufReader::new(reports).read_line(&mut report);
        let address = read
            .ok()
            .and_then(|_| report.trim().strip_prefix(backend::REPORT))
            .and_then(|address| address.parse().ok());
        if let Some(address) = address {
            return Ok(Self { name, address, child, orders });
        }
        // A backend without orders ends.
        drop(orders);
        child.wait().with_context(|| format!("cannot wait for the backend {name}"))?;
        bail!("the backend {name} could not listen on {listen}")
    }

    fn introduce(&mut self, peer: SocketAddr) -> anyhow::Result<()> {
        writeln!(self.orders, "{}{peer}", backend::PEER_ORDER)
            .with_context(|| format!("the backend {} does not listen to orders", self.name))
    }
}

impl Drop for BackendProcess {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already, which is what they are for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Both backends, on one port, each knowing the other.
fn start_backends() -> anyhow::Result<Vec<BackendProcess>> {
    let mut last = None;
    for _ in 0..PORT_ATTEMPTS {
        match start_backends_on_one_port() {
            Ok(backends) => return Ok(backends),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("cannot start the backends")))
}

fn start_backends_on_one_port() -> anyhow::Result<Vec<BackendProcess>> {
    let mut backends: Vec<BackendProcess> = Vec::new();
    for (name, address) in BACKENDS {
        let port = backends.first().map_or(0, |first| first.address.port());
        backends.push(BackendProcess::start(name, (IpAddr::V4(address), port).into())?);
    }
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    for backend in &mut backends {
        let own = backend.address;
        for &peer in addresses.iter().filter(|&&peer| peer != own) {
            backend.introduce(peer)?;
        }
    }
    Ok(backends)
}

// === the document ===

fn document(
    args: &DemoArgs,
    certificate: &certificate::Files,
    backends: &[SocketAddr],
) -> anyhow::Result<String> {
    let port = backends.first().context("the demo has no backends")?.port();
    let addresses: Vec<Value> =
        backends.iter().map(|backend| json!({"ipAddress": backend.ip().to_string()})).collect();
    let gateway = json!({
        "name": "holdfast-demo",
        "properties": {
            "frontendIPConfigurations": [{
                "name": "loopback", "properties": {}, "holdfast": {"address": "127.0.0.1"},
            }],
            "frontendPorts": [
                named("http", json!({"port": args.http_port})),
                named("https", json!({"port": args.https_port})),
            ],
            "sslCertificates": [{
                "name": "localhost",
                "properties": {},
                "holdfast": {
                    "certificateFile": certificate.chain, "privateKeyFile": certificate.key,
                },
            }],
            "httpListeners": [site("http", "Http", None), site("https", "Https", Some("localhost"))],
            "backendAddressPools": [named("chat", json!({"backendAddresses": addresses}))],
            "backendHttpSettingsCollection": [named("chat-settings", json!({
                "port": port,
                "protocol": "Http",
                "cookieBasedAffinity": "Disabled",
                "requestTimeout": 3600,
                "connectionDraining": {"enabled": true, "drainTimeoutInSec": 10},
                "probe": to("probes", "chat-probe"),
            }))],
            "probes": [named("chat-probe", json!({
                "protocol": "Http",
                "host": "127.0.0.1",
                "path": "/healthz",
                "interval": 2,
                "timeout": 2,
                "unhealthyThreshold": 2,
            }))],
            "requestRoutingRules": [rule("http", 100), rule("https", 110)],
        },
    });
    Ok(format!(
        "// Written by `holdfast demo`, anew at each start. Edit it, then: holdfast reload\n{gateway:#}\n"
    ))
}

#[allow(clippy::needless_pass_by_value, reason = "a constructor of documents")]
fn named(name: &str, properties: Value) -> Value {
    json!({"name": name, "properties": properties})
}

fn to(kind: &str, name: &str) -> Value {
    json!({"id": format!("/applicationGateways/holdfast-demo/{kind}/{name}")})
}

fn site(name: &str, protocol: &str, certificate: Option<&str>) -> Value {
    let mut properties = json!({
        "frontendIPConfiguration": to("frontendIPConfigurations", "loopback"),
        "frontendPort": to("frontendPorts", name),
        "protocol": protocol,
    });
    if let (Some(certificate), Some(properties)) = (certificate, properties.as_object_mut()) {
        properties.insert("sslCertificate".to_owned(), to("sslCertificates", certificate));
    }
    named(name, properties)
}

fn rule(site: &str, priority: u32) -> Value {
    named(
        site,
        json!({
            "ruleType": "Basic",
            "priority": priority,
            "httpListener": to("httpListeners", site),
            "backendAddressPool": to("backendAddressPools", "chat"),
            "backendHttpSettings": to("backendHttpSettingsCollection", "chat-settings"),
        }),
    )
}

// === the words ===

fn guide(
    args: &DemoArgs,
    runtime_dir: &Path,
    config: &Path,
    backends: &[BackendProcess],
) -> String {
    let (http, https) = (args.http_port, args.https_port);
    let status = args.status_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9180)));
    let pids: Vec<String> = backends
        .iter()
        .map(|backend| format!("{} is pid {}", backend.name, backend.child.id()))
        .collect();
    let other_place = if args.runtime_dir.is_some() {
        format!(
            "\nIn that terminal first:  export HOLDFAST_ADMIN=unix:{}\n",
            socket_in(runtime_dir).display()
        )
    } else {
        String::new()
    };
    format!(
        "
The demo gateway serves. Open the chat in two windows:

    http://127.0.0.1:{http}/
    https://127.0.0.1:{https}/     (its own certificate: the browser asks once)
    ws://127.0.0.1:{http}/echo     wss://127.0.0.1:{https}/echo

Then, in a second terminal, while the page counts the age of its connection:
{other_place}
    http://{status}/ui     all of this at a glance, live
    holdfast status              processes and tunnels
    holdfast restart             new workers, one by one
    kill -9 PID                  of a worker, the prober (pids: holdfast status)
    holdfast tunnels             what is connected
    holdfast drain chat/127.0.0.1    no new connections for alpha; undrain takes it back
    holdfast health              what the probes say ({pids})
    holdfast reload              after editing {config}
    holdfast stop                or Ctrl-C here; twice, it waits for no open page

",
        pids = pids.join(", "),
        config = config.display(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_running_gateway_is_not_disturbed() {
        let directory = tempfile::tempdir().unwrap();
        refuse_second_gateway(directory.path()).unwrap();
        let gateway = UnixListener::bind(directory.path().join("admin.sock")).unwrap();
        let error = refuse_second_gateway(directory.path()).unwrap_err().to_string();
        assert!(error.contains("a gateway runs here already"), "{error}");
        drop(gateway);
        refuse_second_gateway(directory.path()).unwrap();
    }

    #[test]
    fn a_key_never_goes_where_others_write() {
        let directory = tempfile::tempdir().unwrap();
        let demo = directory.path().join("a/demo");
        create_private(&demo).unwrap();
        assert_eq!(fs::metadata(&demo).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&demo, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(create_private(&demo).is_err());
    }

    #[test]
    fn the_document_means_what_the_demo_says() {
        let directory = tempfile::tempdir().unwrap();
        let files = certificate::ensure(directory.path()).unwrap();
        let args =
            DemoArgs { http_port: 8080, https_port: 8443, runtime_dir: None, status_listen: None };
        let addresses = BACKENDS.map(|(_, address)| (IpAddr::V4(address), 7000).into());
        let document = document(&args, &files, &addresses).unwrap();
        let loaded = holdfast_supervisor::config::load(&document, directory.path()).unwrap();
        assert_eq!(loaded.warnings, []);
    }
}
