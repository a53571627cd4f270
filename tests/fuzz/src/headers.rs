//! What a record's header allows, said once more and in another way than the record layer says it.

use crate::tls::keys::{Protocol, Suite, Version};
use crate::tls::record::{Framed, Violation};

/// No record is longer, header and all (RFC 5246 section 6.2.3).
const LONGEST: usize = 5 + 16_384 + 2048;

/// Whether what is here of a record's header is right, and how long the fragment is if that is known.
pub(crate) fn check(protocol: Protocol, bytes: &[u8]) -> Result<Option<usize>, Violation> {
    let (least, most) = match (protocol.version, protocol.suite) {
        (Version::Tls13, _) => (17, 16_384 + 256),
        (Version::Tls12, Suite::Chacha20Poly1305) => (16, 16_384 + 2048),
        (Version::Tls12, _) => (24, 16_384 + 2048),
    };
    match (bytes.first(), protocol.version) {
        (None | Some(23), _) | (Some(21 | 22), Version::Tls12) => {}
        (Some(20), _) => return Err(Violation::ChangeCipherSpec),
        (Some(other), _) => return Err(Violation::Type(*other)),
    }
    if bytes.get(1).is_some_and(|major| *major != 3)
        || bytes.get(2).is_some_and(|minor| *minor != 3)
    {
        return Err(Violation::Version);
    }
    let [Some(high), Some(low)] = [bytes.get(3), bytes.get(4)] else { return Ok(None) };
    match usize::from(*high) * 256 + usize::from(*low) {
        long if long > most => Err(Violation::RecordOverflow),
        short if short < least => Err(Violation::TooShort),
        length => Ok(Some(length)),
    }
}

/// Judges what was made of the record at the front of `bytes`.
pub(crate) fn judge(protocol: Protocol, bytes: &[u8], framed: Result<Framed, Violation>) {
    let expected = check(protocol, bytes).map(|length| match length {
        None => Framed::Partial { missing: 5 - bytes.len() },
        Some(length) if bytes.len() < 5 + length => {
            Framed::Partial { missing: 5 + length - bytes.len() }
        }
        Some(length) => Framed::Whole { len: 5 + length },
    });
    assert!(framed == expected, "framed as {framed:?}, not as {expected:?}");
    match framed {
        Ok(Framed::Whole { len }) => assert!(len <= bytes.len().min(LONGEST)),
        Ok(Framed::Partial { missing }) => {
            assert!(missing > 0 && bytes.len() + missing <= LONGEST);
        }
        Err(_) => {}
    }
}
