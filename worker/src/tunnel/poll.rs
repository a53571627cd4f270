//! One epoll instance, the eventfd that wakes it, and the timer that does when a deadline comes.
//!
//! Legs are watched edge-triggered for as long as they live; whoever waits remembers what it lacks. Room to write is
//! watched for from the first time that a leg had none: most never lack it, and each would say so when it is added. A
//! leg is taken out explicitly: a duplicate elsewhere would keep a closed one firing. Where another process has put it in,
//! that cannot be done (`watch`).
//!
//! Deadlines are far away and put off all the time, so the timer is set when one comes nearer, or when it has fired; a limit of
//! epoll's own would be set up and taken down with every wait.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::watch::Token;

/// Events taken at once: enough to spread the cost of the call, few enough to answer a wake-up soon.
const BATCH: usize = 256;
/// The token of the eventfd; no record has this index.
const WAKE: u64 = u64::MAX;
/// The token of the timer.
const ALARM: u64 = u64::MAX - 1;

/// Wakes a [`Poll`] from another thread.
#[derive(Debug, Clone)]
pub(super) struct Waker(Arc<OwnedFd>);

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Poll {
    epoll: Arc<OwnedFd>,
    waker: Waker,
    alarm: OwnedFd,
    /// When it fires, on the monotonic clock; `u64::MAX`: not.
    alarm_ms: u64,
}

/// What has changed on a leg.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) token: Token,
    pub(super) flags: EventFlags,
}

impl Poll {
    /// A new one.
    pub(super) fn new() -> io::Result<Self> {
        Self::over(epoll::create(CreateFlags::CLOEXEC)?)
    }

    /// One that another process has left, with all that is watched there. What of it that process had been told, and not
    /// done, nobody is told again: see [`ready`].
    pub(super) fn over(epoll: OwnedFd) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        add_own(&epoll, &wake, &alarm)?;
        let waker = Waker(Arc::new(wake));
        Ok(Self { epoll: Arc::new(epoll), waker, alarm, alarm_ms: u64::MAX })
    }

    /// Goes on with a new epoll instance, where no leg is watched. The waker and the timer stay.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        add_own(&epoll, &self.waker.0, &self.alarm)?;
        self.epoll = Arc::new(epoll);
        Ok(())
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// For the vault.
    pub(super) fn epoll(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    /// Watches a leg. What it is ready for already is reported first.
    pub(super) fn add(&self, leg: BorrowedFd<'_>, token: Token, room: bool) -> io::Result<()> {
        let (data, interest) = (EventData::new_u64(token.number()), interest(room));
        match epoll::add(&*self.epoll, leg, data, interest) {
            // By another process, which had the same number for it.
            Err(Errno::EXIST) => Ok(epoll::modify(&*self.epoll, leg, data, interest)?),
            added => Ok(added?),
        }
    }

    /// Watches a leg for room to write, too. Room that has come meanwhile is reported.
    pub(super) fn watch_room(&self, leg: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let (data, interest) = (EventData::new_u64(token.number()), interest(true));
        match epoll::modify(&*self.epoll, leg, data, interest) {
            // Watched by another process's number: once more, then, by ours.
            Err(Errno::NOENT) => Ok(epoll::add(&*self.epoll, leg, data, interest)?),
            modified => Ok(modified?),
        }
    }

    pub(super) fn remove(&self, leg: BorrowedFd<'_>) {
        if let Err(error) = epoll::delete(&*self.epoll, leg) {
            tracing::debug!(%error, "a leg was not watched by this process");
        }
    }

    /// Has a wait end at that time, on the monotonic clock, or earlier.
    fn wake_at(&mut self, due_ms: u64) -> io::Result<()> {
        if due_ms >= self.alarm_ms {
            return Ok(());
        }
        // What is past fires at once.
        let (seconds, millis) = (due_ms / 1000, due_ms % 1000);
        let it_value = Timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(millis).unwrap_or(0) * 1_000_000,
        };
        let times = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::ABSTIME, &times)?;
        self.alarm_ms = due_ms;
        Ok(())
    }

    /// Waits until something has changed or that time has come, on the monotonic clock (0: not at all), and collects what has
    /// changed. May end earlier, with nothing. True: somebody has called [`Waker::wake`].
    pub(super) fn wait(&mut self, due_ms: u64, changes: &mut Vec<Change>) -> io::Result<bool> {
        let timeout = (due_ms == 0).then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
        if timeout.is_none() {
            self.wake_at(due_ms)?;
        }
        let mut buffer = [const { MaybeUninit::<Event>::uninit() }; BATCH];
        let events: &[Event] = match epoll::wait(&*self.epoll, &mut buffer, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => &[],
            Err(error) => return Err(error.into()),
        };
        let mut woken = false;
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            match token {
                WAKE => woken = true,
                ALARM => self.alarm_ms = u64::MAX,
                token => changes.push(Change { token: Token::from(token), flags }),
            }
        }
        if woken {
            // A failed read would only mean one more wake-up.
            rustix::io::read(&*self.waker.0, &mut [0; 8]).ok();
        }
        Ok(woken)
    }
}

