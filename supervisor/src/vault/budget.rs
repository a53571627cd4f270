//! How many descriptors the vault may hold: what the process may have, less what the rest of it needs.
//!
//! Checked ahead of need, so that running out is a refusal with a reason and never EMFILE in the middle of a packet.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Left to the rest of the supervisor: about ten for each of a hundred listeners (its socket, its workers' streams,
/// channels and pidfds), status and operators (some dozens each), and one packet that is being received (250).
const RESERVE: u64 = 1_536;

/// Lets this process have as many descriptors as it may; its children inherit that.
pub(super) fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit on descriptors");
    }
}

/// The budget now; an operator may change the limit at any time.
pub(super) fn now() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    usize::try_from(within(soft)).unwrap_or(usize::MAX)
}

fn within(limit: u64) -> u64 {
    // Where little is allowed, half of it is better than nothing.
    limit.saturating_sub(RESERVE).max(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_left_and_never_more_than_half() {
        assert_eq!(within(20_000), 18_464);
        assert_eq!(within(1_024), 512);
        assert_eq!(within(0), 0);
    }
}
