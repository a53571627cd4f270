//! What an answer has to look like: status ranges and a substring of the body. Pure.

use std::fmt;
use std::ops::RangeInclusive;

use holdfast_proto::control::StatusRange;

use crate::refusal::ProbeRefusal;

/// Azure's default match.
const DEFAULT_STATUSES: RangeInclusive<u16> = 200..=399;

/// The statuses that count as healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statuses(Vec<RangeInclusive<u16>>);

// === impl Statuses ===

impl Statuses {
    /// From the wire; none means Azure's default, 200-399.
    pub(crate) fn new(ranges: &[StatusRange]) -> Result<Self, ProbeRefusal> {
        if ranges.is_empty() {
            return Ok(Self(vec![DEFAULT_STATUSES]));
        }
        ranges
            .iter()
            .map(|range| match (u16::try_from(range.first), u16::try_from(range.last)) {
                (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
                _ => Err(ProbeRefusal::Statuses { first: range.first, last: range.last }),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `status` is one of them.
    pub(crate) fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if range.start() == range.end() {
                write!(out, "{comma}{}", range.start())?;
            } else {
                write!(out, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

/// Looks for a text in a body that arrives in pieces, reading each piece once.
#[derive(Debug)]
pub(crate) struct BodyMatch<'a> {
    text: &'a [u8],
    /// The end of what has been read, as far as the text may have begun in it: shorter than the text.
    tail: Vec<u8>,
    found: bool,
}

// === impl BodyMatch ===

impl<'a> BodyMatch<'a> {
    /// An empty text is in every body.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), tail: Vec::new(), found: text.is_empty() }
    }

    /// Takes the next piece in.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.found {
            return;
        }
        self.tail.extend_from_slice(piece);
        self.found = self.tail.windows(self.text.len()).any(|window| window == self.text);
        let keep = self.text.len().saturating_sub(1);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
    }

    /// Whether the text has occurred.
    pub(crate) fn found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, last: u32) -> StatusRange {
        StatusRange { first, last }
    }

    #[test]
    fn no_range_means_azures_default() {
        let statuses = Statuses::new(&[]).unwrap();
        assert_eq!(statuses.to_string(), "200-399");
        assert!(statuses.contain(200) && statuses.contain(399));
        assert!(!statuses.contain(199) && !statuses.contain(400));
    }

    #[test]
    fn ranges_and_single_codes_both_count() {
        let statuses = Statuses::new(&[range(200, 204), range(401, 401)]).unwrap();
        assert_eq!(statuses.to_string(), "200-204, 401");
        assert!(statuses.contain(203) && statuses.contain(401) && !statuses.contain(400));
    }

    #[test]
    fn a_range_that_holds_nothing_is_refused() {
        assert!(Statuses::new(&[range(300, 200)]).is_err());
        assert!(Statuses::new(&[range(200, 70_000)]).is_err());
    }

    #[test]
    fn a_text_is_found_across_pieces() {
        for pieces in
            [&["service is ready"][..], &["service is re", "ady"], &["r", "e", "a", "d", "y"]]
        {
            let mut body = BodyMatch::new("ready");
            for piece in pieces {
                body.push(piece.as_bytes());
            }
            assert!(body.found(), "{pieces:?}");
        }
        let mut body = BodyMatch::new("ready");
        body.push(b"read");
        body.push(b"iness");
        assert!(!body.found());
    }

    #[test]
    fn an_empty_text_is_in_every_body() {
        assert!(BodyMatch::new("").found());
    }
}
