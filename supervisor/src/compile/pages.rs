//! Error pages of one listener: each body once, whatever refers to it; sites refer to pages by index.
//!
//! A body is known by where it is, not by what it says: it is read or fetched once, and nobody looks at a megabyte to find
//! that out. Nor is it copied: all listeners have the gateway's own bytes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::control;

use crate::config::gateway::{ErrorPage, Gateway, Site};

/// One listener's pages while they are being numbered.
#[derive(Default)]
pub(super) struct Pages {
    list: Vec<control::ErrorPage>,
    /// The first page with a body, by where that is and how long.
    carriers: HashMap<(*const u8, usize), u32>,
    /// By status and carrier.
    known: HashMap<(u16, u32), u32>,
}

// === impl Pages ===

impl Pages {
    /// Indices of a site's pages; one that nobody has fetched is left out.
    pub(super) fn of(&mut self, pages: &[ErrorPage]) -> Vec<u32> {
        let indices = pages.iter().filter_map(|page| Some(self.add(page, page.body.as_ref()?)));
        indices.collect()
    }

    fn add(&mut self, page: &ErrorPage, body: &Arc<[u8]>) -> u32 {
        let next = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let carrier = *self.carriers.entry((body.as_ptr(), body.len())).or_insert(next);
        *self.known.entry((page.status, carrier)).or_insert_with(|| {
            let (body, body_of) = if carrier == next {
                (Bytes::from_owner(Arc::clone(body)), None)
            } else {
                (Bytes::new(), Some(carrier))
            };
            let status = page.status.into();
            self.list.push(control::ErrorPage { status, body, before_site: false, body_of });
            next
        })
    }

    /// All of them. A request that is refused before its site is known gets the gateway's page, or the only site's.
    pub(super) fn finish<'a>(
        mut self,
        gateway: &Gateway,
        mut sites: impl Iterator<Item = &'a Site>,
    ) -> Vec<control::ErrorPage> {
        let first = match (sites.next(), sites.next()) {
            (Some(only), None) => self.of(gateway.pages_of(only)),
            _ => self.of(&gateway.error_pages),
        };
        for index in first {
            let page = usize::try_from(index).ok().and_then(|index| self.list.get_mut(index));
            if let Some(page) = page {
                page.before_site = true;
            }
        }
        self.list
    }
}
