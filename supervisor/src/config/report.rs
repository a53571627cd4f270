//! Where a value stands, and the list of findings that grows while a document is read. It never stops at the
//! first error, and never lets the list grow without bound.

use super::diagnostic::{Diagnostic, Severity};

/// More findings than this help nobody, and a hostile document could have millions.
const LIMIT: usize = 200;

/// Where a value stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Diagnostic>,
    errors: usize,
    left_out: usize,
}

// === impl Place ===

impl Place {
    /// The place of a member of this object.
    pub(super) fn member(&self, name: &str, line: u32, column: u32) -> Self {
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, line, column }
    }

    /// The place of an entry of this list.
    pub(super) fn entry(&self, index: usize, line: u32, column: u32) -> Self {
        Self { path: format!("{}[{index}]", self.path), line, column }
    }
}

// === impl Report ===

impl Report {
    pub(super) fn error(&mut self, at: &Place, reason: impl Into<String>, mend: impl Into<String>) {
        self.errors += 1;
        self.push(Severity::Error, at, reason.into(), mend.into());
    }

    pub(super) fn warn(&mut self, at: &Place, reason: impl Into<String>, mend: impl Into<String>) {
        self.push(Severity::Warning, at, reason.into(), mend.into());
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether further findings are only counted: their mends need no thought any more.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= LIMIT
    }

    /// Every finding, in the order of places; the last one says how many were left out.
    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| (d.line, d.column, d.severity));
        if self.left_out > 0 {
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            self.found.push(Diagnostic {
                severity,
                path: String::new(),
                line: 0,
                column: 0,
                reason: format!("{} more findings are not shown", self.left_out),
                mend: "mend those above first".to_owned(),
            });
        }
        self.found
    }

    fn push(&mut self, severity: Severity, at: &Place, reason: String, mend: String) {
        if self.found.len() >= LIMIT {
            self.left_out += 1;
            if severity == Severity::Warning {
                return;
            }
            // An error must be seen even if two hundred warnings came before it.
            let Some(warning) = self.found.iter().rposition(|d| d.severity == Severity::Warning)
            else {
                return;
            };
            self.found.remove(warning);
        }
        let Place { path, line, column } = at.clone();
        self.found.push(Diagnostic { severity, path, line, column, reason, mend });
    }
}
