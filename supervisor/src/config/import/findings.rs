//! What a person is told about an import: what is missing, what was left out and why, what is wrong. It never carries a
//! secret of the document.

/// Of which kind a [`Finding`] is, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// The result is not valid because of it.
    Error,
    /// A value that only the caller can give.
    Missing,
    /// The result may mean something else than it seems to.
    Warning,
    /// It has an effect in Azure and none here.
    LeftOut,
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How grave it is.
    pub kind: FindingKind,
    /// JSON path in the result; empty for the whole.
    pub path: String,
    /// Line of the imported document, from 1; 0 when the finding has no place.
    pub line: u32,
    /// Column in characters, from 1; 0 when the finding has no place.
    pub column: u32,
    /// What it is.
    pub reason: String,
    /// What to do about it.
    pub mend: String,
}

/// More of a kind than this help nobody.
const LIMIT: usize = 200;

/// The findings so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    found: Vec<Finding>,
    left_out: usize,
}

// === impl Findings ===

impl Findings {
    pub(super) fn add(
        &mut self,
        kind: FindingKind,
        path: &str,
        place: (u32, u32),
        reason: impl Into<String>,
        mend: impl Into<String>,
    ) {
        if self.found.iter().filter(|f| f.kind == kind).count() >= LIMIT {
            self.left_out += 1;
            return;
        }
        let (line, column) = place;
        let (path, reason, mend) = (path.to_owned(), reason.into(), mend.into());
        self.found.push(Finding { kind, path, line, column, reason, mend });
    }

    pub(super) fn has(&self, kinds: &[FindingKind]) -> bool {
        self.found.iter().any(|finding| kinds.contains(&finding.kind))
    }

    /// The gravest first, within a kind in the order of their lines.
    pub(super) fn into_sorted(mut self) -> Vec<Finding> {
        self.found.sort_by_key(|f| (f.kind, f.line, f.column));
        if self.left_out > 0 {
            self.found.push(Finding {
                kind: FindingKind::Warning,
                path: String::new(),
                line: 0,
                column: 0,
                reason: format!("{} more findings are not shown", self.left_out),
                mend: "mend those above first".to_owned(),
            });
        }
        self.found
    }
}
