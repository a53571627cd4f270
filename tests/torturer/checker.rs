//! Says whether what came through a tunnel is what was sent, byte by byte, and what went wrong where it is not.
//!
//! It must never pass a stream that lost, doubled, moved or changed a byte, or ended anywhere but behind its Close frame.

use std::fmt;

use super::stream::{Framer, Recipe};

/// How far around a mismatch its bytes are looked for: more than any relay holds at a time.
const REACH: usize = 1 << 20;
/// So many bytes at most tell where they are from.
const NEEDLE: usize = 24;
/// With fewer it would be guessing.
const LEAST_NEEDLE: usize = 4;

/// What a mismatch looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Bytes are not there.
    Lost,
    /// Bytes are there again.
    Doubled,
    /// Bytes are there in another order.
    Reordered,
    /// Bytes are others than were sent.
    Corrupted,
    /// The stream ended early.
    EndedEarly,
    /// Something came after the stream's end.
    WentOn,
    /// The connection was reset.
    Reset,
    /// Bytes, or an end, never came through.
    Stuck,
}

impl Damage {
    /// All of them, the worst first, with their words in reports.
    pub(crate) const WORDS: [(Self, &'static str); 8] = [
        (Self::Lost, "lost"),
        (Self::Doubled, "doubled"),
        (Self::Reordered, "reordered"),
        (Self::Corrupted, "corrupted"),
        (Self::WentOn, "went_on"),
        (Self::Stuck, "stuck"),
        (Self::EndedEarly, "ended_early"),
        (Self::Reset, "reset"),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(damage, _)| *damage == self).map_or("", |(_, word)| word)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(damage, _)| *damage)
    }

    /// Its place in [`Self::WORDS`].
    pub(crate) fn rank(self) -> usize {
        Self::WORDS.iter().take_while(|(damage, _)| *damage != self).count()
    }
}

/// A difference between what was sent and what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The first byte that is not as it should be.
    pub(crate) position: u64,
    pub(crate) damage: Damage,
    pub(crate) detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.damage.word(), self.position, self.detail)
    }
}

/// The receiving end of a direction.
#[derive(Debug)]
pub(crate) struct Checker {
    recipe: Recipe,
    framer: Framer,
    close: Option<Close>,
    pub(crate) reach: usize,
}

/// The Close frame as it has to be, and how much of it has come.
#[derive(Debug)]
struct Close {
    expected: Vec<u8>,
    come: usize,
}

impl Checker {
    pub(crate) fn new(recipe: Recipe) -> Self {
        Self { recipe, framer: Framer::new(recipe), close: None, reach: REACH }
    }

    /// Bytes that came so far.
    pub(crate) fn position(&self) -> u64 {
        self.framer.position() + self.close.as_ref().map_or(0, |close| close.come as u64)
    }

    /// Messages that came or began to.
    pub(crate) fn messages(&self) -> u64 {
        self.framer.messages()
    }

    /// Checks the next bytes, however they were cut.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], scratch: &mut [u8]) -> Result<(), Fault> {
        while let Some(first) = bytes.first() {
            if self.close.is_none() && self.framer.at_boundary() {
                if *first == 0x88 {
                    self.close = Some(Close { expected: self.framer.close_frame(), come: 0 });
                } else {
                    self.framer.begin_message();
                }
            }
            let count = match &self.close {
                None => {
                    let room = scratch.len().min(bytes.len());
                    self.framer.peek(&mut scratch[..room])
                }
                Some(close) => {
                    let left = &close.expected[close.come..];
                    let count = left.len().min(bytes.len()).min(scratch.len());
                    scratch[..count].copy_from_slice(&left[..count]);
                    count
                }
            };
            if count == 0 {
                let detail = format!("{} bytes after the Close frame", bytes.len());
                return Err(self.fault(self.position(), Damage::WentOn, detail));
            }
            let expected = &scratch[..count];
            if *expected != bytes[..count] {
                let same = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                return Err(self.diagnose(self.position() + same as u64, &bytes[same..]));
            }
            match &mut self.close {
                None => self.framer.advance(expected),
                Some(close) => close.come += count,
            }
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Checks that the stream may end here.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        let detail = match &self.close {
            Some(close) if close.come == close.expected.len() => return Ok(()),
            Some(_) => "FIN inside the Close frame",
            None if self.framer.at_boundary() => "FIN between two messages, without a Close frame",
            None => "FIN inside a message",
        };
        Err(self.fault(self.position(), Damage::EndedEarly, detail.to_owned()))
    }

    #[allow(clippy::unused_self, reason = "reads as the checker's own words")]
    fn fault(&self, position: u64, damage: Damage, detail: String) -> Fault {
        Fault { position, damage, detail }
    }

    /// Finds out what `came`, which should have been the stream's bytes from `position` on, is instead.
    fn diagnose(&self, position: u64, came: &[u8]) -> Fault {
        let needle = &came[..came.len().min(NEEDLE)];
        let begin = position.saturating_sub(self.reach as u64);
        let around = Framer::replay(self.recipe, begin, position + (self.reach + NEEDLE) as u64);
        let here = usize::try_from(position - begin).unwrap_or(0);
        let show = |bytes: &[u8]| {
            let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            pairs.join(" ")
        };
        let expected = &around[here..here + needle.len()];
        let detail = format!("{} instead of {}", show(needle), show(expected));
        // The nearest place where these bytes belong says what is missing before them, or there twice.
        let belongs = |shift: usize| {
            let ahead = around.get(here + shift..here + shift + needle.len());
            let behind = here.checked_sub(shift).map(|at| &around[at..at + needle.len()]);
            match (ahead, behind) {
                (Some(ahead), _) if ahead == needle => {
                    Some((Damage::Lost, format!("{shift} bytes are missing; ")))
                }
                (_, Some(behind)) if behind == needle => {
                    Some((Damage::Doubled, format!("the {shift} bytes before it again; ")))
                }
                _ => None,
            }
        };
        let unclear = (Damage::Corrupted, String::new());
        // Behind one wrong byte the rest may go on at the right place.
        let (damage, words) = if self.close.is_some()
            || needle.len() < LEAST_NEEDLE
            || needle[1..] == expected[1..]
        {
            unclear
        } else if needle[2..] == expected[2..]
            && (needle[0], needle[1]) == (expected[1], expected[0])
        {
            (Damage::Reordered, String::new())
        } else {
            (1..self.reach).find_map(belongs).unwrap_or(unclear)
        };
        let detail = words + &detail;
        self.fault(position, damage, detail)
    }
}
