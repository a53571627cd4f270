//! References from one object to another: by the last two segments of a resource id, without regard to case, and
//! also where the id is damaged as in real documents. A reference that could mean two things is never guessed.

use std::collections::HashMap;
use std::sync::Arc;

use super::report::{Place, Report};
use super::spelling::nearest;

/// Characters that stray into ids when expressions are cut out of templates by hand.
const STRAY: &[char] = &['\'', '"', '[', ']', '(', ')', '{', '}', ' ', '\t', '\n', '\r', ','];

/// Names that are looked through for the one that was meant; nobody reads through more either.
const SUGGESTIONS: usize = 1000;

/// Names of one collection and what they stand for.
#[derive(Debug)]
pub(super) struct Table<T> {
    collection: &'static str,
    synonyms: &'static [&'static str],
    /// `None`: defined, but with errors that have been reported.
    entries: Vec<(String, Option<Arc<T>>)>,
    /// Names in lower case and where they stand in `entries`: a document may have very many.
    positions: HashMap<String, usize>,
}

/// A reference as written.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) id: String,
    pub(super) place: Place,
}

// === impl Table ===

impl<T> Table<T> {
    pub(super) fn new(
        collection: &'static str,
        synonyms: &'static [&'static str],
        entries: Vec<(String, Option<Arc<T>>)>,
    ) -> Self {
        let names = entries.iter().enumerate();
        let positions = names.map(|(at, (name, _))| (name.to_lowercase(), at)).collect();
        Self { collection, synonyms, entries, positions }
    }

    /// What was read without errors, in order.
    pub(super) fn values(&self) -> Vec<Arc<T>> {
        self.entries.iter().filter_map(|(_, value)| value.clone()).collect()
    }

    /// Follows a reference; reports when there is nothing at its end.
    pub(super) fn find(&self, reference: &Reference, report: &mut Report) -> Option<Arc<T>> {
        self.position(reference, report)
            .and_then(|index| self.entries.get(index))
            .and_then(|(_, value)| value.clone())
    }

    /// As `find`, but the position in the collection.
    fn position(&self, reference: &Reference, report: &mut Report) -> Option<usize> {
        let collection = self.collection;
        if reference.id.trim_start().starts_with('[') && reference.id.contains("resourceId(") {
            report.error(
                &reference.place,
                "the id is a template's expression, which is not evaluated here",
                format!("run `holdfast import` on the template, or write the id out, so that it ends in /{collection}/NAME"),
            );
            return None;
        }
        let Some((written, name)) = last_two(&reference.id) else {
            report.error(
                &reference.place,
                format!("{:?} is not a resource id", shorten(&reference.id)),
                format!("write an id that ends in /{collection}/NAME"),
            );
            return None;
        };
        let known = std::iter::once(&collection).chain(self.synonyms);
        if !known.into_iter().any(|known| known.eq_ignore_ascii_case(written)) {
            report.error(
                &reference.place,
                format!(
                    "the reference points into {written:?}, but an entry of {collection} is needed"
                ),
                format!("write an id that ends in /{collection}/NAME"),
            );
            return None;
        }
        let same = |wanted: &str| self.positions.get(&wanted.to_lowercase()).copied();
        // The name as it stands first: it may really hold a character that strays into others.
        let found = same(name).or_else(|| same(clean(name)));
        if found.is_none() {
            let names = self.entries.iter().map(|(name, _)| name.as_str());
            let names = names.take(if report.is_full() { 0 } else { SUGGESTIONS });
            let mend = match nearest(clean(name), names) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("add it to {collection}, or correct the name"),
            };
            report.error(
                &reference.place,
                format!("{collection} has no entry named {:?}", clean(name)),
                mend,
            );
        }
        found
    }
}

/// The collection and the name that an id ends in.
pub(super) fn last_two(id: &str) -> Option<(&str, &str)> {
    let id = id.trim_end_matches(|c| c == '/' || STRAY.contains(&c));
    let (rest, _) = id.rsplit_once('/')?;
    let name = id.get(rest.len() + 1..)?;
    let collection = rest.rsplit_once('/').map_or(rest, |(_, last)| last);
    let collection = clean(collection);
    (!name.is_empty() && !collection.is_empty()).then_some((collection, name))
}

pub(super) fn clean(segment: &str) -> &str {
    segment.trim_matches(STRAY)
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}
