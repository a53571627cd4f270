//! Paths as workers compare them: percent-decoded once, and without regard to ASCII case.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A path or a pattern in the form in which it is compared. One whose escapes are no text stays escaped.
pub(super) fn normalized(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8().unwrap_or(Cow::Borrowed(path));
    decoded.to_ascii_lowercase()
}
