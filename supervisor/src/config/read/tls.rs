//! TLS with clients: the gateway's policy, profiles of sites, authorities for certificates of clients. What a policy's
//! name means is `policy`'s; what a file of authorities holds, `authorities`'.

use std::path::Path;
use std::sync::Arc;

use crate::config::certificate;
use crate::config::gateway::{
    Certificate, ClientAuth, ClientAuthMode, Protocol, SuiteNeeds, TlsPolicy, TlsProfile,
    TrustedClients,
};
use crate::config::reference::Table;
use crate::config::report::{Place, Report};
use crate::config::shape::Shape;

pub(super) mod authorities;
mod policy;

pub(in crate::config) use policy::{policy_names, suite_names, version_names};

/// Azure's limits: entries of a profile, entries of a gateway, bytes of one.
const MOST_OF_A_PROFILE: usize = 100;
const MOST_OF_A_GATEWAY: usize = 200;
const MOST_BYTES: usize = 25 * 1024;

/// How to give authorities.
const AUTHORITIES_MEND: &str = "write \"data\": base64 of the PEM chain, or \"holdfast\": {\"certificateFile\": \"clients.pem\"} beside its name";

/// What the document says of TLS with clients, but for the sites.
pub(super) struct Tls {
    /// For sites without a profile that has its own.
    pub(super) policy: TlsPolicy,
    pub(super) trusted: Table<TrustedClients>,
    pub(super) profiles: Table<TlsProfile>,
}

// === impl Tls ===

impl Tls {
    pub(super) fn read(root: &Shape<'_>, base: &Path, report: &mut Report) -> Self {
        let policy = root.inner("sslPolicy", report);
        let policy = policy.and_then(|shape| policy::read(&shape, report));
        let trusted = trusted(root, base, report);
        let profiles = profiles(root, &trusted, report);
        Self { policy: policy.unwrap_or_else(policy::everything), trusted, profiles }
    }

    /// The profile of a site, which its certificate must go with. `Err`: given, but wrong, and reported.
    pub(super) fn of_site(
        &self,
        shape: &Shape<'_>,
        protocol: Protocol,
        certificate: Option<&Certificate>,
        report: &mut Report,
    ) -> Result<Option<Arc<TlsProfile>>, ()> {
        let Some(reference) = shape.reference("sslProfile", report) else {
            self.fits(certificate, None, &shape.place, report);
            return Ok(None);
        };
        let profile = self.profiles.find(&reference, report).ok_or(())?;
        if protocol == Protocol::Http {
            let (reason, mend) =
                ("the protocol is Http, so the profile", "make the protocol Https");
            if profile.client_auth.is_some() {
                report.error(
                    &reference.place,
                    format!("{reason} asks no client for a certificate: anybody would get in"),
                    format!("{mend}, or take sslProfile out"),
                );
                return Err(());
            }
            report.warn(
                &reference.place,
                format!("{reason} has no effect"),
                format!("{mend}, or take sslProfile out"),
            );
            return Ok(None);
        }
        self.fits(certificate, Some(&profile), &reference.place, report);
        Ok(Some(profile))
    }

    /// Reports a policy under which the site's certificate could never be shown.
    fn fits(
        &self,
        certificate: Option<&Certificate>,
        profile: Option<&TlsProfile>,
        place: &Place,
        report: &mut Report,
    ) {
        let Some(certificate) = certificate else { return };
        let policy = profile.and_then(|it| it.policy.as_ref()).unwrap_or(&self.policy);
        let has = |needs: SuiteNeeds| policy.suites.iter().any(|suite| suite.needs == needs);
        // Keys are looked at only where it matters: that takes a while for RSA, and there may be thousands of sites.
        if has(SuiteNeeds::Tls13) || (has(SuiteNeeds::Rsa) && has(SuiteNeeds::Ecdsa)) {
            return;
        }
        let (needs, kind) = if certificate::is_rsa(&certificate.key_der) {
            (SuiteNeeds::Rsa, "ECDHE_RSA")
        } else {
            (SuiteNeeds::Ecdsa, "ECDHE_ECDSA")
        };
        if !has(needs) {
            report.error(
                place,
                format!(
                    "the TLS policy has no cipher suite for the key of the certificate {:?}, so nobody could connect",
                    certificate.name
                ),
                format!("add a cipher suite with {kind}, or use a certificate with another kind of key"),
            );
        }
    }
}