/// By edges, the waker too: nobody reads the timer, nor a dead process's eventfd, which is there until the kernel has closed it.
fn add_own(epoll: &OwnedFd, wake: &OwnedFd, alarm: &OwnedFd) -> io::Result<()> {
    let edges = EventFlags::IN | EventFlags::ET;
    epoll::add(epoll, wake, EventData::new_u64(WAKE), edges)?;
    Ok(epoll::add(epoll, alarm, EventData::new_u64(ALARM), edges)?)
}

/// What legs are ready for now, as [`Poll::wait`] would report it, in their order.
pub(super) fn ready(legs: &[BorrowedFd<'_>]) -> io::Result<Vec<EventFlags>> {
    let interest = PollFlags::IN | PollFlags::RDHUP | PollFlags::PRI;
    let mut asked: Vec<_> =
        legs.iter().map(|leg| PollFd::from_borrowed_fd(*leg, interest)).collect();
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    while let Err(error) = poll(&mut asked, Some(&at_once)) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    // Both calls have the same bits for the same things.
    let flags = |one: &PollFd<'_>| EventFlags::from_bits_retain(one.revents().bits().into());
    Ok(asked.iter().map(flags).collect())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::tunnel::record::Clock;

    /// Waits until that time has come, and no longer.
    fn sleep_until(poll: &mut Poll, due_ms: u64) {
        let mut changes = Vec::new();
        while Clock.now_ms() < due_ms {
            assert!(!poll.wait(due_ms, &mut changes).unwrap() && changes.is_empty());
        }
    }

    #[test]
    fn a_wait_ends_when_its_time_comes() {
        let mut poll = Poll::new().unwrap();
        for delay_ms in [0, 1, 20, 3, 20] {
            sleep_until(&mut poll, Clock.now_ms() + delay_ms);
        }
        sleep_until(&mut poll, 1);
    }

    #[test]
    fn a_nearer_time_comes_first_and_a_later_one_is_not_forgotten() {
        let mut poll = Poll::new().unwrap();
        let (near_ms, far_ms) = (Clock.now_ms() + 30, Clock.now_ms() + 60);
        poll.wake_at(far_ms).unwrap();
        sleep_until(&mut poll, near_ms);
        sleep_until(&mut poll, far_ms);
    }

    #[test]
    fn a_time_that_was_put_off_ends_one_wait_at_most() {
        let mut poll = Poll::new().unwrap();
        poll.wake_at(Clock.now_ms() + 5).unwrap();
        let due_ms = Clock.now_ms() + 100;
        let mut waits = 0;
        while Clock.now_ms() < due_ms {
            poll.wait(due_ms, &mut Vec::new()).unwrap();
            waits += 1;
        }
        assert!(waits <= 2, "{waits}");
    }

    #[test]
    fn no_time_at_all_waits_for_the_waker() {
        let mut poll = Poll::new().unwrap();
        let waker = poll.waker();
        let waking = std::thread::spawn(move || waker.wake());
        assert!(poll.wait(u64::MAX, &mut Vec::new()).unwrap());
        waking.join().unwrap();
        assert!(!poll.wait(0, &mut Vec::new()).unwrap(), "woken once");
    }
}
