//! How a peer can break the rules of a session that is up, and the alert that each breach deserves.
//!
//! Bytes of a peer never get into a text, but for single numbers.

use thiserror::Error;

/// A breach by the peer. The session is over: what is left is to send [`Self::alert`] as a fatal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Violation {
    #[error("a record of type {0}")]
    Type(u8),
    #[error("a change_cipher_spec after the handshake")]
    ChangeCipherSpec,
    #[error("a record of another version")]
    Version,
    #[error("a record or its plaintext is too long")]
    RecordOverflow,
    #[error("a record is too short for its cipher")]
    TooShort,
    /// Rather the caller's breach: [`super::frame`] says where a record ends.
    #[error("not one whole record")]
    NotOne,
    #[error("a record is not authentic")]
    BadRecordMac,
    #[error("a record of nothing but padding")]
    PaddingOnly,
    #[error("an empty alert or handshake record")]
    Empty,
    #[error("another record in the middle of a handshake message")]
    Interleaved,
    #[error("a handshake message of type {0} after the handshake")]
    Handshake(u8),
    #[error("a malformed handshake message of type {0}")]
    MalformedHandshake(u8),
    #[error("a record ends within the header of a handshake message")]
    CutHeader,
    #[error("bytes of an old key behind a KeyUpdate")]
    BehindKeyUpdate,
    #[error("a KeyUpdate with the request {0}")]
    UpdateRequest(u8),
    #[error("a malformed alert")]
    MalformedAlert,
    #[error("an alert of level {0}")]
    AlertLevel(u8),
    #[error("a renegotiation")]
    Renegotiation,
}

impl Violation {
    /// The description of the alert that answers it (RFC 8446 section 6.2, RFC 5246 section 7.2.2).
    pub(crate) const fn alert(self) -> u8 {
        match self {
            Self::Type(_)
            | Self::ChangeCipherSpec
            | Self::PaddingOnly
            | Self::Empty
            | Self::Interleaved
            | Self::Handshake(_)
            | Self::BehindKeyUpdate => 10, // unexpected_message
            Self::TooShort | Self::BadRecordMac => 20, // bad_record_mac
            Self::RecordOverflow => 22,                // record_overflow
            Self::UpdateRequest(_) | Self::AlertLevel(_) => 47, // illegal_parameter
            Self::NotOne | Self::MalformedHandshake(_) | Self::CutHeader | Self::MalformedAlert => {
                50 // decode_error
            }
            Self::Version => 70,        // protocol_version
            Self::Renegotiation => 100, // no_renegotiation
        }
    }
}
