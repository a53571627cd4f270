//! One epoll instance and the eventfd that wakes it.
//!
//! Legs are watched edge-triggered for as long as they live; whoever waits remembers what it lacks. Room to write is
//! watched for from the first time that a leg had none: most never lack it, and each would say so when it is added. A
//! leg is taken out explicitly: a duplicate elsewhere would keep a closed one firing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

/// Events taken at once: enough to spread the cost of the call, few enough to answer a wake-up soon.
const BATCH: usize = 256;
/// The token of the eventfd; no slab has this key.
const WAKE: u64 = u64::MAX;

/// Wakes a [`Poll`] from another thread.
#[derive(Debug, Clone)]
pub(super) struct Waker(Arc<OwnedFd>);

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Poll {
    epoll: OwnedFd,
    waker: Waker,
}

/// What has changed on a leg.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) token: u64,
    pub(super) flags: EventFlags,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self { epoll, waker: Waker(Arc::new(wake)) })
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Watches a leg. What it is ready for already is reported first.
    pub(super) fn add(&self, leg: BorrowedFd<'_>, token: u64, room: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, leg, EventData::new_u64(token), interest(room))?)
    }

    /// Watches a leg for room to write, too. Room that has come meanwhile is reported.
    pub(super) fn watch_room(&self, leg: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, leg, EventData::new_u64(token), interest(true))?)
    }

    pub(super) fn remove(&self, leg: BorrowedFd<'_>) {
        if let Err(error) = epoll::delete(&self.epoll, leg) {
            tracing::debug!(%error, "a leg was not watched");
        }
    }

    /// Waits and collects what has changed. True: somebody has called [`Waker::wake`].
    pub(super) fn wait(
        &self,
        timeout: Option<Duration>,
        changes: &mut Vec<Change>,
    ) -> io::Result<bool> {
        let timeout = timeout.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut buffer = [const { MaybeUninit::<Event>::uninit() }; BATCH];
        let events: &[Event] = match epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => &[],
            Err(error) => return Err(error.into()),
        };
        let mut woken = false;
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == WAKE {
                woken = true;
            } else {
                changes.push(Change { token, flags });
            }
        }
        if woken {
            // A failed read would only mean one more wake-up.
            rustix::io::read(&*self.waker.0, &mut [0; 8]).ok();
        }
        Ok(woken)
    }
}

fn interest(room: bool) -> EventFlags {
    let mut interest = EventFlags::IN | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
    interest.set(EventFlags::OUT, room);
    interest
}

impl Waker {
    pub(super) fn wake(&self) {
        // Can only fail when the counter is full, and then the wake-up is due already.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }
}
