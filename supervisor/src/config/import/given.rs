//! What the caller gives: values by name, parameter files, where the result's certificates and addresses are. Names are
//! looked up without regard to case; a name that nothing asked for is told, since it may be misspelled.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::context::Fault;
use super::item::{Item, Value, text_of};
use super::scope::{member, members};
use crate::config::json::{self, Member, Node, Value as Json};

/// Options of an import.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--gateway`: of several gateways only the one of this name.
    pub gateway: Option<String>,
    /// Where the template is, and what it links to; `None`: it is no file.
    pub template_dir: Option<PathBuf>,
    /// `--certificates-dir`: where `NAME.pem` and `NAME.key` are.
    pub certificates_dir: Option<PathBuf>,
    /// `--listen`: an address for every frontend.
    pub listen: Option<IpAddr>,
    /// `--listen FRONTEND=ADDRESS`: addresses of some, by names in lower case.
    pub listen_on: BTreeMap<String, IpAddr>,
    values: BTreeMap<String, Text>,
    parameters: BTreeMap<String, Node>,
    linked: BTreeMap<String, Link>,
}

#[derive(Clone, Debug)]
struct Link {
    name: String,
    file: PathBuf,
    used: Cell<bool>,
}

#[derive(Clone, Debug)]
struct Text {
    name: String,
    value: String,
    used: Cell<bool>,
}

// === impl Given ===

impl Given {
    /// `--set NAME=VALUE`.
    pub fn set(&mut self, name: &str, text: String) {
        let name = name.trim().to_owned();
        let key = name.to_ascii_lowercase();
        self.values.insert(key, Text { name, value: text, used: Cell::new(false) });
    }

    /// `--parameters FILE`: adds the values of a parameter file.
    ///
    /// # Errors
    /// A sentence on why it is none.
    pub fn add_parameters(&mut self, text: &str) -> Result<(), String> {
        let mut root = json::parse(text).map_err(|e| {
            format!("line {}, column {}: {}; {}", e.line, e.column, e.reason, e.mend)
        })?;
        flatten(&mut root);
        let listed = member(&root, "parameters").unwrap_or(&root);
        if !matches!(listed.value, Json::Object(_)) {
            return Err(format!("{} stands where an object should", listed.value.kind()));
        }
        for Member { name, value, .. } in members(listed) {
            let known = member(value, "value").is_some() || member(value, "reference").is_some();
            if !known && !name.starts_with('$') && name != "contentVersion" {
                return Err(format!("{name:?} has neither value nor reference"));
            }
            self.parameters.insert(name.to_ascii_lowercase(), value.clone());
        }
        Ok(())
    }

    /// `--linked NAME=FILE`: what a deployment of that name, or a link that says so, leads to.
    pub fn link(&mut self, name: &str, file: PathBuf) {
        let name = name.trim().to_owned();
        let key = without_query(&name).to_ascii_lowercase();
        self.linked.insert(key, Link { name, file, used: Cell::new(false) });
    }

    /// The file that was given for a name or a URL; what stands behind its `?` is a key, and none to look it up by.
    pub(super) fn linked(&self, name: &str) -> Option<&Path> {
        let found = self.linked.get(&without_query(name).to_ascii_lowercase())?;
        found.used.set(true);
        Some(&found.file)
    }

    /// Where a parameter file has the parameter: its `value` or its `reference`.
    pub(super) fn parameter(&self, name: &str) -> Option<Item> {
        self.parameters.get(&name.to_ascii_lowercase()).map(Item::literal)
    }

    /// What was set, as written.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.values.get(&name.to_ascii_lowercase())?;
        found.used.set(true);
        Some(&found.value)
    }

    /// What was set: an object or an array where it is written as one, a text otherwise.
    pub(super) fn any(&self, name: &str) -> Option<Item> {
        let text = self.text(name)?;
        if text.trim_start().starts_with(['{', '['])
            && let Ok(node) = json::parse(text)
        {
            return Some(scattered(&node));
        }
        Some(Item::new(Value::Text(text_of(text))))
    }

    /// What was set, as a parameter's type has it.
    pub(super) fn typed(&self, name: &str, kind: &str) -> Option<Result<Item, Fault>> {
        let text = self.text(name)?;
        let kind = kind.to_ascii_lowercase();
        let value = match kind.as_str() {
            "int" => text.trim().parse().map(Value::Int).map_err(drop),
            "bool" => text.trim().to_ascii_lowercase().parse().map(Value::Bool).map_err(drop),
            "array" | "object" | "secureobject" => {
                let fits = |node: &Node| match node.value {
                    Json::List(_) => kind == "array",
                    Json::Object(_) => kind != "array",
                    _ => false,
                };
                let node = json::parse(text).ok().filter(fits);
                node.map(|node| scattered(&node).value).ok_or(())
            }
            "string" | "securestring" => Ok(Value::Text(text_of(text))),
            _ => return self.any(name).map(Ok),
        };
        // The value is not repeated: it may be a secret.
        let fault = || {
            Fault::new(
                format!("what --set gives for {name} is no {kind}"),
                "write true or false, digits, or JSON, as the parameter's type asks",
            )
        };
        Some(value.map(Item::new).map_err(|()| fault()))
    }

    /// Names that nothing asked for, each behind its option.
    pub(super) fn unused(&self) -> Vec<(&'static str, &str)> {
        let values = self.values.values().filter(|it| !it.used.get());
        let links = self.linked.values().filter(|it| !it.used.get());
        let values = values.map(|it| ("--set", it.name.as_str()));
        values.chain(links.map(|it| ("--linked", without_query(&it.name)))).collect()
    }
}

fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// A literal whose lines mean nothing: it comes from the command line.
fn scattered(node: &Node) -> Item {
    let mut flat = node.clone();
    flatten(&mut flat);
    Item::literal(&flat)
}

/// Takes the lines out: they are another text's.
pub(super) fn flatten(node: &mut Node) {
    (node.line, node.column) = (0, 0);
    match &mut node.value {
        Json::List(entries) => entries.iter_mut().for_each(flatten),
        Json::Object(members) => members.iter_mut().for_each(|m| flatten(&mut m.value)),
        _ => {}
    }
}
