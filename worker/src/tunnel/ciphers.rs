//! Ciphers that are ready for use: of the tunnels that a thread has had in hand lately.
//!
//! What is here was made from a secret in the arena, is known by whose it is and of which generation, and can be dropped at
//! any time: what is made again is the same. It is dropped when its tunnel ends or leaves the thread, when the peers
//! have gone on to the next secret, and when nobody has used it for a while. No tunnel may ever be given another's, or
//! one of another generation, whichever record it has.

use std::io;

use super::TunnelId;
use super::arena::sessions::Half;
use super::leg::Side;
use super::record::Record;
use super::secluded::Secluded;
use crate::tls::record::Cipher;

/// Pages of ciphers, 512 KiB when all are in use. With seven ciphers in each this is room for 448 tunnels of a thread
/// with TLS on one side, when a cipher that is made anew costs a sixth of a small message. All of it stays within a
/// core's second-level cache, and is a tenth of a KiB a tunnel at 5,000. More tunnels than that take turns so rarely,
/// each, that a cipher a turn is the least of it.
const SETS: usize = 128;
const WAYS: usize = Secluded::<Cipher>::PER_PAGE;
/// A cipher that is not used goes after one to two times this: an idle tunnel's keys are soon nowhere but in the arena. A thread
/// with nothing else to do wakes up twice for it.
const UNUSED_MS: u64 = 5000;

/// Which cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Of {
    tunnel: TunnelId,
    /// Index of its record.
    record: u32,
    pub(super) half: (Side, Half),
    pub(super) generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Tag {
    of: Of,
    /// When it was last used, in uses; it wraps.
    used: u32,
}

/// A thread's ciphers. All of one tunnel are in one set, a page, of which the longest unused makes room.
#[derive(Debug)]
pub(super) struct Ciphers {
    tags: Box<[[Option<Tag>; WAYS]]>,
    places: Secluded<Cipher>,
    count: usize,
    uses: u32,
    /// What was not used after this is dropped next.
    mark: u32,
    due_ms: u64,
}

// === impl Of ===

impl Of {
    pub(super) fn new(record: &Record, half: (Side, Half), generation: u32) -> Self {
        Self { tunnel: record.id, record: record.slot.index(), half, generation }
    }
}

// === impl Ciphers ===

impl Ciphers {
    pub(super) fn new() -> io::Result<Self> {
        // One step wants two of a tunnel at a time.
        const { assert!(WAYS >= 2) };
        Ok(Self {
            tags: vec![[None; WAYS]; SETS].into(),
            places: Secluded::new(SETS)?,
            count: 0,
            uses: 0,
            mark: 0,
            due_ms: u64::MAX,
        })
    }

    /// Has a cipher ready, made now if it is not. It stays until two others were asked for, at least.
    pub(super) fn ready<E>(
        &mut self,
        of: Of,
        make: impl FnOnce(Of) -> Result<Cipher, E>,
    ) -> Result<(), E> {
        self.uses = self.uses.wrapping_add(1);
        let (set, now) = (set_of(of.record), self.uses);
        let Some(tags) = self.tags.get_mut(set) else { return Ok(()) };
        if let Some(tag) = tags.iter_mut().flatten().find(|tag| tag.of == of) {
            tag.used = now;
            return Ok(());
        }
        let cipher = make(of)?;
        // One that is free, else the longest unused.
        let age = |tag: &Option<Tag>| tag.map_or(u32::MAX, |tag| now.wrapping_sub(tag.used));
        let Some((way, tag)) = tags.iter_mut().enumerate().max_by_key(|(_, tag)| age(tag)) else {
            return Ok(());
        };
        self.count += usize::from(tag.is_none());
        *tag = Some(Tag { of, used: now });
        self.places.put(set, way, cipher);
        Ok(())
    }

    /// One that is ready.
    pub(super) fn get(&self, of: Of) -> Option<&Cipher> {
        let set = set_of(of.record);
        let tags = self.tags.get(set)?;
        let way = tags.iter().position(|tag| tag.is_some_and(|tag| tag.of == of))?;
        self.places.get(set, way)
    }

    /// Drops one whose generation is over.
    pub(super) fn supersede(&mut self, of: Of) {
        self.drop_where(set_of(of.record), |tag| tag.of == of);
    }

    /// Drops all of a tunnel that ends or leaves.
    pub(super) fn forget(&mut self, record: &Record) {
        let (id, index) = (record.id, record.slot.index());
        self.drop_where(set_of(index), |tag| tag.of.tunnel == id);
    }

    /// When [`Self::drop_unused`] has something to do; `u64::MAX` where there are none.
    pub(super) fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Drops what was not used since the last time that this was due.
    pub(super) fn drop_unused(&mut self, now_ms: u64) {
        if self.count > 0 && self.due_ms != u64::MAX {
            if now_ms < self.due_ms {
                return;
            }
            let (now, mark) = (self.uses, self.mark);
            for set in 0..SETS {
                let since = now.wrapping_sub(mark);
                self.drop_where(set, |tag| now.wrapping_sub(tag.used) >= since);
            }
        }
        self.mark = self.uses;
        self.due_ms = if self.count > 0 { now_ms + UNUSED_MS } else { u64::MAX };
    }

    fn drop_where(&mut self, set: usize, is_over: impl Fn(&Tag) -> bool) {
        let Some(tags) = self.tags.get_mut(set) else { return };
        for (way, tag) in tags.iter_mut().enumerate() {
            if tag.as_ref().is_some_and(&is_over) {
                *tag = None;
                self.count -= 1;
                self.places.clear(set, way);
            }
        }
    }
}

/// Tunnels of one thread may have every second record, or every eighth: the product's upper bits spread them all the same.
fn set_of(record: u32) -> usize {
    (record.wrapping_mul(0x9e37_79b1) >> (u32::BITS - SETS.ilog2())) as usize
}

#[cfg(test)]
mod tests;
