//! Path patterns: literal, or a literal prefix with `*` at its end; compared percent-decoded and without regard to
//! ASCII case, as Azure's v2 gateways do. Dot segments are walked first, as nginx does: a backend walks them too, and
//! must not come out under another rule's path than the one that the request was routed by.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// What is escaped where a path has to be written anew: all but RFC 3986's `pchar` and the slash.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// How much of a request path a pattern's literal prefix covered, counted in decoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchedPrefix {
    decoded: usize,
}

/// A compiled path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    literal: Vec<u8>,
    open: bool,
}

// === impl MatchedPrefix ===

impl MatchedPrefix {
    /// Nothing matched: a basic rule, or the default of a path map.
    pub const NONE: Self = Self { decoded: 0 };

    /// What of `path` (as sent, percent-encoded) follows the prefix; of one with dot segments, what they come to.
    pub fn rest<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if self.decoded > 0
            && let Some(walked) = walked(&Cow::from(percent_decode_str(path)))
        {
            let rest = walked.get(self.decoded..).unwrap_or_default();
            return Cow::Owned(percent_encode(rest, ESCAPED).to_string());
        }
        let bytes = path.as_bytes();
        let mut at = 0;
        for _ in 0..self.decoded {
            at += match bytes.get(at..at + 3) {
                Some([b'%', high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => 3,
                _ => 1,
            };
        }
        Cow::Borrowed(path.get(at..).unwrap_or(""))
    }
}

// === impl PathPattern ===

impl PathPattern {
    /// Compiles a pattern; one that does not begin with `/` or holds `*` elsewhere than at its end is none.
    pub fn new(pattern: &str) -> Option<Self> {
        let (literal, open) =
            pattern.strip_suffix('*').map_or((pattern, false), |literal| (literal, true));
        if !literal.starts_with('/') || literal.contains('*') {
            return None;
        }
        // Not walked: what stands before a star may end in the middle of a segment.
        Some(Self { literal: lowered(percent_decode_str(literal).into()).into_owned(), open })
    }

    /// Matches a path that went through [`normalize`].
    pub(super) fn matches(&self, path: &[u8]) -> Option<MatchedPrefix> {
        let hit = if self.open { path.starts_with(&self.literal) } else { path == self.literal };
        hit.then_some(MatchedPrefix { decoded: self.literal.len() })
    }
}

/// Percent-decodes a path, walks its dot segments and lowers it; what is no valid escape stays as it is.
pub(super) fn normalize(path: &str) -> Cow<'_, [u8]> {
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    let walked = walked(&decoded);
    lowered(walked.map_or(decoded, Cow::Owned))
}

/// A decoded path without its dot segments (RFC 3986 section 5.2.4); `None`: it has none.
fn walked(decoded: &[u8]) -> Option<Vec<u8>> {
    let segments = decoded.strip_prefix(b"/")?.split(|byte| *byte == b'/');
    if !segments.clone().any(|segment| matches!(segment, b"." | b"..")) {
        return None;
    }
    let (mut kept, mut open) = (Vec::new(), true);
    for segment in segments {
        match segment {
            b"." => open = true,
            b".." => {
                kept.pop();
                open = true;
            }
            other => {
                kept.push(other);
                open = false;
            }
        }
    }
    let mut path = Vec::with_capacity(decoded.len());
    for segment in kept {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if open {
        path.push(b'/');
    }
    Some(path)
}

fn lowered(mut decoded: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if decoded.iter().any(u8::is_ascii_uppercase) {
        decoded.to_mut().make_ascii_lowercase();
    }
    decoded
}
