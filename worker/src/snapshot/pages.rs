//! Which page a fault is answered with: its site's, or the listener's where no site is known yet. Compiled with the
//! table and never changed; what a page says is nobody's business here.

use std::collections::HashMap;

use bytes::Bytes;
use holdfast_proto::control as wire;
use holdfast_proto::error_page::carrier;
use http::StatusCode;
use thiserror::Error;

use crate::respond::ErrorPages;

/// Why pages cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PageRefusal {
    /// A page is for a status that no fault has.
    #[error("a page is for the status {status}")]
    Status {
        /// The status.
        status: u32,
    },
    /// A site refers to a page that the snapshot does not have.
    #[error("site {site}: page {page} does not exist")]
    Missing {
        /// Name of the site.
        site: String,
        /// The index.
        page: u32,
    },
    /// A page says what another one says, which is not there or says nothing itself.
    #[error("the page {page} has its body from one that has none")]
    Body {
        /// The index.
        page: usize,
    },
    /// Two pages claim one status.
    #[error("{owner} has two pages for the status {status}")]
    Twice {
        /// A site's name, or the listener.
        owner: String,
        /// The status.
        status: StatusCode,
    },
}

/// All pages of a table.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    before_site: ErrorPages,
    /// Sites without pages are left out.
    sites: HashMap<String, ErrorPages>,
}

// === impl Pages ===

impl Pages {
    /// Compiles the pages of a snapshot.
    pub fn compile(pages: &[wire::ErrorPage], sites: &[wire::Site]) -> Result<Self, PageRefusal> {
        let mut compiled = Self::default();
        let mut known = Vec::with_capacity(pages.len());
        // Copied: as they came they share memory with the whole message, and would keep that.
        let bodies = pages.iter().map(|page| Bytes::copy_from_slice(&page.body));
        let bodies: Vec<Bytes> = bodies.collect();
        for (at, page) in pages.iter().enumerate() {
            let wire::ErrorPage { status, before_site, .. } = *page;
            let code = u16::try_from(status).ok().and_then(|it| StatusCode::from_u16(it).ok());
            let code = code.filter(|code| code.is_client_error() || code.is_server_error());
            let code = code.ok_or(PageRefusal::Status { status })?;
            let body = carrier(pages, at).and_then(|carrier| bodies.get(carrier)).cloned();
            let body = body.ok_or(PageRefusal::Body { page: at })?;
            if before_site && !compiled.before_site.add(code, body.clone()) {
                let owner = "the listener".to_owned();
                return Err(PageRefusal::Twice { owner, status: code });
            }
            known.push((code, body));
        }
        for site in sites.iter().filter(|site| !site.error_pages.is_empty()) {
            let mut own = ErrorPages::default();
            for index in &site.error_pages {
                let page = usize::try_from(*index).ok().and_then(|index| known.get(index));
                let missing = || PageRefusal::Missing { site: site.name.clone(), page: *index };
                let (code, body) = page.ok_or_else(missing)?;
                if !own.add(*code, body.clone()) {
                    let owner = format!("site {}", site.name);
                    return Err(PageRefusal::Twice { owner, status: *code });
                }
            }
            compiled.sites.insert(site.name.clone(), own);
        }
        Ok(compiled)
    }

    /// The pages of a site, or of requests whose site is not known.
    pub fn of(&self, site: Option<&str>) -> &ErrorPages {
        match site {
            None => &self.before_site,
            Some(site) => self.sites.get(site).unwrap_or(ErrorPages::BUILT_IN),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn page(status: u32, body: &str, before_site: bool) -> wire::ErrorPage {
        let body = body.to_owned().into();
        wire::ErrorPage { status, body, before_site, body_of: None }
    }

    fn site(name: &str, error_pages: &[u32]) -> wire::Site {
        wire::Site { name: name.into(), error_pages: error_pages.into(), ..wire::Site::default() }
    }

    #[test]
    fn a_site_has_its_own_pages_and_no_others() {
        let listed = vec![page(502, "ours", true), page(502, "theirs", false)];
        let sites = [site("one", &[1]), site("two", &[])];
        let pages = Pages::compile(&listed, &sites).unwrap();
        let bad_gateway = |site| pages.of(site).get(StatusCode::BAD_GATEWAY);
        assert_eq!(bad_gateway(None).unwrap(), "ours");
        assert_eq!(bad_gateway(Some("one")).unwrap(), "theirs");
        assert_eq!(bad_gateway(Some("two")), None);
        assert_eq!(pages.of(None).get(StatusCode::NOT_FOUND), None);
    }

    #[test]
    fn pages_that_say_the_same_share_it_and_nothing_of_the_message() {
        let again = |status, of| wire::ErrorPage { body_of: Some(of), ..page(status, "", true) };
        let listed = vec![page(502, "sorry", true), again(503, 0), again(504, 0)];
        let message = listed[0].body.as_ptr();
        let pages = Pages::compile(&listed, &[site("one", &[2])]).unwrap();
        let [first, second] = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE]
            .map(|status| pages.of(None).get(status).unwrap());
        assert_eq!(first, "sorry");
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_ne!(first.as_ptr(), message);
        let timeout = pages.of(Some("one")).get(StatusCode::GATEWAY_TIMEOUT).unwrap();
        assert_eq!(timeout.as_ptr(), first.as_ptr());
        for (of, page) in [(1, 1), (2, 1), (7, 1)] {
            let listed = [listed[0].clone(), again(503, of), again(504, 0)];
            // A page that has its body from one that has it from another has none.
            assert_eq!(Pages::compile(&listed, &[]).unwrap_err(), PageRefusal::Body { page });
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused =
            |pages: Vec<_>, sites: &[wire::Site]| Pages::compile(&pages, sites).unwrap_err();
        for status in [0, 99, 200, 301, 66_036] {
            let refused = refused(vec![page(status, "", false)], &[]);
            assert_eq!(refused, PageRefusal::Status { status });
        }
        let one = || vec![page(400, "", true)];
        assert_eq!(
            refused(one(), &[site("s", &[1])]),
            PageRefusal::Missing { site: "s".into(), page: 1 }
        );
        let twice = |owner: &str| PageRefusal::Twice {
            owner: owner.into(),
            status: StatusCode::BAD_REQUEST,
        };
        assert_eq!(refused(one(), &[site("s", &[0, 0])]), twice("site s"));
        let two = vec![page(400, "", true), page(400, "x", true)];
        assert_eq!(refused(two, &[]), twice("the listener"));
    }
}
