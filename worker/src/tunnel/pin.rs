//! Why a tunnel is pinned: which causes there are, what they are called, and that each is told.
//!
//! A pinned tunnel lives and dies with the process that opened it. That is decided once, before it opens, and never
//! changes: what has been taken over was portable. Nothing here ends or moves a tunnel.

use std::sync::atomic::{AtomicBool, Ordering};

use super::counters;
use super::leg::Leg;

/// What keeps a tunnel from moving to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pin {
    /// A TLS session of it could not leave rustls.
    Tls,
    /// A leg is no plain TCP: its counters would say nothing of the tunnel's bytes.
    NotTcp,
    /// This kernel's counters cannot be trusted, or read.
    Counters,
}

/// Which causes have been told in this process: a tunnel in a thousand that is pinned is news, its thousand successors
/// are a figure.
#[derive(Debug, Default)]
pub(super) struct Told([AtomicBool; Pin::ALL.len()]);

/// Pinned tunnels, in the order of [`Pin::ALL`].
pub(crate) type Pinned = [u64; Pin::ALL.len()];

// === impl Pin ===

impl Pin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tls, Self::NotTcp, Self::Counters];

    /// The word that metrics, lists and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::NotTcp => "not_tcp",
            Self::Counters => "counters",
        }
    }

    /// What a tunnel of these legs is pinned by, on a kernel whose counters are trusted or not.
    pub(super) fn of(legs: [&Leg; 2], trusted: bool) -> Option<Self> {
        let plain = |leg: &Leg| counters::is_plain_tcp(leg.fd()).unwrap_or(false);
        if legs.iter().any(|leg| leg.is_pinned()) {
            Some(Self::Tls)
        } else if !legs.into_iter().all(plain) {
            Some(Self::NotTcp)
        } else if !trusted {
            Some(Self::Counters)
        } else {
            None
        }
    }
}

// === impl Told ===

impl Told {
    /// Whether this cause is news.
    pub(super) fn is_first(&self, pin: Pin) -> bool {
        self.0.get(pin as usize).is_some_and(|told| !told.swap(true, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn two_plain_legs_under_counters_that_are_trusted_pin_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = || Leg::plain(TcpStream::connect(listener.local_addr().unwrap()).unwrap().into());
        let other = Leg::plain(UnixStream::pair().unwrap().0.into());
        let tcp = [tcp(), tcp()];
        assert_eq!(Pin::of([&tcp[0], &tcp[1]], true), None);
        assert_eq!(Pin::of([&tcp[0], &tcp[1]], false), Some(Pin::Counters));
        // What would not help either way is not blamed on the kernel.
        for trusted in [true, false] {
            assert_eq!(Pin::of([&tcp[0], &other], trusted), Some(Pin::NotTcp));
            assert_eq!(Pin::of([&other, &tcp[0]], trusted), Some(Pin::NotTcp));
        }
    }

    #[test]
    fn each_cause_is_news_once() {
        let told = Told::default();
        for pin in Pin::ALL {
            assert!(told.is_first(pin), "{pin:?}");
            assert!(!told.is_first(pin), "{pin:?}");
        }
    }
}
