//! Error pages of one listener: each body once, sites refer to them by index.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_proto::control;

use crate::config::gateway::{ErrorPage, Gateway, Site};

/// One listener's pages while they are being numbered.
#[derive(Default)]
pub(super) struct Pages {
    list: Vec<control::ErrorPage>,
    known: HashMap<(u16, Arc<[u8]>), u32>,
}

// === impl Pages ===

impl Pages {
    /// Indices of a site's pages; one that nobody has fetched is left out.
    pub(super) fn of(&mut self, pages: &[ErrorPage]) -> Vec<u32> {
        let indices = pages.iter().filter_map(|page| Some(self.add(page, page.body.as_ref()?)));
        indices.collect()
    }

    fn add(&mut self, page: &ErrorPage, body: &Arc<[u8]>) -> u32 {
        *self.known.entry((page.status, Arc::clone(body))).or_insert_with(|| {
            self.list.push(control::ErrorPage {
                status: page.status.into(),
                body: body.to_vec(),
                before_site: false,
            });
            u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
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
