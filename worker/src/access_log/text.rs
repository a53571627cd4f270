//! A client's words in a line: bounded, and visible whatever bytes they are.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

/// Most bytes of one value that are kept until the line is written. Longer targets are rare, and most servers refuse them.
const KEPT: usize = 8 * 1024;

/// What somebody has said, cut where it is too long to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    bytes: Box<[u8]>,
    cut: bool,
}

/// A text as a line shows it: no longer than so many bytes between its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    bytes: &'a [u8],
    cut: bool,
    most: usize,
}

// === impl Text ===

impl Text {
    pub(crate) fn new(said: impl AsRef<[u8]>) -> Self {
        let said = said.as_ref();
        let kept = said.get(..KEPT).unwrap_or(said);
        Self { bytes: kept.into(), cut: kept.len() < said.len() }
    }

    /// Bytes of memory behind it.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn shown(&self, most: usize) -> Shown<'_> {
        Shown { bytes: &self.bytes, cut: self.cut, most }
    }

    /// What stands before the first `?`.
    pub(super) fn path(&self, most: usize) -> Shown<'_> {
        match self.bytes.iter().position(|byte| *byte == b'?').and_then(|at| self.bytes.get(..at)) {
            Some(bytes) => Shown { bytes, cut: false, most },
            None => self.shown(most),
        }
    }

    /// What stands behind the first `?`.
    pub(super) fn query(&self, most: usize) -> Option<Shown<'_>> {
        let at = self.bytes.iter().position(|byte| *byte == b'?')?;
        let bytes = self.bytes.get(at + 1..).filter(|query| !query.is_empty())?;
        Some(Shown { bytes, cut: self.cut, most })
    }
}

impl From<&str> for Text {
    fn from(said: &str) -> Self {
        Self::new(said)
    }
}

// === impl Shown ===

/// Bytes of a character within a JSON string.
fn written(character: char) -> usize {
    match character {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

impl fmt::Display for Shown<'_> {
    /// What is not UTF-8 becomes `\xNN`; the end of what is cut off, `…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.most;
        let mut take = |bytes: usize| match left.checked_sub(bytes) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        for chunk in self.bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if !take(written(character)) {
                    return f.write_char('…');
                }
                f.write_char(character)?;
            }
            for byte in chunk.invalid() {
                // Its backslash is two bytes in JSON.
                if !take(5) {
                    return f.write_char('…');
                }
                write!(f, "\\x{byte:02x}")?;
            }
        }
        if self.cut { f.write_char('…') } else { Ok(()) }
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn json(said: &[u8], most: usize) -> String {
        serde_json::to_string(&Text::new(said).shown(most)).unwrap()
    }

    #[test]
    fn whatever_a_client_says_is_one_string_of_one_line() {
        for (said, shown) in [
            (&b"/a?b=c"[..], r#""/a?b=c""#),
            (b"\"},{\"x\":\"", r#""\"},{\"x\":\"""#),
            (b"a\r\nb\0\x1b[2J", r#""a\r\nb\u0000\u001b[2J""#),
            ("grün".as_bytes(), "\"grün\""),
            (b"\xff\xc3(", r#""\\xff\\xc3(""#),
        ] {
            let json = json(said, 100);
            assert_eq!(json, shown);
            assert!(!json.contains('\n'));
            serde_json::from_str::<String>(&json).unwrap();
        }
    }

    #[test]
    fn it_is_never_longer_than_it_may_be() {
        for said in [&[0; 500][..], &[b'"'; 500], &[0xff; 500], "ü€😀".repeat(50).as_bytes()] {
            for most in 0..60 {
                let shown = json(said, most);
                assert!(shown.len() <= most + "\"…\"".len(), "{shown}");
                assert!(shown.ends_with("…\""), "{shown}");
            }
        }
        assert_eq!(json(b"1234", 4), "\"1234\"");
    }

    #[test]
    fn what_is_kept_is_bounded_too() {
        let text = Text::new(vec![b'a'; 100_000]);
        assert!(text.len() <= KEPT);
        let shown = text.shown(usize::MAX).to_string();
        assert!(shown.ends_with("a…"));
    }

    #[test]
    fn a_query_is_what_stands_behind_the_first_question_mark() {
        let query = |said: &str| Text::new(said).query(100).map(|query| query.to_string());
        assert_eq!(query("/a?b?c"), Some("b?c".into()));
        assert_eq!(Text::new("/a?b?c").path(100).to_string(), "/a");
        assert_eq!(Text::new("/a").path(100).to_string(), "/a");
        assert_eq!(query("/a?"), None);
        assert_eq!(query("/a"), None);
    }
}
