//! What the peer has really sealed: under which key, under which number, and what the receiver must make of it.
//!
//! It knows the rules from the RFCs, and shares no code with what it judges. An input may also hold a record that the
//! peer has sealed in another one, for its keys are always the same and libFuzzer shows an input what earlier ones were
//! compared with. Under the number that is due such a record is the peer's as well.

use std::collections::BTreeMap;

use crate::headers;
use crate::peer::Peer;
use crate::theirs::Kit;
use crate::tls::keys::Version;
use crate::tls::record::Violation;

pub(crate) struct Book {
    kit: &'static Kit,
    /// What was sealed under each generation of keys and each number: one record, never two.
    sealed: BTreeMap<(u32, u64), Honest>,
}

/// A record as the peer has sealed it.
pub(crate) struct Honest {
    pub(crate) record: Vec<u8>,
    /// What was encrypted: for TLS 1.3 with the kind and the padding.
    pub(crate) inner: Vec<u8>,
}

// === impl Book ===

impl Book {
    pub(crate) fn new(kit: &'static Kit) -> Self {
        Self { kit, sealed: BTreeMap::new() }
    }

    pub(crate) fn note(&mut self, generation: u32, seq: u64, honest: Honest) {
        let former = self.sealed.insert((generation, seq), honest);
        assert!(former.is_none(), "the peer itself used a number twice");
    }

    /// What has to become of `record`, a whole one, where that generation and number are due: its kind and its
    /// plaintext, or a refusal.
    pub(crate) fn verdict(
        &self,
        due: (u32, u64),
        record: &[u8],
    ) -> Result<(u8, Vec<u8>), Violation> {
        let protocol = self.kit.protocol;
        headers::check(protocol, record)?;
        let sealed = self.sealed.get(&due).filter(|honest| honest.record == record);
        let mut inner = match sealed {
            Some(honest) => honest.inner.clone(),
            None => self.open_as_peer(due, record).ok_or(Violation::BadRecordMac)?,
        };
        if protocol.version == Version::Tls12 {
            // RFC 5246 section 6.2.1.
            return if inner.len() > 1 << 14 {
                Err(Violation::RecordOverflow)
            } else {
                Ok((record[0], inner))
            };
        }
        // RFC 8446 section 5.4.
        if inner.len() > (1 << 14) + 1 {
            return Err(Violation::RecordOverflow);
        }
        let last = inner.iter().rposition(|byte| *byte != 0).ok_or(Violation::PaddingOnly)?;
        match inner[last] {
            kind @ 21..=23 => {
                inner.truncate(last);
                Ok((kind, inner))
            }
            20 => Err(Violation::ChangeCipherSpec),
            other => Err(Violation::Type(other)),
        }
    }

    /// What a record holds that is the peer's under this generation and number, although it was not sealed here.
    fn open_as_peer(&self, (generation, seq): (u32, u64), record: &[u8]) -> Option<Vec<u8>> {
        let mut peer = Peer::new(self.kit.protocol, &self.kit.secret, seq);
        for _ in 0..generation {
            peer.turn();
        }
        peer.seq = seq;
        peer.open(record)
    }
}
