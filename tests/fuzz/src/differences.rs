//! Where our record layer and rustls part, on purpose. Anywhere else they must say the same of the same bytes.

use rustls::{AlertDescription, Error, PeerMisbehaved};

use crate::ours::{self, Outcome};
use crate::theirs::{self, Kit, Seen};
use crate::tls::keys::Version;
use crate::tls::record::Violation;

/// Compares.
pub(crate) fn judge(kit: &Kit, ours: &Outcome, theirs: &Seen) {
    let is_tls13 = kit.protocol.version == Version::Tls13;
    let right = match (we_refuse_more(ours), they_refuse_more(is_tls13, ours, &theirs.end)) {
        (false, false) => ours.data == theirs.data && is_same_end(ours, &theirs.end),
        (true, false) => theirs.data.starts_with(&ours.data),
        (false, true) => ours.data.starts_with(&theirs.data),
        (true, true) => ours.data.starts_with(&theirs.data) || theirs.data.starts_with(&ours.data),
    };
    let (ours_len, theirs_len) = (ours.data.len(), theirs.data.len());
    assert!(
        right,
        "{:?} {:?}: we {:?} behind {ours_len} bytes, they {:?} behind {theirs_len}",
        kit.protocol, kit.role, ours.end, theirs.end
    );
}

fn is_same_end(ours: &Outcome, theirs: &theirs::End) -> bool {
    use theirs::End::{Closed, Failed, Waiting};
    match ours.end {
        ours::End::Waiting => matches!(theirs, Waiting),
        ours::End::Closed => matches!(theirs, Closed),
        // We refuse a record by its header, and a message by its type or its length; rustls when all of it is here.
        ours::End::Refused(_) if ours.by_header => matches!(theirs, Waiting | Failed(_)),
        ours::End::Refused(Violation::Handshake(_) | Violation::MalformedHandshake(_)) => {
            matches!(theirs, Waiting | Failed(_))
        }
        ours::End::Refused(_) | ours::End::Alert(_) => matches!(theirs, Failed(_)),
    }
}

#[expect(clippy::match_same_arms, reason = "each has a reason of its own")]
fn we_refuse_more(ours: &Outcome) -> bool {
    let ours::End::Refused(violation) = ours.end else { return false };
    match violation {
        // RFC 8446 section 5.2: always the same three bytes. rustls opens what it knows of others as if they were right.
        Violation::ChangeCipherSpec | Violation::Type(_) | Violation::Version => ours.by_header,
        // A message's header that goes on in the next record: we would have to keep its beginning.
        Violation::CutHeader => true,
        // RFC 8446 section 5.1, RFC 5246 section 6.2.1: nobody may send one. rustls waits for the rest.
        Violation::Empty => true,
        // A KeyUpdate in two records: we would have to keep its beginning, and nobody splits five bytes.
        Violation::MalformedHandshake(24) => true,
        // A HelloRequest with something in it: RFC 5246 section 7.4.1.1 knows none. rustls does not look.
        Violation::MalformedHandshake(0) => true,
        // A client that wants to shake hands anew: rustls says no, and goes on.
        Violation::Renegotiation => true,
        _ => false,
    }
}

fn they_refuse_more(is_tls13: bool, ours: &Outcome, theirs: &theirs::End) -> bool {
    let theirs::End::Failed(error) = theirs else { return false };
    match error {
        // They count noise by its kind. We count it in the step, where it is not only the record's (`FRUITLESS`).
        Error::PeerMisbehaved(
            PeerMisbehaved::TooManyEmptyFragments
            | PeerMisbehaved::TooManyWarningAlertsReceived
            | PeerMisbehaved::TooManyKeyUpdateRequests
            | PeerMisbehaved::TooManyRenegotiationRequests,
        ) => true,
        // A level that no alert has, or one that is not this alert's. RFC 8446 section 6: it says nothing.
        Error::AlertReceived(AlertDescription::CloseNotify) => ours.end == ours::End::Closed,
        Error::AlertReceived(AlertDescription::UserCanceled) => is_tls13,
        // What is in a ticket, and one that is longer than there is room for: we pass it over.
        Error::InvalidMessage(_) | Error::General(_) => {
            is_tls13 && (ours.passed_over || ours.skipping)
        }
        _ => false,
    }
}
