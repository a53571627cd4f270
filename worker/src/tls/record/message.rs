//! What an opened record says: data, an alert, or one of the few handshake messages that may come after a handshake.
//!
//! Only their outcome is kept. A message is never buffered: the one kind that may be long, a ticket, is skipped.

use std::ops::RangeInclusive;

use super::{Kind, Opened, Violation};
use crate::tls::keys::{Protocol, Role, Version};

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// How long a ticket can be, with all that it consists of (RFC 8446 section 4.6.1).
const TICKET_LEN: RangeInclusive<u32> = 14..=131_337;

/// What a record means for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// The plaintext is the peer's data, maybe of no bytes.
    Data,
    /// There is nothing to do.
    Nothing,
    /// The peer's next record comes under its next secret.
    KeyUpdate {
        /// It asks for the same from us.
        requested: bool,
    },
    /// The peer sends no more.
    Closed,
    /// The peer has given up, with this alert.
    PeerAlert(u8),
}

/// Bytes still to come of a ticket that an earlier record began. Together with the sequence number it is all that is
/// to be known of what was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Skip(u32);

/// Reads a record of the peer's. Our end is `role`.
pub(crate) fn read(
    protocol: Protocol,
    role: Role,
    opened: &Opened<'_>,
    skip: &mut Skip,
) -> Result<Message, Violation> {
    // RFC 8446 section 5.1: nothing comes between the parts of a handshake message, not even an alert.
    if skip.0 > 0 && opened.kind != Kind::Handshake {
        return Err(Violation::Interleaved);
    }
    // RFC 8446 section 5.4, RFC 5246 section 6.2.1.
    if opened.kind != Kind::Data && opened.plaintext.is_empty() {
        return Err(Violation::Empty);
    }
    match (opened.kind, protocol.version) {
        (Kind::Data, _) => Ok(Message::Data),
        (Kind::Alert, version) => read_alert(version, opened.plaintext),
        (Kind::Handshake, Version::Tls13) => read_handshake(role, opened.plaintext, skip),
        (Kind::Handshake, Version::Tls12) => read_hello(role, opened.plaintext),
    }
}

fn read_alert(version: Version, alert: &[u8]) -> Result<Message, Violation> {
    // Alerts are neither split nor joined (RFC 8446 section 5.1).
    let &[level, description] = alert else { return Err(Violation::MalformedAlert) };
    match (version, level, description) {
        (_, _, CLOSE_NOTIFY) => Ok(Message::Closed),
        // TLS 1.3 has levels on the wire only (RFC 8446 section 6): the description decides.
        (Version::Tls13, _, USER_CANCELED) | (Version::Tls12, 1, _) => Ok(Message::Nothing),
        (Version::Tls13, ..) | (Version::Tls12, 2, _) => Ok(Message::PeerAlert(description)),
        (Version::Tls12, ..) => Err(Violation::AlertLevel(level)),
    }
}

/// The messages of RFC 8446 section 4.6, of which we have agreed to no client authentication.
fn read_handshake(role: Role, record: &[u8], skip: &mut Skip) -> Result<Message, Violation> {
    let mut rest = skip.over(record);
    while !rest.is_empty() {
        let (kind, len, body) = split_header(rest, |kind| match (kind, role) {
            (KEY_UPDATE, _) | (NEW_SESSION_TICKET, Role::Client) => Ok(()),
            _ => Err(Violation::Handshake(kind)),
        })?;
        if kind == KEY_UPDATE {
            return read_key_update(len, body);
        }
        if !TICKET_LEN.contains(&len) {
            return Err(Violation::MalformedHandshake(kind));
        }
        *skip = Skip(len);
        rest = skip.over(body);
    }
    Ok(Message::Nothing)
}

/// RFC 8446 section 4.6.3. The key changes with the record, so the message ends it (section 5.1).
fn read_key_update(len: u32, body: &[u8]) -> Result<Message, Violation> {
    match body {
        // One that goes on in another record is not refused by the RFC, but nobody splits five bytes.
        _ if len != 1 => Err(Violation::MalformedHandshake(KEY_UPDATE)),
        [] => Err(Violation::MalformedHandshake(KEY_UPDATE)),
        [0] => Ok(Message::KeyUpdate { requested: false }),
        [1] => Ok(Message::KeyUpdate { requested: true }),
        [request] => Err(Violation::UpdateRequest(*request)),
        _ => Err(Violation::BehindKeyUpdate),
    }
}

/// TLS 1.2 has only attempts to shake hands anew, which a client may leave unanswered (RFC 5246 section 7.4.1.1).
fn read_hello(role: Role, record: &[u8]) -> Result<Message, Violation> {
    let mut rest = record;
    while !rest.is_empty() {
        let (kind, len, body) = split_header(rest, |kind| match (kind, role) {
            (HELLO_REQUEST, Role::Client) => Ok(()),
            (CLIENT_HELLO, Role::Server) => Err(Violation::Renegotiation),
            _ => Err(Violation::Handshake(kind)),
        })?;
        if len != 0 {
            return Err(Violation::MalformedHandshake(kind));
        }
        rest = body;
    }
    Ok(Message::Nothing)
}

/// Type and length of a handshake message, and what follows them in its record.
///
/// A type that is not allowed is refused even if nothing follows. A header that goes on in the next record is refused
/// too, though RFC 8446 section 5.1 would have it: a process that dies between the two would have to leave its bytes to
/// the successor. Only a sender that joins tickets and keeps its fragments tiny can come to cut one there.
fn split_header(
    bytes: &[u8],
    allow: impl FnOnce(u8) -> Result<(), Violation>,
) -> Result<(u8, u32, &[u8]), Violation> {
    allow(*bytes.first().ok_or(Violation::CutHeader)?)?;
    let (&[kind, high, middle, low], body) =
        bytes.split_first_chunk().ok_or(Violation::CutHeader)?;
    Ok((kind, u32::from_be_bytes([0, high, middle, low]), body))
}

// === impl Skip ===

impl Skip {
    /// What is left of a record behind the bytes to be skipped.
    fn over<'a>(&mut self, record: &'a [u8]) -> &'a [u8] {
        let wanted = usize::try_from(self.0).unwrap_or(usize::MAX);
        let Some((_, rest)) = record.split_at_checked(wanted) else {
            // A record is far shorter than u32::MAX.
            self.0 = self.0.saturating_sub(u32::try_from(record.len()).unwrap_or(u32::MAX));
            return &[];
        };
        self.0 = 0;
        rest
    }
}

impl From<u32> for Skip {
    fn from(bytes: u32) -> Self {
        Self(bytes)
    }
}

impl From<Skip> for u32 {
    fn from(skip: Skip) -> Self {
        skip.0
    }
}

/// A `KeyUpdate`, alone in its record (RFC 8446 section 4.6.3). Records after it are sealed under the next secret.
pub(crate) const fn key_update(requested: bool) -> [u8; 5] {
    [KEY_UPDATE, 0, 0, 1, requested as u8]
}

/// The alert that ends our direction, a warning by name (RFC 8446 section 6.1).
pub(crate) const fn close_notify() -> [u8; 2] {
    [1, CLOSE_NOTIFY]
}

/// The alert that ends the session (RFC 8446 section 6.2), as of [`Violation::alert`].
pub(crate) const fn fatal_alert(description: u8) -> [u8; 2] {
    [2, description]
}
