//! Certificates of sites and roots for backends, read and checked. Whether a site uses one
//! decides only how grave it is that its key is missing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::certificate::{self, CertificateError, Identity};
use crate::config::gateway::{Certificate, CertificateSource, TrustedRoot};
use crate::config::reference::Table;
use crate::config::report::{Place, Report};
use crate::config::shape::{Placed, Shape};
use crate::staples::Question;

/// How to give a root certificate.
pub(super) const ROOT_MEND: &str = "write \"data\": base64 of the certificate, DER or PEM";

/// How to give a certificate with its key.
pub(super) const FILES_MEND: &str = "write \"holdfast\": {\"certificateFile\": \"chain.pem\", \"privateKeyFile\": \"key.pem\"} beside its name";

/// A certificate or a root, which may be one in name only: Azure never prints a private key, and unless a site needs
/// the certificate that is no fault.
#[derive(Debug)]
pub(super) struct Held<T> {
    name: String,
    found: Result<Arc<T>, (Place, &'static str)>,
    needed: AtomicBool,
}

// === impl Held ===

impl<T> Held<T> {
    fn whole(name: String, value: T) -> Self {
        Self { name, found: Ok(Arc::new(value)), needed: AtomicBool::new(false) }
    }

    fn hollow(name: String, place: Place, reason: &'static str) -> Self {
        Self { name, found: Err((place, reason)), needed: AtomicBool::new(false) }
    }

    /// For somebody who cannot do without it; what it lacks is reported once, however many need it.
    pub(super) fn needed(&self, mend: &str, report: &mut Report) -> Option<Arc<T>> {
        let before = self.needed.swap(true, Ordering::Relaxed);
        if let (Err((place, reason)), false) = (&self.found, before) {
            report.error(place, *reason, mend);
        }
        self.found.as_ref().ok().cloned()
    }
}

/// What of a table can be used; warns of the rest that nobody needed. Call it after every reference was followed.
pub(super) fn usable<T>(table: &Table<Held<T>>, report: &mut Report) -> Vec<Arc<T>> {
    let mut usable = Vec::new();
    for held in table.values() {
        match &held.found {
            Ok(value) => usable.push(Arc::clone(value)),
            Err((place, reason)) if !held.needed.load(Ordering::Relaxed) => report.warn(
                place,
                format!("{reason}; nothing uses {:?}, so it is left out", held.name),
                "take it out, or see docs/configuration.md for how to give it before it is used",
            ),
            Err(_) => {}
        }
    }
    usable
}

pub(super) fn certificates(
    root: &Shape<'_>,
    base: &Path,
    report: &mut Report,
) -> Table<Held<Certificate>> {
    super::collection(root, "sslCertificates", &[], report, |shape, name, report| {
        shape.pass_over(&["publicCertData"]);
        let own = shape.inner("holdfast", report);
        let stapling = own.as_ref().is_some_and(|own| own.flag("ocspStapling", false, report));
        // Alone, it goes with whatever the certificate comes from.
        let is_file = |own: &&Shape<'_>| {
            let has = |name| own.get(name).is_some();
            !has("ocspStapling") || has("certificateFile") || has("privateKeyFile")
        };
        let files = own.as_ref().filter(is_file);
        if let (Some(own), None) = (&own, files) {
            own.finish(report);
        }
        let (place, loaded, source) = match files {
            Some(own) => {
                shape.pass_over(&["data", "password", "keyVaultSecretId", "hsm"]);
                from_files(own, base, report)?
            }
            None => match from_pfx(shape, report) {
                Ok(found) => found,
                Err((place, reason)) => return Some(Held::hollow(name, place, reason)),
            },
        };
        let Identity { chain_der, key_der, out_of_date } = checked(loaded, &place, report)?;
        if let Some(dates) = out_of_date {
            report.warn(
                &place,
                format!("the certificate is not valid today, only from {dates}"),
                "renew it; clients will refuse it",
            );
        }
        if let (true, Some(own), Err(why)) = (stapling, &own, Question::about(&chain_der)) {
            report.warn(
                own.place_of("ocspStapling"),
                format!("{why}: nothing can be stapled"),
                "give the chain with the issuer's certificate, or take ocspStapling out",
            );
        }
        let ocsp_stapling = stapling;
        let made = Certificate { name: name.clone(), chain_der, key_der, source, ocsp_stapling };
        Some(Held::whole(name, made))
    })
}

