//! Writes a gateway in one way, whichever way it came: names as Azure spells them, every child `{name, properties}`,
//! collections in one order, nothing that is null or empty. What has no effect outside of Azure is left out, and told.

use std::collections::HashSet;

use super::findings::{FindingKind, Findings};
use super::item::{Item, Member, Value};
use super::names;

/// A gateway from a resource, with or without `properties`.
pub(super) fn gateway(written: &Item, findings: &mut Findings) -> Item {
    let mut parts = Parts::default();
    parts.open(written, "", true, findings);
    let Parts { name, own, mut members, .. } = parts;
    let place = |member: &Member| {
        names::ORDER.iter().position(|name| **name == *member.name).unwrap_or(names::ORDER.len())
    };
    members.sort_by_key(place);
    let mut gateway = Vec::new();
    gateway.extend(name.map(|name| Member::new("name", name)));
    gateway.extend(own.map(|own| Member::new("holdfast", own)));
    gateway.push(Member::new("properties", Item::new(Value::object(members))));
    Item { value: Value::object(gateway), ..*written }
}

/// An object whose members may be spread over itself and its `properties`.
#[derive(Default)]
struct Parts {
    name: Option<Item>,
    own: Option<Item>,
    members: Vec<Member>,
    /// Names of the members: a hostile object has a million.
    names: HashSet<String>,
}

// === impl Parts ===

impl Parts {
    fn open(&mut self, written: &Item, path: &str, is_root: bool, findings: &mut Findings) {
        let wrapped = written.get("properties");
        if let Some(item) =
            wrapped.filter(|it| !it.is_absent() && !matches!(it.value, Value::Object(_)))
        {
            // Nothing is known of it, or it is wrong; either must be seen at the end.
            self.members.push(Member::new("properties", item.clone()));
        }
        let inside = wrapped.map_or(&[][..], Item::members);
        for member in written.members().iter().chain(inside) {
            self.add(member, path, is_root, findings);
        }
    }

    fn add(&mut self, member: &Member, path: &str, is_root: bool, findings: &mut Findings) {
        let Member { name, item } = member;
        let name = names::spelled(name);
        let absent = item.is_absent();
        if name == "properties" || absent {
            return;
        }
        match name {
            "name" if self.name.is_none() => self.name = Some(item.clone()),
            "name" => {}
            "holdfast" => self.own = Some(value(item, "", Keep::All, findings)),
            _ if names::is_envelope(name) => {}
            _ if is_list_of_references(name, item) && !is_root => {}
            _ => {
                if let Some((name, why)) = names::left_out(name) {
                    let path = format!("{path}properties.{name}");
                    leave_out(name, item, &path, why, findings);
                    return;
                }
                let path = format!("{path}properties.{name}");
                if !self.names.insert(name.to_ascii_lowercase()) {
                    findings.add(
                        FindingKind::Error,
                        &path,
                        (item.line, item.column),
                        format!("{name:?} is given twice"),
                        "keep one of them",
                    );
                    return;
                }
                let item = if names::is_wrapped(name) && is_list_of_objects(item) {
                    children(item, &path, findings)
                } else {
                    value(item, &path, Keep::Present, findings)
                };
                self.members.push(Member::new(name, item));
            }
        }
    }
}

fn leave_out(name: &str, item: &Item, path: &str, why: &str, findings: &mut Findings) {
    let off = item.get("enabled").is_some_and(|it| match &it.value {
        Value::Bool(value) => !value,
        Value::Text(text) => text.eq_ignore_ascii_case("false"),
        _ => false,
    });
    let is_off = off || matches!(item.value, Value::Bool(false));
    if !is_off {
        let place = (item.line, item.column);
        findings.add(FindingKind::LeftOut, path, place, format!("{name} has no effect here"), why);
    }
}

/// `[{"id": …}, …]`
fn is_references(item: &Item) -> bool {
    let bare = |it: &Item| {
        it.get("id").is_some() && it.get("name").is_none() && it.get("properties").is_none()
    };
    matches!(&item.value, Value::List(entries) if entries.iter().all(bare))
}

/// A list of who refers to an entry, as Azure writes it; a list of roots for a backend is none.
fn is_list_of_references(name: &str, item: &Item) -> bool {
    names::is_back_reference(name) && is_references(item)
}

fn is_list_of_objects(item: &Item) -> bool {
    let objects = |it: &Item| matches!(it.value, Value::Object(_) | Value::Null);
    // References may stand in a list by the same name as a collection: a setting's trusted roots.
    matches!(&item.value, Value::List(entries) if entries.iter().all(objects))
        && !is_references(item)
}

fn children(list: &Item, path: &str, findings: &mut Findings) -> Item {
    let mut entries = Vec::new();
    for child in list.entries().iter().filter(|child| !matches!(child.value, Value::Null)) {
        let path = format!("{path}[{}].", entries.len());
        let mut parts = Parts::default();
        parts.open(child, &path, false, findings);
        let Parts { name, own, members, .. } = parts;
        let mut made = Vec::new();
        made.extend(name.map(|name| Member::new("name", name)));
        made.extend(own.map(|own| Member::new("holdfast", own)));
        let properties = Item { value: Value::object(members), ..*child };
        made.push(Member::new("properties", properties));
        entries.push(Item { value: Value::object(made), ..*child });
    }
    Item { value: Value::list(entries), ..*list }
}

/// What counts as absent inside of a value.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    /// Null and empty things are absent.
    Present,
    /// Only null is: an empty header value means to delete the header.
    All,
}

fn value(item: &Item, path: &str, keep: Keep, findings: &mut Findings) -> Item {
    let made = match &item.value {
        Value::Object(members) => {
            let mut made: Vec<Member> = Vec::new();
            let mut known = HashSet::new();
            for member in members.iter() {
                let name = names::spelled(&member.name);
                let absent = match keep {
                    Keep::Present => member.item.is_absent(),
                    Keep::All => matches!(member.item.value, Value::Null),
                };
                if absent || name.eq_ignore_ascii_case("resourceGroup") {
                    continue;
                }
                let path = format!("{path}.{name}");
                if !known.insert(name.to_ascii_lowercase()) {
                    let place = (member.item.line, member.item.column);
                    let reason = format!("{name:?} is given twice");
                    findings.add(FindingKind::Error, &path, place, reason, "keep one of them");
                    continue;
                }
                made.push(Member::new(name, value(&member.item, &path, keep, findings)));
            }
            Value::object(made)
        }
        Value::List(entries) => {
            let keep = if path.ends_with(".rewriteRules") { Keep::All } else { keep };
            let entries = entries.iter().filter(|entry| !matches!(entry.value, Value::Null));
            let made = entries
                .zip(0..)
                .map(|(entry, at)| value(entry, &format!("{path}[{at}]"), keep, findings));
            Value::list(made.collect())
        }
        other => other.clone(),
    };
    Item { value: made, ..*item }
}
