//! What a person is told about a document: where, why, and what to write instead. It never carries a secret
//! of the document (no certificate data, no password), because diagnostics are logged and sent over the wire.

use std::fmt;

/// How grave a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is taken, but something in it does not mean what one might think.
    Warning,
}

/// One finding about a configuration document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the document is refused because of it.
    pub severity: Severity,
    /// JSON path as spelled in the document, `properties.httpListeners[0].properties.protocol`; empty for the whole.
    pub path: String,
    /// Line, from 1; 0 when the finding has no place.
    pub line: u32,
    /// Column in characters, from 1; 0 when the finding has no place.
    pub column: u32,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "document" } else { &self.path };
        write!(f, "{path} (line {}, column {}): {}", self.line, self.column, self.reason)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}
