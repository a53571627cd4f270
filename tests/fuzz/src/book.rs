//! What the peer has really sealed: under which key, under which number, and what the receiver must make of it.
//!
//! It knows the rules from the RFCs, and shares no code with what it judges.

use std::collections::BTreeMap;

use crate::headers;
use crate::tls::keys::{Protocol, Version};
use crate::tls::record::Violation;

/// What was sealed under each generation of keys and each number: one record, never two.
#[derive(Debug, Default)]
pub(crate) struct Book(BTreeMap<(u32, u64), Honest>);

/// A record as the peer has sealed it.
#[derive(Debug)]
pub(crate) struct Honest {
    pub(crate) record: Vec<u8>,
    /// What was encrypted: for TLS 1.3 with the kind and the padding.
    pub(crate) inner: Vec<u8>,
}

// === impl Book ===

impl Book {
    pub(crate) fn note(&mut self, generation: u32, seq: u64, honest: Honest) {
        let former = self.0.insert((generation, seq), honest);
        assert!(former.is_none(), "the peer itself used a number twice");
    }

    /// What has to become of `record`, a whole one, where that generation and number are due: its kind and its
    /// plaintext, or a refusal.
    pub(crate) fn verdict(
        &self,
        protocol: Protocol,
        (generation, seq): (u32, u64),
        record: &[u8],
    ) -> Result<(u8, &[u8]), Violation> {
        headers::check(protocol, record)?;
        let due = self.0.get(&(generation, seq)).filter(|honest| honest.record == record);
        let Honest { inner, .. } = due.ok_or(Violation::BadRecordMac)?;
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
            kind @ 21..=23 => Ok((kind, &inner[..last])),
            20 => Err(Violation::ChangeCipherSpec),
            other => Err(Violation::Type(other)),
        }
    }
}
