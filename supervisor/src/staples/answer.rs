//! Whether what came is an answer at all (RFC 6960, section 4.2.1): its outermost bytes, and nothing behind them.
//!
//! A refusal (`tryLater`, `unauthorized`) comes with HTTP's 200 as an answer does, and so does a page of somebody who stands
//! between; neither may take the place of what a responder has said before.

const SEQUENCE: u8 = 0x30;
const ENUMERATED: u8 = 0x0a;
const SUCCESSFUL: u8 = 0;
/// `[0] EXPLICIT ResponseBytes`.
const BYTES: u8 = 0xa0;

/// Passes an `OCSPResponse` that says something. `Err` is what it is instead.
pub(super) fn looked_at(came: Vec<u8>) -> Result<Vec<u8>, String> {
    match content(&came) {
        Some([ENUMERATED, 1, SUCCESSFUL, BYTES, ..]) => Ok(came),
        Some([ENUMERATED, 1, status]) if *status != SUCCESSFUL => {
            Err(format!("the responder refuses, with its status {status}"))
        }
        _ => Err("what came is not an OCSP response".to_owned()),
    }
}

/// Of a SEQUENCE that is the whole of it.
fn content(whole: &[u8]) -> Option<&[u8]> {
    let [SEQUENCE, first, rest @ ..] = whole else { return None };
    let (length, content) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, content) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), content)
        }
        _ => return None,
    };
    (content.len() == length).then_some(content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/ocsp/");
        std::fs::read(format!("{directory}{name}")).unwrap()
    }

    #[test]
    fn an_answer_passes_as_it_came_whatever_it_says() {
        for name in ["good.der", "revoked.der", "unknown.der", "rsa.der"] {
            assert_eq!(looked_at(file(name)).unwrap(), file(name), "{name}");
        }
    }

    #[test]
    fn a_refusal_is_none_and_says_with_which_status() {
        for status in [1, 2, 3, 5, 6, 0xff] {
            let why = looked_at(vec![0x30, 3, 0x0a, 1, status]).unwrap_err();
            assert!(why.ends_with(&format!("with its status {status}")), "{why}");
        }
    }

    #[test]
    fn what_is_no_response_is_none_either() {
        let good = file("good.der");
        let more = [&good[..], b"\0"].concat();
        for junk in [
            &b""[..],
            b"0",
            b"<html>log in first</html>",
            &[0x30, 3, 0x0a, 1, 0],
            &[0x30, 0x80],
            &[0x30, 0x83, 1],
            &[0x30, 0x84, 0, 0, 0, 3, 0x0a, 1, 0],
            &[0x30, 0xff],
            &good[..good.len() - 1],
            &more,
        ] {
            let why = looked_at(junk.to_vec()).unwrap_err();
            assert_eq!(why, "what came is not an OCSP response", "{junk:?}");
        }
    }
}
