//! What every backend has in hand of this process: requests that run and tunnels that live.
//!
//! A server is counted by its address and port, whichever pools and settings lead to it. Whoever has work in hand
//! holds a [`Held`]; nothing here may ever count by itself, so that no count can stay behind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// Names that are looked through for forgotten ones when the list has grown to this many.
const FIRST_SWEEP: usize = 1024;

/// How much one backend has in hand.
#[derive(Debug, Default)]
pub struct Load(AtomicU32);

/// One request or tunnel of a backend, counted until it is over or this is gone.
#[derive(Debug)]
pub struct Held {
    load: Arc<Load>,
    over: AtomicBool,
}

/// Every backend that somebody knows.
#[derive(Debug, Default)]
struct Loads {
    known: HashMap<(String, u16), Weak<Load>>,
    sweep_at: usize,
}

/// The load of the backend at an address and port. Everybody who asks for the same one gets the same one.
pub fn of(address: &str, port: u16) -> Arc<Load> {
    static LOADS: OnceLock<Mutex<Loads>> = OnceLock::new();
    let loads = LOADS.get_or_init(Mutex::default);
    // Every field is valid by itself, whoever died while it held them.
    loads.lock().unwrap_or_else(PoisonError::into_inner).of(address, port)
}

// === impl Loads ===

impl Loads {
    fn of(&mut self, address: &str, port: u16) -> Arc<Load> {
        let key = (address.to_ascii_lowercase(), port);
        if let Some(load) = self.known.get(&key).and_then(Weak::upgrade) {
            return load;
        }
        if self.known.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.known.retain(|_, load| load.strong_count() != 0);
            self.sweep_at = self.known.len().saturating_mul(2);
        }
        let load = Arc::new(Load::default());
        self.known.insert(key, Arc::downgrade(&load));
        load
    }
}

// === impl Load ===

impl Load {
    /// Takes one more in hand.
    pub fn hold(self: &Arc<Self>) -> Held {
        // Relaxed: who compares loads does so at no particular moment.
        self.0.fetch_add(1, Ordering::Relaxed);
        Held { load: Arc::clone(self), over: AtomicBool::new(false) }
    }

    /// How many are in hand.
    pub fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Held ===

impl Held {
    /// It is over, whoever may still know of it.
    pub fn end(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.load.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_one_whoever_asks_and_counts_only_what_is_held() {
        let (one, same) = (of("Load.Test", 1), of("load.test", 1));
        let first = one.hold();
        let second = same.hold();
        assert_eq!((one.now(), of("load.test", 2).now()), (2, 0));
        first.end();
        first.end();
        drop(first);
        assert_eq!(same.now(), 1);
        // Somebody still holds it, though nobody else knows it.
        drop((one, same));
        assert_eq!(of("load.test", 1).now(), 1);
        drop(second);
        assert_eq!(of("load.test", 1).now(), 0);
    }

    #[test]
    fn servers_that_nobody_knows_are_forgotten() {
        let mut loads = Loads::default();
        let kept = loads.of("kept", 1);
        for port in 1..=u16::try_from(FIRST_SWEEP).unwrap_or(u16::MAX) {
            drop(loads.of("forgotten", port));
        }
        assert!(loads.known.len() <= 2);
        assert!(Arc::ptr_eq(&kept, &loads.of("kept", 1)));
    }
}
