//! What the target is given: bytes as they are, or sealed in records.
//!
//! The same step gives the same bytes, whoever makes them and how often.

use super::{Fault, Io, Steps, narrow, number};
use crate::tls::record::{self, Cipher, MOST_PLAINTEXT};
use crate::tunnel::arena::sessions::Step;
use crate::tunnel::ciphers::Ciphers;
use crate::tunnel::flow::Part;
use crate::tunnel::leg::{Broken, Leg};
use crate::tunnel::record::Record;

/// What one step gives at most, where the target has room: more would only be kept waiting where it has not.
const CHUNK: usize = 3 * MOST_PLAINTEXT;

// === impl Steps ===

impl Steps {
    /// What a step that takes these bytes gives: as they are, or in records. Answers how many.
    pub(super) fn give(
        &self,
        ciphers: &mut Ciphers,
        record: &Record,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<u32, Fault> {
        self.ready_sealer(ciphers, record)?;
        give(self.get_sealer(ciphers, record)?, self.at.tx_seq, bytes, out)
    }

    /// Has what seals the target's records ready, if it takes any.
    pub(super) fn ready_sealer(&self, ciphers: &mut Ciphers, record: &Record) -> Result<(), Fault> {
        if self.target.is_none() {
            return Ok(());
        }
        ciphers.ready(self.sealer(record), |of| self.cipher(record, of))
    }

    /// What is ready to seal the target's records. None: it takes bytes as they are.
    pub(super) fn get_sealer<'a>(
        &self,
        ciphers: &'a Ciphers,
        record: &Record,
    ) -> Result<Option<&'a Cipher>, Fault> {
        if self.target.is_none() {
            return Ok(None);
        }
        // Never bytes as they are for want of a cipher.
        ciphers.get(self.sealer(record)).map(Some).ok_or((Part::Target, Broken::Protocol))
    }

    /// One record that is no data.
    pub(super) fn say(
        &self,
        io: &mut Io<'_>,
        kind: record::Kind,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        self.ready_sealer(io.ciphers, io.record)?;
        let Some(cipher) = self.get_sealer(io.ciphers, io.record)? else { return Ok(()) };
        let seq = number(self.at.tx_seq, 0, Part::Target)?;
        seal(cipher, seq, kind, bytes, io.out)
    }

    pub(super) fn giving(&self, io: &Io<'_>) -> Step {
        let out_len = narrow(io.out.len());
        Step { from: self.at, skip: self.at.skip, out_len, ..Step::default() }
    }

    /// At most so many bytes in one step: a single record where the target was full last time.
    pub(super) fn chunk(&self) -> usize {
        if self.has_room { CHUNK } else { MOST_PLAINTEXT }
    }

    /// Our last word on the target: an alert, if nothing is half said. The tunnel is on record as ending.
    pub(in crate::tunnel) fn last_word(&self, target: &mut Leg, record: &Record, alert: [u8; 2]) {
        if self.target.is_none() || self.under_way.is_some() || self.closed || self.done {
            return;
        }
        let mut out = Vec::new();
        // Its own cipher: those that were ready are dropped by now.
        let said = self.cipher(record, self.sealer(record)).and_then(|cipher| {
            seal(&cipher, self.at.tx_seq, record::Kind::Alert, &alert, &mut out)
        });
        if said.is_ok() {
            // Best effort: the peer may not read any more.
            target.put(&out).ok();
        }
    }
}

/// Appends what the target gets for these bytes, from that number on. Answers how many records that is.
pub(super) fn give(
    sealer: Option<&Cipher>,
    seq: u64,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<u32, Fault> {
    let Some(cipher) = sealer else {
        out.extend_from_slice(bytes);
        return Ok(0);
    };
    let mut records = 0;
    for piece in bytes.chunks(MOST_PLAINTEXT) {
        let seq = number(seq, records, Part::Target)?;
        seal(cipher, seq, record::Kind::Data, piece, out)?;
        records += 1;
    }
    Ok(records)
}

fn seal(
    cipher: &Cipher,
    seq: u64,
    kind: record::Kind,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    cipher.seal(seq, kind, bytes, out).map_err(|_| (Part::Target, Broken::Protocol))
}
