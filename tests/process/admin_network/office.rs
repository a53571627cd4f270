//! A gateway that is administered over the network, its authority, and whoever calls.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{
    Authority, Backend, Certificate, Document, Gateway, HOLDFAST, Passport, Patience, directory,
    eventually, free_port, words,
};

pub(super) struct Office {
    pub(super) gateway: Gateway,
    pub(super) backend: Backend,
    pub(super) authority: Authority,
    /// What the gateway shows operators.
    pub(super) own: Certificate,
    /// Where clients are served.
    pub(super) site: u16,
    /// Where operators are.
    pub(super) port: u16,
}

impl Office {
    /// One at `localhost` with these clients and their roles.
    pub(super) fn open(clients: &[(&str, &str)]) -> Self {
        Self::open_as("localhost", clients)
    }

    /// The same, with a certificate for another name.
    pub(super) fn open_as(host: &str, clients: &[(&str, &str)]) -> Self {
        let directory = directory();
        let authority = Authority::make(directory.path(), "operators");
        let own = Certificate::make(directory.path(), "admin", host);
        // What callers trust stays what it is when the gateway's own file is another one.
        let root_file = directory.path().join("admin-root.pem");
        std::fs::copy(&own.chain_file, &root_file).unwrap();
        let own = Certificate { root_file, ..own };
        let (site, port) = (free_port(), free_port());
        let backend = Backend::start("one");
        let document = Document::simple(site, &[backend.address]);
        let admin = admin(port, &own, &authority.file, clients);
        let gateway = Gateway::start_in(directory, &document.holdfast("admin", admin));
        Self { gateway, backend, authority, own, site, port }
    }

    /// The document with these clients, and where `port` says.
    pub(super) fn document(&self, clients: &[(&str, &str)]) -> Document {
        let document = Document::simple(self.site, &[self.backend.address]);
        document.holdfast("admin", admin(self.port, &self.own, &self.authority.file, clients))
    }

    pub(super) fn write(&self, name: &str, document: &Document) -> String {
        self.gateway.write(name, &document.text()).to_str().unwrap().to_owned()
    }

    pub(super) fn passport(&self, name: &str) -> Passport {
        self.authority.passport(name)
    }

    /// How the gateway is reached with a certificate, for whatever reads the environment.
    pub(super) fn environment(&self, passport: &Passport) -> [(&'static str, PathBuf); 4] {
        [
            ("HOLDFAST_ADMIN", format!("https://localhost:{}", self.port).into()),
            ("HOLDFAST_ADMIN_CERTIFICATE", passport.certificate.clone()),
            ("HOLDFAST_ADMIN_KEY", passport.key.clone()),
            ("HOLDFAST_ADMIN_AUTHORITY", self.own.root_file.clone()),
        ]
    }

    pub(super) fn command(&self, passport: &Passport, arguments: &[&str]) -> Command {
        let mut command = Command::new(HOLDFAST);
        command.args(arguments).envs(self.environment(passport)).stdin(Stdio::null());
        command
    }

    /// A command over the network.
    pub(super) fn call(&self, passport: &Passport, arguments: &[&str]) -> Output {
        self.command(passport, arguments).output().unwrap()
    }

    /// One that must succeed.
    pub(super) fn must(&self, passport: &Passport, arguments: &[&str]) -> String {
        let output = self.call(passport, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        words(&output)
    }

    /// `holdfast status --watch`, once it has shown something.
    pub(super) fn watch(&self, passport: &Passport) -> Watching {
        let path = |name| self.gateway.path().join(name);
        let (said, complaints) = (path("watch.out"), path("watch.err"));
        let child = self
            .command(passport, &["status", "--watch", "--json"])
            .stdout(File::create(&said).unwrap())
            .stderr(File::create(&complaints).unwrap())
            .spawn()
            .unwrap();
        let watching = Watching { child, complaints };
        eventually(Patience::USUAL, "a first status", || {
            std::fs::read_to_string(&said).is_ok_and(|said| said.contains("revision")).then_some(())
        });
        watching
    }

    /// Lines of the audit log with a text in them, once there are so many.
    pub(super) fn audit(&self, text: &str, count: usize) -> Vec<String> {
        eventually(Patience::USUAL, &format!("{count} lines of the audit log with {text}"), || {
            let log = self.gateway.log();
            let lines = log.lines().filter(|line| line.contains(" audit: ") && line.contains(text));
            let lines: Vec<_> = lines.map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }
}

/// Ends with this value.
pub(super) struct Watching {
    child: Child,
    complaints: PathBuf,
}

impl Watching {
    pub(super) fn complaints(&self) -> String {
        std::fs::read_to_string(&self.complaints).unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn admin(port: u16, own: &Certificate, authority: &Path, clients: &[(&str, &str)]) -> Value {
    let clients = clients.iter().map(|(name, role)| json!({"name": name, "role": role}));
    json!({
        "listen": format!("127.0.0.1:{port}"),
        "certificateFile": own.chain_file,
        "privateKeyFile": own.key_file,
        "clientCertificateAuthorityFile": authority,
        "clients": clients.collect::<Vec<_>>(),
    })
}
