//! Certificates made for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::gateway::words;

/// A certificate and its key, as PEM files.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) host: String,
    /// What the gateway shows.
    pub(crate) chain_file: PathBuf,
    pub(crate) key_file: PathBuf,
    /// What a client must trust.
    pub(crate) root_file: PathBuf,
    pub(crate) der: CertificateDer<'static>,
}

impl Certificate {
    /// Writes a self-signed `NAME.crt` and its `NAME.key` for `host` into `directory`.
    pub(crate) fn make(directory: &Path, name: &str, host: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        let chain_file = directory.join(format!("{name}.crt"));
        let key_file = directory.join(format!("{name}.key"));
        fs::write(&chain_file, made.cert.pem()).unwrap();
        fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
        let der = made.cert.der().clone();
        Self { host: host.to_owned(), root_file: chain_file.clone(), chain_file, key_file, der }
    }

    /// Has OpenSSL make a root, an intermediate that it signs, and a certificate for `host` that this one signs; all
    /// with RSA keys, as most certificates in the world are.
    pub(crate) fn signed_by_openssl(directory: &Path, host: &str) -> Self {
        let file = |name: &str, ending: &str| directory.join(format!("{name}.{ending}"));
        // A machine's own configuration would add extensions, such as making every certificate an authority.
        let config = directory.join("openssl.cnf");
        fs::write(&config, "[req]\ndistinguished_name = name\n[name]\n").unwrap();
        for (name, signer, extensions) in [
            ("root", None, "basicConstraints=critical,CA:TRUE".to_owned()),
            ("middle", Some("root"), "basicConstraints=critical,CA:TRUE,pathlen:0".to_owned()),
            ("leaf", Some("middle"), format!("subjectAltName=DNS:{host}")),
        ] {
            let mut command = Command::new("openssl");
            command
                .args(["req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-config"]);
            command.arg(&config);
            command.args(["-subj", &format!("/CN=Holdfast tests {name}"), "-addext", &extensions]);
            command.arg("-keyout").arg(file(name, "key")).arg("-out").arg(file(name, "crt"));
            if let Some(signer) = signer {
                command.arg("-CA").arg(file(signer, "crt"));
                command.arg("-CAkey").arg(file(signer, "key"));
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "openssl: {}", words(&output));
        }
        let [leaf, middle] =
            ["leaf", "middle"].map(|name| fs::read_to_string(file(name, "crt")).unwrap());
        let chain_file = directory.join("chain.crt");
        fs::write(&chain_file, format!("{leaf}{middle}")).unwrap();
        Self {
            host: host.to_owned(),
            chain_file,
            key_file: file("leaf", "key"),
            root_file: file("root", "crt"),
            der: CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap(),
        }
    }
}
