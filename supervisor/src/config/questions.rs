//! What a reader asks a document, written down while a test listens: so the schema is compared with what is read, and
//! not with what somebody thinks is read. Only for tests.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::report::Place;

thread_local! {
    static HEARD: RefCell<Option<BTreeSet<Asked>>> = const { RefCell::new(None) };
}

/// A question: of the object at a path, for a member. Both are in lower case; a path has neither positions nor
/// `properties`, as the shapes differ in these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) question: Question,
}

/// What is asked of a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// Whether it is there, perhaps to pass over it.
    Passed,
    /// What it says.
    Known,
    /// A number in a range.
    Number(u64, u64),
    /// A boolean, and what holds where it is absent.
    Flag(bool),
    /// One of these words.
    Word(Vec<&'static str>),
    List,
    Object,
}

/// Everything that is asked during a story.
pub(super) fn during(story: impl FnOnce()) -> BTreeSet<Asked> {
    HEARD.with_borrow_mut(|heard| *heard = Some(BTreeSet::new()));
    story();
    HEARD.take().unwrap_or_default()
}

/// Writes a question down, if a test listens.
pub(super) fn note(at: &Place, name: &str, question: Question) {
    HEARD.with_borrow_mut(|heard| {
        if let Some(heard) = heard {
            let (path, name) = (plain(&at.path), name.to_ascii_lowercase());
            heard.insert(Asked { path, name, question });
        }
    });
}

/// `properties.probes[3].properties.match` is `probes.match`.
pub(super) fn plain(path: &str) -> String {
    let steps = path.split('.').map(|step| step.split('[').next().unwrap_or(step));
    let steps = steps.map(str::to_ascii_lowercase).filter(|step| step != "properties");
    steps.collect::<Vec<_>>().join(".")
}
