//! References between a gateway's children, written plainly: `/httpListeners/NAME`, as the collection and the entry spell
//! themselves. What an id says before its last two segments is of no use outside of Azure.

use std::collections::HashMap;

use super::item::{Item, Member, Value};
use super::names;
use crate::config::reference::{clean, last_two};

/// Names of entries, by collection and by the name in lower case.
type Entries = HashMap<String, HashMap<String, String>>;

/// Rewrites every reference that leads somewhere; others stay as they are, for the reader to complain of.
pub(super) fn plain(gateway: &mut Item) {
    let entries = entries(gateway);
    let Some(properties) = gateway.get_mut("properties") else { return };
    for member in properties.members_mut() {
        if names::is_wrapped(&member.name) {
            for child in member.item.entries_mut() {
                properties_of(child, &entries);
            }
        }
    }
}

fn properties_of(child: &mut Item, entries: &Entries) {
    let Some(properties) = child.get_mut("properties") else { return };
    for Member { name, item } in properties.members_mut() {
        if let Some(collection) = names::target(name) {
            rewrite(item, collection, entries);
            for reference in item.entries_mut() {
                rewrite(reference, collection, entries);
            }
        } else if names::is_wrapped(name) {
            for child in item.entries_mut() {
                properties_of(child, entries);
            }
        }
    }
}

fn rewrite(reference: &mut Item, collection: &str, entries: &Entries) {
    let Some(id) = reference.get("id").cloned() else { return };
    let Some(text) = id.as_text() else { return };
    if let Some(plain) = plain_id(text, collection, entries) {
        let place = Item { value: Value::text(&plain), ..id };
        reference.set("id", place);
    }
}

fn plain_id(id: &str, collection: &str, entries: &Entries) -> Option<String> {
    let (written, name) = last_two(id)?;
    if names::spelled(written) != collection {
        return None;
    }
    let known = entries.get(collection)?;
    let same = |name: &str| known.get(&name.to_lowercase());
    let found = same(name).or_else(|| same(clean(name)));
    found.map(|name| format!("/{collection}/{name}"))
}

fn entries(gateway: &Item) -> Entries {
    let mut entries = Entries::new();
    for Member { name, item } in gateway.get("properties").map_or(&[][..], Item::members) {
        if !names::is_wrapped(name) {
            continue;
        }
        let listed: &mut HashMap<_, _> = entries.entry(name.to_string()).or_default();
        for child in item.entries() {
            // A name with a hole is as good as any other: the same expression has the same hole.
            if let Some(name) = child.word("name") {
                listed.entry(name.to_lowercase()).or_insert_with(|| name.to_owned());
            }
        }
    }
    entries
}
