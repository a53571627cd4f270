//! The demo's own certificate: for localhost only, signed by itself, its key readable by nobody else.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use jiff::{Span, Timestamp, tz::TimeZone};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

/// Browsers refuse certificates that live longer than 398 days.
const LIFE_DAYS: i32 = 397;

/// A younger certificate is kept: a browser that was told to trust it does not ask again.
const KEPT_FOR: Duration = Duration::from_secs(300 * 24 * 3600);

/// Where the certificate is.
pub(super) struct Files {
    /// PEM of the certificate.
    pub(super) chain: PathBuf,
    /// PEM of its private key.
    pub(super) key: PathBuf,
}

/// The certificate in `directory`, made where there is none or only an old one.
pub(super) fn ensure(directory: &Path) -> anyhow::Result<Files> {
    let files =
        Files { chain: directory.join("certificate.pem"), key: directory.join("private-key.pem") };
    if is_young(&files.chain) && is_young(&files.key) {
        return Ok(files);
    }
    let (chain, key) = make().context("cannot make the demo's certificate")?;
    // The key first: a certificate without its key would be kept.
    for (path, pem) in [(&files.key, key), (&files.chain, chain)] {
        write_private(path, &pem).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(files)
}

fn is_young(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|found| found.modified());
    written.is_ok_and(|written| {
        SystemTime::now().duration_since(written).is_ok_and(|age| age < KEPT_FOR)
    })
}

fn make() -> anyhow::Result<(String, String)> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Holdfast demo");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    for (bound, days) in [(&mut params.not_before, -1), (&mut params.not_after, LIFE_DAYS)] {
        let day = today.checked_add(Span::new().try_days(days)?)?;
        *bound =
            date_time_ymd(day.year().into(), u8::try_from(day.month())?, u8::try_from(day.day())?);
    }
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Whole or not at all, so that a reader of the old file never sees half of the new one.
fn write_private(path: &Path, pem: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(pem.as_bytes())?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_young_certificate_is_kept_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let files = ensure(directory.path()).unwrap();
        let first = fs::read_to_string(&files.chain).unwrap();
        assert!(first.starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(fs::metadata(&files.key).unwrap().mode() & 0o777, 0o600);
        ensure(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(&files.chain).unwrap(), first);
        fs::remove_file(&files.key).unwrap();
        ensure(directory.path()).unwrap();
        assert_ne!(fs::read_to_string(&files.chain).unwrap(), first);
    }
}
