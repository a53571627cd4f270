//! From a document to the gateway that it means. Everything wrong with a document is found before anything of
//! it is used; this module opens certificate files and nothing else, and never changes anything.

use std::path::{Path, PathBuf};

mod certificate;
pub mod diagnostic;
mod effective;
pub mod gateway;
pub mod import;
mod json;
mod paths;
mod policy;
#[cfg(test)]
mod questions;
mod read;
mod reference;
mod report;
mod schema;
mod shape;
mod spelling;
mod validate;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Severity};
pub use effective::effective;
pub use gateway::Gateway;
pub use schema::schema;
pub use spelling::nearest;

/// A document that may be put in force.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub gateway: Gateway,
    /// What it does not do, though it may look so.
    pub warnings: Vec<Diagnostic>,
    /// Pages that have to be fetched before it can be put in force.
    pub wanted: Vec<Wanted>,
}

/// An error page to be fetched, and where the document first names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// An absolute http or https URL.
    pub url: String,
    /// As in a [`Diagnostic`].
    pub path: String,
    /// As in a [`Diagnostic`].
    pub line: u32,
    /// As in a [`Diagnostic`].
    pub column: u32,
}

/// Reads and checks a document; relative paths in it start at `base_dir`.
///
/// # Errors
/// Every error of the document, and its warnings, in the order of their places.
pub fn load(document: &str, base_dir: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    load_with(document, base_dir, false)
}

/// The same for a document that has been in force already: a file of an error page that is gone since is a warning, and
/// the page that is known of it, or the built-in one, answers. Nothing that runs, or is to run again, stops over a page.
///
/// # Errors
/// As [`load`].
pub fn load_again(document: &str, base_dir: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    load_with(document, base_dir, true)
}

fn load_with(
    document: &str,
    base_dir: &Path,
    without_pages: bool,
) -> Result<Loaded, Vec<Diagnostic>> {
    let root = match json::parse(document) {
        Ok(root) => root,
        Err(json::SyntaxError { line, column, reason, mend }) => {
            let (severity, path) = (Severity::Error, String::new());
            return Err(vec![Diagnostic { severity, path, line, column, reason, mend }]);
        }
    };
    let mut report = report::Report::default();
    // Whole, so that every path that is kept and printed means the same wherever it is read.
    let base_dir = whole(base_dir);
    let gateway = read::gateway(&root, &base_dir, without_pages, &mut report);
    match gateway {
        Some((gateway, wanted)) if !report.has_errors() => {
            Ok(Loaded { gateway, warnings: report.into_sorted(), wanted })
        }
        _ => Err(report.into_sorted()),
    }
}

/// What is wrong with the address that a document gives operators, told of its place.
pub(crate) fn about_admin(document: &str, reason: String, mend: String) -> Diagnostic {
    let place = json::parse(document).ok().and_then(|root| read::admin_place(&root));
    let report::Place { path, line, column } = place.unwrap_or_default();
    Diagnostic { severity: Severity::Error, path, line, column, reason, mend }
}

/// A directory's path from the root on; as it is where nobody can tell.
fn whole(directory: &Path) -> PathBuf {
    let named = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    std::path::absolute(named).unwrap_or_else(|_| directory.to_owned())
}
