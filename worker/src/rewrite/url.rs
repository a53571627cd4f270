//! What may stand in a path or a query, and how everything else is written there. An escape that is one already stays; a
//! percent sign that is none becomes one. No byte of a header can end the request line, begin a query or add a parameter.

use super::value::Piece;

/// Where in a URL a piece goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
}

/// Appends a piece, percent-encoded where it has to be.
pub(super) fn encode(place: Place, piece: Piece, bytes: &[u8], out: &mut String) {
    for (at, byte) in bytes.iter().enumerate() {
        let escape = matches!(bytes.get(at..at + 3), Some([b'%', high, low])
            if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
        if escape || stands(place, piece, *byte) {
            out.push(char::from(*byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let digit =
                |half: u8| char::from(DIGITS.get(usize::from(half)).copied().unwrap_or(b'0'));
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// RFC 3986, sections 3.3 and 3.4.
fn stands(place: Place, piece: Piece, byte: u8) -> bool {
    if byte.is_ascii_alphanumeric() {
        return true;
    }
    match byte {
        b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b',' | b';'
        | b':' | b'@' | b'/' => true,
        // In a query these separate parameters, or stand for a space.
        b'&' | b'=' | b'+' => place == Place::Path || piece == Piece::Written,
        b'?' => place == Place::Query,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(place: Place, piece: Piece, bytes: &[u8]) -> String {
        let mut out = String::new();
        encode(place, piece, bytes, &mut out);
        out
    }

    #[test]
    fn nothing_ends_the_request_line_or_begins_a_query() {
        for piece in [Piece::Written, Piece::Told] {
            let hostile = b"a b\r\nX: y\0\x7f\xff?q#f\\\"<>{}|^`";
            assert_eq!(
                encoded(Place::Path, piece, hostile),
                "a%20b%0D%0AX:%20y%00%7F%FF%3Fq%23f%5C%22%3C%3E%7B%7D%7C%5E%60"
            );
        }
    }

    #[test]
    fn a_header_adds_no_parameter() {
        assert_eq!(encoded(Place::Query, Piece::Told, b"a&admin=1+1"), "a%26admin%3D1%2B1");
        assert_eq!(encoded(Place::Query, Piece::Written, b"a=1&b=2?"), "a=1&b=2?");
    }

    #[test]
    fn an_escape_stays_and_a_lone_percent_sign_becomes_one() {
        assert_eq!(encoded(Place::Path, Piece::Written, b"/a%2Fb%zz%4"), "/a%2Fb%25zz%254");
    }

    #[test]
    fn every_byte_comes_out_as_one_that_a_target_may_hold() {
        for byte in 0..=u8::MAX {
            for place in [Place::Path, Place::Query] {
                for piece in [Piece::Written, Piece::Told] {
                    let out = encoded(place, piece, &[byte]);
                    assert!(
                        out.bytes().all(|b| b.is_ascii_graphic() && b != b'#'),
                        "{byte}: {out}"
                    );
                }
            }
        }
    }
}
