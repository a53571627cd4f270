//! Templates, and parameters, that a deployment names instead of holding them. They are read from beside the template, or from
//! where the caller says. Never from the network, and never, unless the caller says so, from outside of the directory that
//! the template is in: who writes a template must not choose what is read here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use percent_encoding::percent_decode_str;

use super::context::{Context, Fault};
use super::evaluate::Env;
use super::given::flatten;
use super::scope::member;
use crate::config::json::{self, Node};

/// Bytes of a template: Azure takes 4 MiB.
const LONGEST: u64 = 8 * 1024 * 1024;
/// Bytes of all of them together.
const MOST: u64 = 4 * LONGEST;

/// Where a template is, and in which directory all that it names must be.
#[derive(Clone, Debug)]
pub(super) struct Home {
    directory: Rc<Path>,
    root: Rc<Path>,
}

/// What was read already, by its path.
#[derive(Debug, Default)]
pub(super) struct Library {
    read: RefCell<HashMap<PathBuf, Rc<Node>>>,
    bytes: Cell<u64>,
}

// === impl Home ===

impl Home {
    /// Of a template in that directory.
    pub(super) fn of(directory: &Path) -> Self {
        Self { directory: directory.into(), root: directory.into() }
    }
}

// === impl Library ===

impl Library {
    /// A file's JSON; its lines are none of the imported document's.
    fn read(&self, path: &Path) -> Result<Rc<Node>, String> {
        if let Some(known) = self.read.borrow().get(path) {
            return Ok(Rc::clone(known));
        }
        // Opening a pipe would wait for its writer.
        if !fs::metadata(path).map_err(|e| e.to_string())?.is_file() {
            return Err("it is not a regular file".to_owned());
        }
        let mut text = String::new();
        let file = File::open(path).map_err(|e| e.to_string())?;
        file.take(LONGEST + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
        if text.len() as u64 > LONGEST {
            return Err(format!("it has more than {LONGEST} bytes"));
        }
        self.bytes.set(self.bytes.get() + text.len() as u64);
        if self.bytes.get() > MOST {
            return Err(format!("with it, all that is linked has more than {MOST} bytes"));
        }
        let mut node = json::parse(text.trim_start_matches('\u{feff}'))
            .map_err(|e| format!("line {}, column {}: {}", e.line, e.column, e.reason))?;
        flatten(&mut node);
        let node = Rc::new(node);
        self.read.borrow_mut().insert(path.to_owned(), Rc::clone(&node));
        Ok(node)
    }
}

impl Context<'_> {
    /// What a `templateLink` or `parametersLink` leads to; `name` is what `--linked` may call it besides what it says.
    pub(super) fn linked(
        &self,
        env: Env<'_>,
        link: &Node,
        name: &str,
    ) -> Result<(Rc<Node>, Home), Fault> {
        if let Some(limit) = self.limit() {
            return Err(limit);
        }
        self.spend(1)?;
        let [relative, uri, id] = ["relativePath", "uri", "id"].map(|word| {
            let found = self.expand(env, member(link, word)?);
            let is_known = !found.has_hole();
            found.as_text().map(|text| (self.shown(text), is_known))
        });
        let mend = || format!("save it as a file, and give it with --linked '{name}=FILE'");
        let names = [&relative, &uri, &id].into_iter().flatten().map(|(text, _)| text.as_str());
        if let Some(file) = std::iter::once(name).chain(names).find_map(|it| self.given.linked(it))
        {
            let file = fs::canonicalize(file)
                .map_err(|e| Fault::new(format!("{}: {e}", file.display()), "correct --linked"))?;
            let home = Home::of(file.parent().unwrap_or(Path::new("/")));
            return Ok((self.read(&file)?, home));
        }
        let (asked, is_known) = match (relative, uri, id) {
            (Some(relative), ..) => relative,
            (None, Some(uri), _) => uri,
            (None, None, Some((id, _))) => {
                return Err(Fault::new(format!("it is the template spec {id}"), mend()));
            }
            (None, None, None) => {
                return Err(Fault::new("it has neither a relativePath nor a uri", mend()));
            }
        };
        // What stands behind it may be a key.
        let shown = asked.split('?').next().unwrap_or_default();
        if !is_known {
            return Err(Fault::new(
                format!("where it is depends on what is missing: {shown}"),
                mend(),
            ));
        }
        let Some(path) = local(&asked) else {
            return Err(Fault::new(
                format!("it is at {shown}, and nothing is fetched here"),
                mend(),
            ));
        };
        let Some(home) = &env.scope.home else {
            return Err(Fault::new(
                format!("it is at {shown}, beside a template that is no file"),
                mend(),
            ));
        };
        let path = home.directory.join(path);
        let cannot = |e: std::io::Error| Fault::new(format!("{}: {e}", path.display()), mend());
        // Links are followed before it is looked at where they lead.
        let found = fs::canonicalize(&path).map_err(cannot)?;
        let root = fs::canonicalize(&home.root).map_err(cannot)?;
        if !found.starts_with(&root) {
            return Err(Fault::new(
                format!(
                    "{shown} is outside of the directory of the template, {}",
                    home.root.display()
                ),
                mend(),
            ));
        }
        let directory = found.parent().unwrap_or(&root).into();
        Ok((self.read(&found)?, Home { directory, root: root.into() }))
    }

    fn read(&self, path: &Path) -> Result<Rc<Node>, Fault> {
        let mend = "correct the file, or give another one with --linked";
        self.library
            .read(path)
            .map_err(|why| Fault::new(format!("{}: {why}", path.display()), mend))
    }
}

/// The path that is meant, where it is one of this host.
fn local(asked: &str) -> Option<PathBuf> {
    let plain = asked.split(['?', '#']).next().unwrap_or_default();
    let scheme = plain.split_once(':').map(|(scheme, _)| scheme).filter(|it| !it.contains('/'));
    match scheme {
        // A template that was written on Windows.
        None => Some(plain.replace('\\', "/").into()),
        Some(scheme) if scheme.eq_ignore_ascii_case("file") => {
            let rest = plain.get(scheme.len() + 1..)?;
            let path = match rest.strip_prefix("//") {
                Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
                None => rest,
            };
            path.starts_with('/').then_some(())?;
            Some(percent_decode_str(path).decode_utf8().ok()?.into_owned().into())
        }
        Some(_) => None,
    }
}