pub(super) type Found = (Place, Result<Identity, CertificateError>, CertificateSource);

fn from_files(own: &Shape<'_>, base: &Path, report: &mut Report) -> Option<Found> {
    let certificate = own.text("certificateFile", report);
    let key = own.text("privateKeyFile", report);
    own.finish(report);
    let (Some(certificate), Some(key)) = (certificate, key) else {
        report.error(&own.place, "certificateFile or privateKeyFile is missing", FILES_MEND);
        return None;
    };
    Some(from_pair(certificate, key, base))
}

/// From the files of a chain and of its key. The place is that of the file at fault.
pub(super) fn from_pair(certificate: Placed<String>, key: Placed<String>, base: &Path) -> Found {
    let (certificate_file, key_file) = (base.join(&certificate.value), base.join(&key.value));
    let loaded = certificate::from_files(&certificate_file, &key_file);
    let place = match &loaded {
        Err(
            CertificateError::NoKey(_)
            | CertificateError::UnsupportedKey
            | CertificateError::Mismatch,
        ) => key.place,
        Err(CertificateError::Unreadable { path, .. })
            if *path == key_file.display().to_string() =>
        {
            key.place
        }
        _ => certificate.place,
    };
    // Whole paths: the effective configuration must mean the same wherever it is read.
    let source = CertificateSource::Files {
        certificate: certificate_file.display().to_string(),
        private_key: key_file.display().to_string(),
    };
    (place, loaded, source)
}

/// `Err`: where no key is, and why.
fn from_pfx(shape: &Shape<'_>, report: &mut Report) -> Result<Found, (Place, &'static str)> {
    let data = shape.text("data", report);
    let password = shape.text("password", report);
    let vault = shape.text("keyVaultSecretId", report);
    let hsm = shape.says("hsm");
    let Some(data) = data else {
        return Err(match vault {
            Some(vault) => (vault.place, "a Key Vault secret cannot be read here"),
            None if hsm => (shape.place_of("hsm").clone(), "a key in an HSM cannot be used here"),
            None => (
                shape.place.clone(),
                "the certificate has no private key (neither Azure nor `holdfast config` prints one)",
            ),
        });
    };
    let word = password.as_ref().map_or("", |password| password.value.as_str());
    let loaded = certificate::from_pfx(&data.value, word);
    let place = match (&loaded, password) {
        (Err(CertificateError::WrongPassword), Some(password)) => password.place,
        _ => data.place,
    };
    Ok((place, loaded, CertificateSource::Pfx))
}

pub(super) fn trusted_roots(root: &Shape<'_>, report: &mut Report) -> Table<Held<TrustedRoot>> {
    super::collection(root, "trustedRootCertificates", &[], report, |shape, name, report| {
        let vault = shape.text("keyVaultSecretId", report);
        let Some(data) = shape.text("data", report) else {
            let place = vault.map_or_else(|| shape.place.clone(), |vault| vault.place);
            return Some(Held::hollow(name, place, "the root certificate has no data"));
        };
        let der = checked(certificate::root(&data.value), &data.place, report)?;
        Some(Held::whole(name.clone(), TrustedRoot { name, der }))
    })
}

fn checked<T>(loaded: Result<T, CertificateError>, at: &Place, report: &mut Report) -> Option<T> {
    match loaded {
        Ok(value) => Some(value),
        Err(e) => {
            report.error(at, e.to_string(), e.mend());
            None
        }
    }
}
