//! Pages that replace the built-in ones, by status. They are sent as they are, whoever wrote them, and only for faults
//! of the gateway's own: a backend's answer never comes here.

use bytes::Bytes;
use http::StatusCode;

/// The pages of one site, or of requests without one. Few, so a search is a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages(Vec<(StatusCode, Bytes)>);

// === impl ErrorPages ===

impl ErrorPages {
    /// The built-in pages, whatever the status.
    pub const BUILT_IN: &'static Self = &Self(Vec::new());

    /// Adds the page of a status; `false`: it has one already, which stays.
    pub fn add(&mut self, status: StatusCode, page: Bytes) -> bool {
        let new = self.get(status).is_none();
        if new {
            self.0.push((status, page));
        }
        new
    }

    /// The page of a status; without one the built-in page is sent.
    pub fn get(&self, status: StatusCode) -> Option<Bytes> {
        self.0.iter().find(|(known, _)| *known == status).map(|(_, page)| page.clone())
    }
}
