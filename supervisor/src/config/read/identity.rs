//! Certificates of sites and roots for backends, read and checked. Which of them are used is not its concern.

use std::path::Path;

use crate::config::certificate::{self, CertificateError, Identity};
use crate::config::gateway::{Certificate, CertificateSource, TrustedRoot};
use crate::config::reference::Table;
use crate::config::report::{Place, Report};
use crate::config::shape::Shape;

const FILES_MEND: &str = "write \"holdfast\": {\"certificateFile\": \"chain.pem\", \"privateKeyFile\": \"key.pem\"} beside its name";

pub(super) fn certificates(
    root: &Shape<'_>,
    base: &Path,
    report: &mut Report,
) -> Table<Certificate> {
    super::collection(root, "sslCertificates", &[], report, |shape, name, report| {
        shape.pass_over(&["publicCertData"]);
        let (place, loaded, source) = match shape.inner("holdfast", report) {
            Some(own) => {
                shape.pass_over(&["data", "password", "keyVaultSecretId", "hsm"]);
                from_files(&own, base, report)?
            }
            None => from_pfx(shape, report)?,
        };
        let Identity { chain_der, key_der, out_of_date } = checked(loaded, &place, report)?;
        if let Some(dates) = out_of_date {
            report.warn(
                &place,
                format!("the certificate is not valid today, only from {dates}"),
                "renew it; clients will refuse it",
            );
        }
        Some(Certificate { name, chain_der, key_der, source })
    })
}

type Found = (Place, Result<Identity, CertificateError>, CertificateSource);

fn from_files(own: &Shape<'_>, base: &Path, report: &mut Report) -> Option<Found> {
    let certificate = own.text("certificateFile", report);
    let key = own.text("privateKeyFile", report);
    own.finish(report);
    let (Some(certificate), Some(key)) = (certificate, key) else {
        report.error(&own.place, "certificateFile or privateKeyFile is missing", FILES_MEND);
        return None;
    };
    let loaded = certificate::from_files(&base.join(&certificate.value), &base.join(&key.value));
    let place = match &loaded {
        Err(
            CertificateError::NoKey(_)
            | CertificateError::UnsupportedKey
            | CertificateError::Mismatch,
        ) => key.place,
        Err(CertificateError::Unreadable { path, .. })
            if *path == base.join(&key.value).display().to_string() =>
        {
            key.place
        }
        _ => certificate.place,
    };
    let source =
        CertificateSource::Files { certificate: certificate.value, private_key: key.value };
    Some((place, loaded, source))
}

fn from_pfx(shape: &Shape<'_>, report: &mut Report) -> Option<Found> {
    let data = shape.text("data", report);
    let password = shape.text("password", report);
    let vault = shape.text("keyVaultSecretId", report);
    let hsm = shape.says("hsm");
    let Some(data) = data else {
        let (place, reason) = match vault {
            Some(vault) => (vault.place, "a Key Vault secret cannot be read here"),
            None if hsm => (shape.place_of("hsm").clone(), "a key in an HSM cannot be used here"),
            None => (
                shape.place.clone(),
                "the certificate has no private key (Azure never gives one out again)",
            ),
        };
        report.error(&place, reason, FILES_MEND);
        return None;
    };
    let word = password.as_ref().map_or("", |password| password.value.as_str());
    let loaded = certificate::from_pfx(&data.value, word);
    let place = match (&loaded, password) {
        (Err(CertificateError::WrongPassword), Some(password)) => password.place,
        _ => data.place,
    };
    Some((place, loaded, CertificateSource::Pfx))
}

pub(super) fn trusted_roots(root: &Shape<'_>, report: &mut Report) -> Table<TrustedRoot> {
    super::collection(root, "trustedRootCertificates", &[], report, |shape, name, report| {
        let vault = shape.text("keyVaultSecretId", report);
        let Some(data) = shape.text("data", report) else {
            let place = vault.map_or_else(|| shape.place.clone(), |vault| vault.place);
            report.error(
                &place,
                "the root certificate has no data",
                "write \"data\": base64 of the certificate, DER or PEM",
            );
            return None;
        };
        let der = checked(certificate::root(&data.value), &data.place, report)?;
        Some(TrustedRoot { name, der })
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
