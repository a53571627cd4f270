//! Certificates made for one test.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

/// A self-signed certificate and its key, as PEM files.
pub(crate) struct Certificate {
    pub(crate) host: String,
    pub(crate) chain_file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) der: CertificateDer<'static>,
}

impl Certificate {
    /// Writes `NAME.crt` and `NAME.key` for `host` into `directory`.
    pub(crate) fn make(directory: &Path, name: &str, host: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        let chain_file = directory.join(format!("{name}.crt"));
        let key_file = directory.join(format!("{name}.key"));
        fs::write(&chain_file, made.cert.pem()).unwrap();
        fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
        Self { host: host.to_owned(), chain_file, key_file, der: made.cert.der().clone() }
    }
}
