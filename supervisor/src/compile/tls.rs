//! Profiles of TLS with clients, each once for a listener however many sites share it.

use holdfast_proto::control;

use crate::config::gateway::{ClientAuth, ClientAuthMode, Gateway, Site, TlsProfile};

/// The index of the site's profile in `profiles`, which grows by it where it is new.
pub(super) fn profile(
    site: &Site,
    gateway: &Gateway,
    profiles: &mut Vec<control::TlsProfile>,
) -> u32 {
    if site.certificate.is_none() {
        return 0;
    }
    let message = message(site.tls_profile.as_deref(), gateway);
    let known = profiles.iter().position(|it| *it == message);
    let index = known.unwrap_or_else(|| {
        profiles.push(message);
        profiles.len() - 1
    });
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn message(profile: Option<&TlsProfile>, gateway: &Gateway) -> control::TlsProfile {
    let policy = profile.and_then(|it| it.policy.as_ref()).unwrap_or(&gateway.tls_policy);
    let auth = profile.and_then(|it| it.client_auth.as_ref());
    control::TlsProfile {
        name: profile.map(|it| it.name.clone()).unwrap_or_default(),
        tls12: policy.tls12,
        tls13: policy.tls13,
        suites: policy.suites.iter().map(|suite| suite.number.into()).collect(),
        client_auth: auth.map(client_auth),
        fingerprint: policy.fingerprint,
    }
}

fn client_auth(auth: &ClientAuth) -> control::ClientAuth {
    let mode = match auth.mode {
        ClientAuthMode::Strict => control::ClientAuthMode::Strict,
        ClientAuthMode::Passthrough => control::ClientAuthMode::Passthrough,
    };
    control::ClientAuth {
        mode: mode.into(),
        roots_der: auth.trusted.iter().flat_map(|it| it.roots.clone()).collect(),
        intermediates_der: auth.trusted.iter().flat_map(|it| it.intermediates.clone()).collect(),
        check_issuer: auth.check_issuer,
        issuers_der: auth.trusted.iter().map(|it| it.issuer.clone()).collect(),
        check_revocation: auth.check_revocation,
    }
}
