//! The tally: what a listener's tunnels add up to, in a page that its workers share and the vault keeps.
//!
//! It outlives every worker, so no figure ever goes back. Counting is one atomic addition: whoever dies has counted
//! or has not.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use thiserror::Error;

use super::Cause;
use super::mapping::Mapping;
use super::memfd::{Kind, Refused};
use super::totals::{DURATION_BOUNDS_S, Handover, PAUSE_BOUNDS_S, Totals, bucket};

pub(super) mod page;

use page::Page;

const VERSION: u32 = 1;
const KIND: Kind = Kind {
    name: "holdfast-tally",
    magic: u64::from_le_bytes(*b"hf-tally"),
    version: VERSION,
    size: size_of::<Page>() as u64,
};

/// The counters of a listener's tunnels.
#[derive(Debug)]
pub(super) struct Tally {
    fd: OwnedFd,
    page: Mapping<Page>,
}

/// Why a tally is not taken.
#[derive(Debug, Error)]
pub(super) enum TallyError {
    /// A system call failed.
    #[error("the tally cannot be used")]
    Io(#[from] io::Error),
    /// Its size could still change.
    #[error("the tally is not sealed")]
    Unsealed,
    /// It is no tally.
    #[error("the descriptor is no tally")]
    Foreign,
    /// It was laid out by another version.
    #[error("the tally has version {found}, and this process knows {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
}

// === impl Tally ===

impl Tally {
    /// Makes a tally with nothing counted.
    pub(super) fn create() -> Result<Self, TallyError> {
        Self::map(KIND.create()?)
    }

    /// Takes a tally that another process has made.
    pub(super) fn open(fd: OwnedFd) -> Result<Self, TallyError> {
        KIND.check(fd.as_fd())?;
        Self::map(fd)
    }

    fn map(fd: OwnedFd) -> Result<Self, TallyError> {
        let page = Mapping::new(fd.as_fd())?;
        Ok(Self { fd, page })
    }

    /// For other processes.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn count_opened(&self) {
        self.page.opened.fetch_add(1, Relaxed);
    }

    pub(super) fn count_end(&self, cause: Cause, duration: Duration) {
        add_at(&self.page.closed, cause as usize, 1);
        add_at(&self.page.durations, bucket(&DURATION_BOUNDS_S, duration), 1);
        let ms = u64::try_from(duration.as_millis()).unwrap_or_default();
        self.page.duration_sum_ms.fetch_add(ms, Relaxed);
    }

    /// Tunnels that this process has taken over.
    pub(super) fn count_handed_over(&self, handover: Handover, count: u64) {
        add_at(&self.page.handed_over, handover as usize, count);
    }

    /// How long a tunnel stood still while it changed hands.
    pub(super) fn observe_pause(&self, pause: Duration) {
        add_at(&self.page.pauses, bucket(&PAUSE_BOUNDS_S, pause), 1);
        let us = u64::try_from(pause.as_micros()).unwrap_or_default();
        self.page.pause_sum_us.fetch_add(us, Relaxed);
    }

    /// Tunnels that could not be carried on.
    pub(super) fn count_lost(&self, count: u64) {
        self.page.lost.fetch_add(count, Relaxed);
    }

    /// All figures. Each is exact; two that are counted together may differ by who is counting just now.
    pub(super) fn totals(&self) -> Totals {
        let page = &*self.page;
        Totals {
            opened: page.opened.load(Relaxed),
            closed: load_all(&page.closed),
            durations: load_all(&page.durations),
            duration_sum_s: Duration::from_millis(page.duration_sum_ms.load(Relaxed)).as_secs_f64(),
            handed_over: load_all(&page.handed_over),
            pauses: load_all(&page.pauses),
            pause_sum_s: Duration::from_micros(page.pause_sum_us.load(Relaxed)).as_secs_f64(),
            lost: page.lost.load(Relaxed),
        }
    }
}

impl From<Refused> for TallyError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Io(error) => Self::Io(error),
            Refused::Unsealed => Self::Unsealed,
            Refused::Foreign => Self::Foreign,
            Refused::Version { found } => Self::Version { found },
        }
    }
}

