//! Pages that answer faults of the gateway's own: Azure's `customErrorConfigurations`. What a page says is bytes; they
//! are read from a file when a document is, and fetched from a URL by whoever puts it in force.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Gateway, Site};

/// Shorter than this, bytes: Azure's limit.
pub const PAGE_LIMIT: u64 = 1024 * 1024;

/// The page of one status.
#[derive(Clone, PartialEq)]
pub struct ErrorPage {
    /// 400, 403, 404, 405, 408, 500, 502, 503 or 504.
    pub status: u16,
    /// Where it comes from.
    pub source: PageSource,
    /// HTML; `None` for a URL that nobody has fetched yet, and for a file that is gone.
    pub body: Option<Arc<[u8]>>,
}

/// Where a page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageSource {
    /// An absolute http or https URL.
    Url(String),
    /// A file, as a whole path.
    File(String),
}

/// Bodies by URL, or by the path of a file that cannot be read any more.
pub type Bodies = BTreeMap<String, Arc<[u8]>>;

// === impl Gateway ===

impl Gateway {
    /// The pages of a site: its own, or the gateway's where it has none.
    pub fn pages_of<'a>(&'a self, site: &'a Site) -> &'a [ErrorPage] {
        if site.error_pages.is_empty() { &self.error_pages } else { &site.error_pages }
    }

    /// Whether any page comes from the web.
    pub fn has_fetched_pages(&self) -> bool {
        self.all_pages().any(|page| matches!(page.source, PageSource::Url(_)))
    }

    fn all_pages(&self) -> impl Iterator<Item = &ErrorPage> {
        let sites = self.listeners.iter().flat_map(|listener| &listener.sites);
        sites.flat_map(|site| &site.error_pages).chain(&self.error_pages)
    }

    /// What is known of pages that come from files.
    pub fn file_pages(&self) -> Bodies {
        let known = self.all_pages().filter_map(|page| match &page.source {
            PageSource::File(path) => Some((path.clone(), page.body.clone()?)),
            PageSource::Url(_) => None,
        });
        known.collect()
    }

    /// Puts in what was fetched, and what is known of files that could not be read.
    pub fn fill_pages(&mut self, fetched: &Bodies) {
        let fill = |page: &mut ErrorPage| match &page.source {
            PageSource::Url(url) => page.body = fetched.get(url).cloned(),
            PageSource::File(path) if page.body.is_none() => {
                page.body = fetched.get(path).cloned();
            }
            PageSource::File(_) => {}
        };
        self.error_pages.iter_mut().for_each(fill);
        for site in self.listeners.iter_mut().flat_map(|listener| &mut listener.sites) {
            if !site.error_pages.is_empty() {
                Arc::make_mut(site).error_pages.iter_mut().for_each(fill);
            }
        }
    }

    /// Bytes of all pages, each that stands in several places counted once.
    pub fn page_bytes(&self) -> usize {
        let bodies = self.all_pages().filter_map(|page| page.body.as_ref());
        let distinct: BTreeMap<*const u8, usize> =
            bodies.map(|body| (body.as_ptr(), body.len())).collect();
        distinct.values().sum()
    }
}

// === impl ErrorPage ===

impl fmt::Debug for ErrorPage {
    /// Leaves the text out: it may be a megabyte.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorPage")
            .field("status", &self.status)
            .field("source", &self.source)
            .field("length", &self.body.as_ref().map(|body| body.len()))
            .finish()
    }
}
