//! What of a record has no fixed length: its texts, then the preludes towards the client and the backend.
//!
//! It stands in the record if it fits; else the preludes stand in the record's overflow region, and the texts too if
//! they do not fit alone. Lengths are cut to what there is room for before anything is read: they may be anything.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::layout::{Cell, INLINE, OVERFLOW, OVERFLOW_EACH, OVERFLOW_HEAP};
use super::{Arena, ArenaError, Towards};
use crate::tunnel::TunnelFacts;
use crate::tunnel::memfd;

/// Values of a record's `heap`.
pub(super) const ALL_INLINE: u32 = 0;
const PRELUDES_OVER: u32 = 1;
const ALL_OVER: u32 = 2;

const PAGE: u64 = 4096;
/// A carry slot: several times the longest record, and all that an intake has.
pub(in crate::tunnel) const CARRY: usize = 64 << 10;

/// The texts of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tunnel) struct Texts {
    pub(in crate::tunnel) site: Arc<str>,
    pub(in crate::tunnel) pool: Arc<str>,
    pub(in crate::tunnel) settings: Arc<str>,
    pub(in crate::tunnel) backend: Arc<str>,
    pub(in crate::tunnel) trace_id: Arc<str>,
}

/// Where something stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    Inline(usize),
    Over(usize),
}

// === impl Arena ===

impl Arena {
    /// Writes texts and preludes. The record must be the caller's, and not published yet.
    pub(in crate::tunnel) fn write_heap(
        &self,
        index: u32,
        texts: &Texts,
        to_client: &[&[u8]],
        to_backend: &[u8],
    ) -> Result<(), ArenaError> {
        let cell = self.cell(index).ok_or(ArenaError::Foreign)?;
        let texts = texts.all();
        let words = texts.map(str::as_bytes).concat();
        let preludes = [&to_client.concat(), to_backend].concat();
        let bytes = words.len() + preludes.len();
        let too_long = || ArenaError::TooLong { bytes };
        let place = if bytes <= INLINE {
            ALL_INLINE
        } else if words.len() <= INLINE && preludes.len() <= OVERFLOW_HEAP {
            PRELUDES_OVER
        } else if bytes <= OVERFLOW_HEAP {
            ALL_OVER
        } else {
            return Err(too_long());
        };
        let mut lengths = [0; 5];
        for (length, text) in lengths.iter_mut().zip(texts) {
            *length = u16::try_from(text.len()).map_err(|_| too_long())?;
        }
        let narrow = |length: usize| u32::try_from(length).map_err(|_| too_long());
        let lengths_of_preludes =
            (narrow(preludes.len() - to_backend.len())?, narrow(to_backend.len())?);

        if cell.heap.load(Relaxed) != ALL_INLINE {
            self.punch_overflow(index);
        }
        // Noted before the region is touched, so that whoever frees the record gives it back.
        cell.heap.store(place, Relaxed);
        for (place, bytes) in
            [(texts_at(place), &words), (preludes_at(place, words.len()), &preludes)]
        {
            self.write_bytes(index, cell, place, bytes)?;
        }
        for (to, length) in cell.texts.iter().zip(lengths) {
            to.store(length, Relaxed);
        }
        cell.prelude_to_client.store(lengths_of_preludes.0, Relaxed);
        cell.prelude_to_backend.store(lengths_of_preludes.1, Relaxed);
        Ok(())
    }

