//! Whether a client may have anything of a site: where the site asks for certificates, by what the client showed when
//! the connection began, and where it is to be known that this was not revoked, by what a responder says of it now.
//!
//! The site of a handshake is found by SNI, a request's by its Host. So a request may come to a site that asks in
//! another way than the client was asked, and must then begin a connection of its own (RFC 9110 section 15.5.20).

use std::sync::Arc;

use crate::fault::{Fault, FaultKind};
use crate::http::Conversation;
use crate::http::note::Note;
use crate::rewrite::facts::{ClientCertificate, Session};
use crate::route::Site;
use crate::snapshot::Table;
use crate::tls::client_auth::{ClientCertificate as Shown, Sight, Verdict};
use crate::tls::profile::{Admittance, ClientIdentity};

/// What a site may be told of its client's TLS: of a certificate only where it asks for one. Another site of the same
/// connection may have asked.
pub(super) fn session(
    table: &Table,
    site: &Site,
    conversation: &Conversation,
    verdict: Verdict,
) -> Option<Session> {
    let mut session = conversation.session.clone()?;
    let asks = table.offer.profile(site.tls_profile).is_some_and(|profile| profile.asks());
    let shown = conversation.identity.as_deref().filter(|_| asks);
    let shown = shown.and_then(ClientIdentity::certificate);
    session.certificate = shown.map(|shown| Arc::new(told(shown, verdict)));
    Some(session)
}

fn told(shown: &Shown, verdict: Verdict) -> ClientCertificate {
    ClientCertificate {
        pem: shown.pem.replace('\n', "%0A"),
        end_date: shown.not_after.clone(),
        start_date: shown.not_before.clone(),
        fingerprint: shown.fingerprint.clone(),
        issuer: shown.issuer.clone(),
        subject: shown.subject.clone(),
        serial: shown.serial.clone(),
        verification: verdict.to_string(),
    }
}

/// Refuses a request whose client has not shown what its site demands. Else what came of looking at it.
pub(super) async fn check(
    table: &Table,
    site: &Site,
    conversation: &Conversation,
    note: &Note,
) -> Result<Verdict, Fault> {
    if !conversation.peer.tls {
        return Ok(Verdict::None);
    }
    // Compiled with the table; if there is none, nobody is let in.
    let profile = table.offer.profile(site.tls_profile).ok_or(FaultKind::Internal)?;
    if !profile.asks() {
        return Ok(Verdict::None);
    }
    let sight = profile.sight(conversation.identity.as_deref()).map_err(refusal)?;
    let is_settled = matches!(sight, Sight::Settled(_));
    let revocation = &conversation.shared.revocation;
    let verdict = match sight {
        Sight::Settled(verdict) => verdict,
        // Boxed: it is rare, and each request's task would have room for it.
        Sight::Open(question) if profile.is_strict() => {
            Box::pin(revocation.verdict(&question)).await
        }
        // Nothing is enforced, so there is nothing to wait for.
        Sight::Open(question) => revocation.known(&question),
    };
    note.verified(verdict);
    match profile.admits(verdict) {
        Admittance::Granted => Ok(verdict),
        otherwise => {
            // What was seen in the handshake only another one can mend; a responder may say something else next time.
            if is_settled {
                conversation.end_soon();
            }
            Err(refusal(otherwise))
        }
    }
}

fn refusal(admittance: Admittance) -> Fault {
    Fault::new(match admittance {
        Admittance::Missing => FaultKind::NoClientCertificate,
        Admittance::Bad => FaultKind::BadClientCertificate,
        Admittance::AskedOtherwise => FaultKind::Misdirected,
        // Nothing is refused for it.
        Admittance::Granted => FaultKind::Internal,
    })
}
