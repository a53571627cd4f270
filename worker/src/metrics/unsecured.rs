//! TLS sessions that never came about, by why. The reasons are a closed set.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use holdfast_proto::control::Sample;

use super::counter;

/// Why a connection has no TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Unsecured {
    /// The client was too slow, or left without a word after it had connected for so long.
    TimedOut,
    /// Too many others were shaking hands.
    Crowded,
    /// Client and gateway did not come to terms, or the connection broke.
    Failed,
    /// The gateway could not: no certificate, or one that cannot be used.
    NotServed,
    /// The client spoke no TLS.
    Plain,
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Handshakes([AtomicU64; Unsecured::ALL.len()]);

// === impl Unsecured ===

impl Unsecured {
    const ALL: [Self; 5] =
        [Self::TimedOut, Self::Crowded, Self::Failed, Self::NotServed, Self::Plain];

    const fn label(self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Crowded => "crowded",
            Self::Failed => "failed",
            Self::NotServed => "not_served",
            Self::Plain => "plain",
        }
    }
}

// === impl Handshakes ===

impl Handshakes {
    pub(super) fn count(&self, why: Unsecured) {
        if let Some(count) = self.0.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// One series for each reason that there was.
    pub(super) fn samples(&self) -> impl Iterator<Item = Sample> {
        let counted = Unsecured::ALL.iter().zip(&self.0).map(|(why, it)| (why, it.load(Relaxed)));
        counted.filter(|(_, count)| *count != 0).map(|(why, count)| {
            let labels = [("reason", why.label())];
            counter("holdfast_tls_handshakes_failed_total", &labels, count)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use holdfast_proto::control::sample::Value;

    #[test]
    fn each_reason_has_its_place() {
        let handshakes = Handshakes::default();
        for (at, why) in Unsecured::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
            handshakes.count(why);
        }
        handshakes.count(Unsecured::Plain);
        let samples: Vec<_> = handshakes.samples().collect();
        assert_eq!(samples.len(), Unsecured::ALL.len());
        assert_eq!(samples[4].labels[0].value, "plain");
        assert_eq!(samples[4].value, Some(Value::Counter(2)));
    }
}
