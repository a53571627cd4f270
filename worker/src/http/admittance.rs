//! Whether a client may have anything of a site: where the site asks for certificates, by what the client showed when
//! the connection began.
//!
//! The site of a handshake is found by SNI, a request's by its Host. So a request may come to a site that asks in
//! another way than the client was asked, and must then begin a connection of its own (RFC 9110 section 15.5.20).

use std::sync::Arc;

use crate::fault::{Fault, FaultKind};
use crate::http::Conversation;
use crate::rewrite::facts::{ClientCertificate, Session};
use crate::route::Site;
use crate::snapshot::Table;
use crate::tls::client_auth::ClientCertificate as Shown;
use crate::tls::profile::{Admittance, ClientIdentity};

/// What a site may be told of its client's TLS: of a certificate only where it asks for one. Another site of the same
/// connection may have asked.
pub(super) fn session(table: &Table, site: &Site, conversation: &Conversation) -> Option<Session> {
    let mut session = conversation.session.clone()?;
    let asks = table.offer.profile(site.tls_profile).is_some_and(|profile| profile.asks());
    let shown = conversation.identity.as_deref().filter(|_| asks);
    session.certificate = shown.and_then(ClientIdentity::certificate).map(told).map(Arc::new);
    Some(session)
}

fn told(shown: &Shown) -> ClientCertificate {
    ClientCertificate {
        pem: shown.pem.replace('\n', "%0A"),
        end_date: shown.not_after.clone(),
        start_date: shown.not_before.clone(),
        fingerprint: shown.fingerprint.clone(),
        issuer: shown.issuer.clone(),
        subject: shown.subject.clone(),
        serial: shown.serial.clone(),
        verification: shown.verification.to_string(),
    }
}

/// Refuses a request whose client has not shown what its site demands.
pub(super) fn check(table: &Table, site: &Site, conversation: &Conversation) -> Result<(), Fault> {
    if !conversation.peer.tls {
        return Ok(());
    }
    // Compiled with the table; if there is none, nobody is let in.
    let profile = table.offer.profile(site.tls_profile).ok_or(FaultKind::Internal)?;
    match profile.admits(conversation.identity.as_deref()) {
        Admittance::Granted => Ok(()),
        Admittance::Missing => Err(Fault::new(FaultKind::NoClientCertificate)),
        Admittance::Bad => Err(Fault::new(FaultKind::BadClientCertificate)),
        Admittance::AskedOtherwise => Err(Fault::new(FaultKind::Misdirected)),
    }
}
