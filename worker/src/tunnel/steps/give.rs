//! What the target is given: bytes as they are, or sealed in records.
//!
//! The same step gives the same bytes, whoever makes them and how often.

use super::{Fault, Io, Steps, narrow, number};
use crate::tls::keys::Protocol;
use crate::tls::record::{self, Cipher, MOST_PLAINTEXT};
use crate::tunnel::arena::sessions::{Half, Step};
use crate::tunnel::flow::Part;
use crate::tunnel::leg::{Broken, Leg};
use crate::tunnel::record::Record;

/// What one step gives at most, where the target has room: more would only be kept waiting where it has not.
const CHUNK: usize = 3 * MOST_PLAINTEXT;

// === impl Steps ===

impl Steps {
    /// What `record` will have given when it is through: bytes as they are, or in records. Answers how many.
    pub(super) fn give(
        &self,
        out: &mut Vec<u8>,
        record: &Record,
        seq: u64,
        bytes: &[u8],
    ) -> Result<u32, Fault> {
        self.give_with(&mut None, out, record, seq, bytes)
    }

    pub(super) fn give_with(
        &self,
        sealer: &mut Option<Cipher>,
        out: &mut Vec<u8>,
        record: &Record,
        seq: u64,
        bytes: &[u8],
    ) -> Result<u32, Fault> {
        let Some(protocol) = self.target else {
            out.extend_from_slice(bytes);
            return Ok(0);
        };
        let cipher = match sealer {
            Some(cipher) => cipher,
            None => sealer.insert(self.sealer(record, protocol)?),
        };
        let mut records = 0;
        for piece in bytes.chunks(MOST_PLAINTEXT) {
            let seq = number(seq, records, Part::Target)?;
            seal(cipher, seq, record::Kind::Data, piece, out)?;
            records += 1;
        }
        Ok(records)
    }

    pub(super) fn sealer(&self, record: &Record, protocol: Protocol) -> Result<Cipher, Fault> {
        let secret = self.secret(record, (self.towards, Half::Tx), self.at.tx_generation)?;
        Cipher::new(protocol, &secret).map_err(|_| (Part::Target, Broken::Protocol))
    }

    /// One record that is no data.
    pub(super) fn say(
        &self,
        io: &mut Io<'_>,
        kind: record::Kind,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let Some(protocol) = self.target else { return Ok(()) };
        let cipher = self.sealer(io.record, protocol)?;
        let seq = number(self.at.tx_seq, 0, Part::Target)?;
        seal(&cipher, seq, kind, bytes, io.out)
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
        let Some(protocol) = self.target else { return };
        if self.under_way.is_some() || self.closed || self.done {
            return;
        }
        let mut out = Vec::new();
        let said = self.sealer(record, protocol).and_then(|cipher| {
            seal(&cipher, self.at.tx_seq, record::Kind::Alert, &alert, &mut out)
        });
        if said.is_ok() {
            // Best effort: the peer may not read any more.
            target.put(&out).ok();
        }
    }
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
