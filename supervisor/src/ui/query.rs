//! The query of a request for one of the page's documents. What is missing or odd reads as its default: a page asks, and
//! nobody is helped by a refusal.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A query as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(pub(super) &'a str);

impl<'a> Query<'a> {
    /// The first parameter of that name, decoded as browsers encode it.
    pub(super) fn text(self, name: &str) -> Cow<'a, str> {
        let mut pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let Some((_, value)) = pairs.find(|(key, _)| *key == name) else { return Cow::default() };
        if value.contains('+') {
            let spaced = value.replace('+', " ");
            return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
        }
        percent_decode_str(value).decode_utf8_lossy()
    }

    /// The same as a number.
    pub(super) fn number(self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_odd_reads_as_nothing_and_never_fails() {
        let query = Query("a=1&b=x%20y+z&b=2&c&d=%ff%&=e&n=-1&big=99999999999999999999");
        assert_eq!(query.text("a"), "1");
        assert_eq!(query.number("a"), Some(1));
        assert_eq!(query.text("b"), "x y z");
        assert_eq!(query.text("c"), "");
        assert_eq!(query.text("d"), "\u{fffd}%");
        assert_eq!(query.text("none"), "");
        for name in ["b", "c", "n", "big", "none"] {
            assert_eq!(query.number(name), None, "{name}");
        }
        assert_eq!(Query("").text(""), "");
    }
}
