//! OpenSSL as the OCSP responder of an authority, on a port of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::Authority;
use super::eventually::{Patience, eventually};

/// A responder; it ends with this value.
pub(crate) struct Responder {
    child: Child,
    log: PathBuf,
}

impl Responder {
    /// One for certificates of `issuer`, whose answers `signer` signs and hold for so many minutes. It knows those with a
    /// number: whether each is good.
    pub(crate) fn start(
        port: u16,
        issuer: &Authority,
        signer: &Authority,
        known: &[(u8, bool)],
        minutes: u32,
    ) -> Self {
        let directory = issuer.file.parent().unwrap();
        let index = directory.join(format!("index-{port}"));
        let lines = known.iter().map(|(number, good)| {
            let [state, revoked] = if *good { ["V", ""] } else { ["R", "250101000000Z"] };
            format!("{state}\t21260101000000Z\t{revoked}\t{number:02X}\tunknown\t/CN=client\n")
        });
        fs::write(&index, lines.collect::<String>()).unwrap();
        let log = directory.join(format!("responder-{port}"));
        let said = fs::File::create(&log).unwrap();
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-port", &port.to_string(), "-nmin", &minutes.to_string()]);
        command.arg("-index").arg(index).arg("-CA").arg(&issuer.file);
        command.arg("-rsigner").arg(&signer.file).arg("-rkey").arg(&signer.key);
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        let responder = Self { child: command.spawn().unwrap(), log };
        eventually(Patience::USUAL, "the responder to listen", || {
            responder.said().contains("ACCEPT").then_some(())
        });
        responder
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Questions that it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.said().matches("Received request").count()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