    /// The texts; of a record that somebody is writing or freeing, whatever stands there.
    pub(in crate::tunnel) fn read_texts(&self, index: u32) -> Texts {
        let lengths = self.cell(index).map_or([0; 5], Cell::text_lengths);
        let place = self.cell(index).map_or(ALL_INLINE, |cell| cell.heap.load(Relaxed));
        let bytes = self.read_bytes(index, texts_at(place), lengths.iter().sum());
        let mut rest = bytes.as_slice();
        let [site, pool, settings, backend, trace_id] = lengths.map(|length| {
            let (text, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            String::from_utf8_lossy(text).into()
        });
        Texts { site, pool, settings, backend, trace_id }
    }

    /// A prelude. One that is shorter than the record says belongs to a broken record.
    pub(in crate::tunnel) fn read_prelude(&self, index: u32, towards: Towards) -> Vec<u8> {
        let Some(cell) = self.cell(index) else { return Vec::new() };
        let texts: usize = cell.text_lengths().iter().sum();
        let [to_client, to_backend] = [Towards::Client, Towards::Backend]
            .map(|towards| usize::try_from(cell.prelude_len(towards)).unwrap_or(usize::MAX));
        let (skip, length) = match towards {
            Towards::Client => (0, to_client),
            Towards::Backend => (to_client, to_backend),
        };
        let place = preludes_at(cell.heap.load(Relaxed), texts).skip(skip);
        self.read_bytes(index, place, length)
    }

    /// Gives the preludes' memory back, once nobody will read either of them again. Their lengths and the texts stay.
    pub(in crate::tunnel) fn drop_preludes(&self, index: u32) {
        let Some(cell) = self.cell(index) else { return };
        if cell.owes_prelude() {
            return;
        }
        let kept = match cell.heap.load(Relaxed) {
            ALL_INLINE => return,
            PRELUDES_OVER => 0,
            _ => cell.text_lengths().iter().sum::<usize>() as u64,
        };
        let from = kept.next_multiple_of(PAGE);
        let end = OVERFLOW_HEAP as u64;
        if from < end
            && let Err(error) = memfd::punch(&self.fd, overflow_of(index) + from, end - from)
        {
            tracing::warn!(%error, "the memory of preludes was not given back");
        }
    }

    /// Gives a whole overflow region back. Harmless to do twice.
    pub(super) fn punch_overflow(&self, index: u32) {
        if let Err(error) = memfd::punch(&self.fd, overflow_of(index), OVERFLOW_EACH) {
            tracing::warn!(%error, "the memory of a tunnel's overflow was not given back");
        }
    }

    /// Writes into a direction's carry slot.
    pub(in crate::tunnel) fn write_carry(
        &self,
        index: u32,
        towards: Towards,
        from: usize,
        bytes: &[u8],
    ) -> Result<(), ArenaError> {
        let too_long = || ArenaError::TooLong { bytes: from.saturating_add(bytes.len()) };
        let end = from.checked_add(bytes.len()).filter(|end| *end <= CARRY).ok_or_else(too_long)?;
        let at = carry_of(index, towards) + (end - bytes.len()) as u64;
        Ok(memfd::write_at(&self.fd, bytes, at)?)
    }

    /// Gives a carry slot's memory back.
    pub(in crate::tunnel) fn drop_carry(&self, index: u32, towards: Towards) {
        if let Err(error) = memfd::punch(&self.fd, carry_of(index, towards), CARRY as u64) {
            tracing::warn!(%error, "the memory of a carry slot was not given back");
        }
    }

    /// Bytes of a direction's carry slot, `from` bytes behind its beginning. Answers how many there are.
    pub(in crate::tunnel) fn read_carry(
        &self,
        index: u32,
        towards: Towards,
        from: usize,
        into: &mut [u8],
    ) -> usize {
        let room = into.len().min(CARRY.saturating_sub(from));
        let into = into.get_mut(..room).unwrap_or_default();
        memfd::read_at(&self.fd, into, carry_of(index, towards) + from as u64).unwrap_or_default()
    }

    fn write_bytes(
        &self,
        index: u32,
        cell: &Cell,
        place: Place,
        bytes: &[u8],
    ) -> Result<(), ArenaError> {
        match place {
            Place::Inline(from) => {
                for (to, byte) in cell.inline.iter().skip(from).zip(bytes) {
                    to.store(*byte, Relaxed);
                }
            }
            Place::Over(from) => {
                memfd::write_at(&self.fd, bytes, overflow_of(index) + from as u64)?;
            }
        }
        Ok(())
    }

    fn read_bytes(&self, index: u32, place: Place, length: usize) -> Vec<u8> {
        let Some(cell) = self.cell(index) else { return Vec::new() };
        match place {
            Place::Inline(from) => {
                let bytes = cell.inline.iter().skip(from).take(length);
                bytes.map(|byte| byte.load(Relaxed)).collect()
            }
            Place::Over(from) => {
                let from = from.min(OVERFLOW_HEAP);
                let mut bytes = vec![0; length.min(OVERFLOW_HEAP - from)];
                let read = memfd::read_at(&self.fd, &mut bytes, overflow_of(index) + from as u64);
                bytes.truncate(read.unwrap_or_default());
                bytes
            }
        }
    }
}

impl From<&TunnelFacts> for Texts {
    fn from(facts: &TunnelFacts) -> Self {
        let TunnelFacts { site, pool, settings, backend, trace_id, .. } = facts;
        let [site, pool, settings, backend, trace_id] =
            [site, pool, settings, backend, trace_id].map(Arc::clone);
        Self { site, pool, settings, backend, trace_id }
    }
}

impl Texts {
    fn all(&self) -> [&str; 5] {
        let Self { site, pool, settings, backend, trace_id } = self;
        [site, pool, settings, backend, trace_id].map(AsRef::as_ref)
    }
}

impl Cell {
    fn text_lengths(&self) -> [usize; 5] {
        self.texts.each_ref().map(|length| length.load(Relaxed).into())
    }
}

impl Place {
    fn skip(self, bytes: usize) -> Self {
        match self {
            Self::Inline(from) => Self::Inline(from.saturating_add(bytes)),
            Self::Over(from) => Self::Over(from.saturating_add(bytes)),
        }
    }
}

fn texts_at(heap: u32) -> Place {
    if heap <= PRELUDES_OVER { Place::Inline(0) } else { Place::Over(0) }
}

fn preludes_at(heap: u32, texts: usize) -> Place {
    match heap {
        ALL_INLINE => Place::Inline(texts),
        PRELUDES_OVER => Place::Over(0),
        _ => Place::Over(texts),
    }
}

fn carry_of(index: u32, towards: Towards) -> u64 {
    let second = match towards {
        Towards::Client => CARRY,
        Towards::Backend => 0,
    };
    overflow_of(index) + (OVERFLOW_HEAP + second) as u64
}

fn overflow_of(index: u32) -> u64 {
    OVERFLOW + u64::from(index) * OVERFLOW_EACH
}