fn add_at(counters: &[AtomicU64], index: usize, count: u64) {
    if let Some(counter) = counters.get(index) {
        counter.fetch_add(count, Relaxed);
    }
}

fn load_all<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    counters.each_ref().map(|counter| counter.load(Relaxed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::mem::offset_of;

    use super::*;

    fn twice(tally: &Tally) -> OwnedFd {
        tally.fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn the_layout_is_as_documented() {
        let offsets = [
            offset_of!(Page, magic),
            offset_of!(Page, version),
            offset_of!(Page, zero),
            offset_of!(Page, opened),
            offset_of!(Page, closed),
            offset_of!(Page, nothing),
            offset_of!(Page, durations),
            offset_of!(Page, duration_sum_ms),
            offset_of!(Page, zeroes),
            offset_of!(Page, handed_over),
            offset_of!(Page, pauses),
            offset_of!(Page, pause_sum_us),
            offset_of!(Page, lost),
            offset_of!(Page, rest),
        ];
        let documented = [0, 8, 12, 16, 24, 112, 128, 232, 240, 272, 288, 392, 400, 408];
        assert_eq!(offsets, documented);
        assert_eq!(size_of::<Page>(), 4096);
    }

    #[test]
    fn what_one_process_counts_another_reads_and_none_is_lost() {
        let tally = Tally::create().unwrap();
        let fd = twice(&tally);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let fd = fd.try_clone().unwrap();
                scope.spawn(move || {
                    let tally = Tally::open(fd).unwrap();
                    for _ in 0..1000 {
                        tally.count_opened();
                        tally.count_end(Cause::Idle, Duration::from_millis(1500));
                        tally.count_handed_over(Handover::Crash, 2);
                        tally.observe_pause(Duration::from_micros(700));
                    }
                });
            }
        });
        tally.count_end(Cause::Lost, Duration::MAX);
        tally.observe_pause(Duration::from_secs(3));
        tally.count_handed_over(Handover::Restart, 7);
        tally.count_lost(9);
        drop(tally);
        let totals = Tally::open(fd).unwrap().totals();
        assert_eq!(totals.opened, 4000);
        assert_eq!((totals.closed_by(Cause::Idle), totals.closed_by(Cause::Lost)), (4000, 1));
        assert_eq!((totals.durations[2], totals.durations[12]), (4000, 1));
        assert!((totals.duration_sum_s - 6000.0).abs() < 0.001, "{totals:?}");
        assert_eq!(totals.handed_over_by(Handover::Crash), 8000);
        assert_eq!((totals.handed_over_by(Handover::Restart), totals.lost), (7, 9));
        assert_eq!((totals.pauses[1], totals.pauses[12]), (4000, 1));
        assert!((totals.pause_sum_s - 5.8).abs() < 0.001, "{totals:?}");
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for (at, bound) in PAUSE_BOUNDS_S.iter().enumerate() {
            let bound = Duration::from_secs_f64(*bound);
            assert_eq!(bucket(&PAUSE_BOUNDS_S, bound), at);
            assert_eq!(bucket(&PAUSE_BOUNDS_S, bound + Duration::from_micros(1)), at + 1);
        }
    }

    #[test]
    fn what_is_no_tally_is_refused() {
        let arena = super::super::arena::Arena::create().unwrap();
        let refused = Tally::open(arena.fd().try_clone_to_owned().unwrap()).unwrap_err();
        assert!(matches!(refused, TallyError::Foreign), "{refused:?}");
        let newer = Kind { version: VERSION + 1, size: 3 * KIND.size, ..KIND }.create().unwrap();
        let refused = Tally::open(newer).unwrap_err();
        assert!(matches!(refused, TallyError::Version { found } if found == VERSION + 1));
        let short = Kind { size: 2048, ..KIND }.create().unwrap();
        assert!(matches!(Tally::open(short).unwrap_err(), TallyError::Foreign));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(Tally::open(null.into()).unwrap_err(), TallyError::Foreign));
    }
}
