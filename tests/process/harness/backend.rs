//! Real backends as processes of their own: the demo's, Python `websockets`, npm `ws`.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::ports::free_port;
use super::tools::Peer;
use super::{Certificate, HOLDFAST, tools};

/// A running backend; it ends with this value.
pub(crate) struct Backend {
    child: Child,
    name: String,
    pub(crate) address: SocketAddr,
}

impl Backend {
    /// The demo's backend, on 127.0.0.1.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())))
    }

    /// Backends of one pool: the same port on 127.0.0.2, 127.0.0.3 and so on, since settings name one port.
    pub(crate) fn group(names: &[&str]) -> Vec<Self> {
        let port = free_port();
        let address = |last: u8| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
        names.iter().zip(2..).map(|(name, last)| Self::start_at(name, address(last))).collect()
    }

    /// The demo's backend at an address.
    pub(crate) fn start_at(name: &str, address: SocketAddr) -> Self {
        let mut command = Command::new(HOLDFAST);
        command.args(["demo-backend", "--name", name, "--listen", &address.to_string()]);
        Self::spawn(command, name, address)
    }

    /// One of `tests/clients/ws_server.*`.
    pub(crate) fn start_script(directory: &Path, script: &str) -> Self {
        Self::start_peer(directory, script, None, Peer::default())
    }

    /// The same as a kind of peer; with a certificate it speaks TLS.
    pub(crate) fn start_peer(
        directory: &Path,
        script: &str,
        certificate: Option<&Certificate>,
        peer: Peer,
    ) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = tools::command(directory, script);
        command.arg(address.port().to_string());
        if let Some(certificate) = certificate {
            command.args([&certificate.chain_file, &certificate.key_file]);
        }
        peer.shape(&mut command);
        Self::spawn(command, script, address)
    }

    fn spawn(mut command: Command, name: &str, address: SocketAddr) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.trim().is_empty(), "backend {name} ended before it printed its port");
        Self { child, name: name.to_owned(), address }
    }

    /// Ends the process; what it had open is closed by the kernel.
    pub(crate) fn stop(mut self) -> Stopped {
        self.end();
        Stopped { name: self.name.clone(), address: self.address }
    }

    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.end();
    }
}

/// A backend that can come back where it was.
pub(crate) struct Stopped {
    name: String,
    address: SocketAddr,
}

impl Stopped {
    /// Starts it again under the same name and address.
    pub(crate) fn start(self) -> Backend {
        Backend::start_at(&self.name, self.address)
    }
}
