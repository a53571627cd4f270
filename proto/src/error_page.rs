//! Error pages of a snapshot. What a page says stands once, whichever statuses and sites say it: the first page that has a
//! body carries it, and the others name that one.

use crate::control::ErrorPage;

/// The index of the page that carries the body of the one at `at`; `None` where that one is not there, or carries none
/// itself.
pub fn carrier(pages: &[ErrorPage], at: usize) -> Option<usize> {
    let carrier = match pages.get(at)?.body_of {
        None => at,
        Some(index) => usize::try_from(index).ok()?,
    };
    pages.get(carrier).filter(|page| page.body_of.is_none()).map(|_| carrier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_carried_by_its_own_page_or_by_one_that_has_it() {
        let page = |body_of| ErrorPage { body_of, ..ErrorPage::default() };
        let pages = [None, Some(0), Some(1), Some(3), Some(9), None].map(page);
        let carriers = (0..7).map(|at| carrier(&pages, at));
        let expected = [Some(0), Some(0), None, None, None, Some(5), None];
        assert_eq!(carriers.collect::<Vec<_>>(), expected);
    }
}
