//! Path patterns: literal, or a literal prefix with `*` at its end; compared percent-decoded and without regard to
//! ASCII case, as Azure's v2 gateways do.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

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

    /// What of `path` (as sent, percent-encoded) follows the prefix.
    pub fn rest<'a>(&self, path: &'a str) -> &'a str {
        let bytes = path.as_bytes();
        let mut at = 0;
        for _ in 0..self.decoded {
            at += match bytes.get(at..at + 3) {
                Some([b'%', high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => 3,
                _ => 1,
            };
        }
        path.get(at..).unwrap_or("")
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
        Some(Self { literal: normalize(literal).into_owned(), open })
    }

    /// Matches a path that went through [`normalize`].
    pub(super) fn matches(&self, path: &[u8]) -> Option<MatchedPrefix> {
        let hit = if self.open { path.starts_with(&self.literal) } else { path == self.literal };
        hit.then_some(MatchedPrefix { decoded: self.literal.len() })
    }
}

/// Percent-decodes and lowers a path; what is no valid escape stays as it is.
pub(super) fn normalize(path: &str) -> Cow<'_, [u8]> {
    let mut decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    if decoded.iter().any(u8::is_ascii_uppercase) {
        decoded.to_mut().make_ascii_lowercase();
    }
    decoded
}