fn trusted(root: &Shape<'_>, base: &Path, report: &mut Report) -> Table<TrustedClients> {
    let name = "trustedClientCertificates";
    if root.list(name, report).len() > MOST_OF_A_GATEWAY {
        report.error(
            root.place_of(name),
            format!("a gateway has at most {MOST_OF_A_GATEWAY} of them"),
            "put several authorities into one",
        );
    }
    super::collection(root, name, &[], report, |shape, name, report| {
        shape.pass_over(&["clientCertIssuerDN"]);
        let own = shape.inner("holdfast", report);
        let named = own.as_ref().and_then(|own| {
            let file = own.text("certificateFile", report);
            own.finish(report);
            file
        });
        let data = shape.text("data", report);
        // What Azure itself has made of the data, and prints.
        let data = data.or_else(|| shape.text("validatedCertData", report));
        shape.pass_over(&["validatedCertData"]);
        let (place, bytes, file) = match (named, data) {
            (Some(file), _) => {
                let path = base.join(&file.value);
                (file.place, certificate::read(&path), Some(path.display().to_string()))
            }
            (None, Some(data)) => (data.place, certificate::pem_or_der(&data.value), None),
            (None, None) => {
                report.error(&shape.place, "the entry has no certificate", AUTHORITIES_MEND);
                return None;
            }
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                report.error(&place, error.to_string(), error.mend());
                return None;
            }
        };
        if bytes.len() > MOST_BYTES {
            report.error(
                &place,
                format!("these are {} bytes; at most {MOST_BYTES} are read", bytes.len()),
                "spread the authorities over several entries",
            );
            return None;
        }
        match authorities::read(&bytes) {
            Ok(found) => {
                if found.ignored > 0 {
                    report.warn(
                        &place,
                        format!(
                            "{} of the certificates are of no authority; they are passed over",
                            found.ignored
                        ),
                        "keep the root and the authorities below it",
                    );
                }
                let authorities::Found { roots, intermediates, issuer, .. } = found;
                Some(TrustedClients { name, roots, intermediates, issuer, file })
            }
            Err(error) => {
                report.error(&place, error.to_string(), error.mend());
                None
            }
        }
    })
}

fn profiles(
    root: &Shape<'_>,
    trusted: &Table<TrustedClients>,
    report: &mut Report,
) -> Table<TlsProfile> {
    super::collection(root, "sslProfiles", &[], report, |shape, name, report| {
        let policy = shape.inner("sslPolicy", report);
        let policy = policy.and_then(|policy| policy::read(&policy, report));
        let references = shape.references("trustedClientCertificates", report);
        if references.len() > MOST_OF_A_PROFILE {
            report.error(
                shape.place_of("trustedClientCertificates"),
                format!("a profile has at most {MOST_OF_A_PROFILE} of them"),
                "put several authorities into one",
            );
        }
        let found: Vec<_> = references.iter().map(|it| trusted.find(it, report)).collect();
        // One that is wrong must not leave the others in its place.
        let trusted: Option<Vec<_>> = found.into_iter().collect();
        let client_auth = client_auth(shape, trusted?, report).ok()?;
        Some(TlsProfile { name, policy, client_auth })
    })
}

/// `Err`: given, but wrong, and reported.
fn client_auth(
    shape: &Shape<'_>,
    trusted: Vec<Arc<TrustedClients>>,
    report: &mut Report,
) -> Result<Option<ClientAuth>, ()> {
    let given = shape.inner("clientAuthConfiguration", report);
    let Some(given) = given else {
        let mode = ClientAuthMode::Strict;
        let strict = ClientAuth { mode, check_issuer: false, check_revocation: false, trusted };
        return Ok((!strict.trusted.is_empty()).then_some(strict));
    };
    let check_issuer = given.flag("verifyClientCertIssuerDN", false, report);
    let revocation = given.word("verifyClientRevocation", &["None", "OCSP"], report);
    let mode = given.word("verifyClientAuthMode", &["Strict", "Passthrough"], report);
    given.finish(report);
    let (revocation, spelled) = (revocation?, mode?);
    let mode = match spelled {
        Some("Passthrough") => ClientAuthMode::Passthrough,
        _ => ClientAuthMode::Strict,
    };
    let check_revocation = revocation == Some("OCSP");
    if check_revocation && trusted.is_empty() && mode == ClientAuthMode::Passthrough {
        report.warn(
            given.place_of("verifyClientRevocation"),
            "the profile trusts no authority, and only a certificate of one that is trusted is asked about: OCSP has no effect",
            "add trustedClientCertificates, or write None",
        );
    }
    if trusted.is_empty() && mode == ClientAuthMode::Strict {
        if spelled.is_none() && !check_issuer && !check_revocation {
            // As Azure prints a profile that has a policy and nothing else.
            report.warn(
                &given.place,
                "the profile trusts no authority, so clients are not asked for certificates",
                "add trustedClientCertificates, or take clientAuthConfiguration out",
            );
            return Ok(None);
        }
        report.error(
            &given.place,
            "the profile demands certificates of clients, but trusts no authority: nobody would get in",
            "add trustedClientCertificates: [{\"id\": \"…/trustedClientCertificates/NAME\"}]",
        );
        return Err(());
    }
    Ok(Some(ClientAuth { mode, check_issuer, check_revocation, trusted }))
}

#[cfg(test)]
mod tests;
