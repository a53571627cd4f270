//! Whose turn it is: round robin over the backends of a binding that are in rotation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Backend;

/// Where a binding's round robin stands. Outlives revisions, so that a reload does not favour the first backend.
#[derive(Debug, Default)]
pub struct Cursor(AtomicUsize);

/// The backends to try for one request, the one whose turn it is first, each once.
#[derive(Clone, Debug)]
pub struct Picks {
    backends: Arc<[Arc<Backend>]>,
    next: usize,
    left: usize,
}

// === impl Picks ===

impl Picks {
    /// Takes a turn.
    pub(crate) fn new(backends: Arc<[Arc<Backend>]>, cursor: &Cursor) -> Self {
        let left = backends.len();
        // Relaxed: only fairness hangs on it, and wrapping at the end of usize costs one turn.
        let next = cursor.0.fetch_add(1, Ordering::Relaxed).checked_rem(left).unwrap_or(0);
        Self { backends, next, left }
    }

    /// No backend at all.
    pub(crate) fn none() -> Self {
        Self { backends: Arc::from([]), next: 0, left: 0 }
    }
}

impl Iterator for Picks {
    type Item = Arc<Backend>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let backend = self.backends.get(self.next).map(Arc::clone);
        self.next = (self.next + 1).checked_rem(self.backends.len()).unwrap_or(0);
        backend
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Picks {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_starts_one_further_and_sees_each_backend_once() {
        let backends: Arc<[Arc<Backend>]> =
            (1..=3).map(|port| Arc::new(Backend::new("10.0.0.1".to_owned(), port))).collect();
        let cursor = Cursor::default();
        let mut orders = Vec::new();
        for _ in 0..4 {
            let picks = Picks::new(Arc::clone(&backends), &cursor);
            assert_eq!(picks.len(), 3);
            orders.push(picks.map(|backend| backend.port).collect::<Vec<_>>());
        }
        assert_eq!(orders, [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
    }

    #[test]
    fn an_empty_rotation_offers_nothing() {
        assert!(Picks::new(Arc::from([]), &Cursor::default()).next().is_none());
        assert!(Picks::none().next().is_none());
    }
}
