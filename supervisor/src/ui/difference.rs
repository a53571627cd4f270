//! What two revisions say differently: two effective configurations in, a list of changes out. Pure.
//!
//! Children are told apart by their names, as Azure does, so that one more pool is one change and not a shift of all that
//! follow. Secrets are no part of an effective configuration; what might be one all the same (where an error page comes
//! from, what is sent to backends in headers and queries, what is compared with what clients send) is not shown here, since
//! who may look at the page need not be who may change things.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

/// Changes that are listed; beyond that, how many more there are.
const MOST: usize = 400;
/// Longest value that is shown, characters.
const LONGEST: usize = 600;
/// In the place of what is not shown.
const HIDDEN: &str = "(not shown)";

/// A place that two revisions fill differently.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    path: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// The changes from one to the other, as the page gets them.
pub(super) fn between(before: &Value, after: &Value) -> Value {
    let mut changes = Vec::new();
    compare("", Some(before), Some(after), &mut changes);
    let more = changes.len().saturating_sub(MOST);
    let told: Vec<_> = changes.into_iter().take(MOST).map(Change::json).collect();
    json!({ "changes": told, "more": more })
}

/// The places that differ from one to the other, without what stands there: at most `most`, then how many more.
pub(crate) fn places(before: &Value, after: &Value, most: usize) -> Vec<String> {
    let mut changes = Vec::new();
    compare("", Some(before), Some(after), &mut changes);
    let more = changes.len().saturating_sub(most);
    let mut places: Vec<_> = changes.into_iter().take(most).map(|change| change.path).collect();
    if more > 0 {
        places.push(format!("{more} more"));
    }
    places
}

impl Change {
    fn json(self) -> Value {
        let key = self.path.rsplit('.').next().unwrap_or_default().to_owned();
        let hides = Hides::of(&self.path);
        let show = |value: Option<Value>| value.map(|value| shown(&key, value, hides));
        json!({ "path": self.path, "before": show(self.before), "after": show(self.after) })
    }
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            members(path, before, after, changes);
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            items(path, before, after, changes);
        }
        (before, after) => {
            let (before, after) = (before.cloned(), after.cloned());
            changes.push(Change { path: path.to_owned(), before, after });
        }
    }
}

fn members(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    changes: &mut Vec<Change>,
) {
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare(&path, before.get(key), after.get(key), changes);
    }
}

fn items(path: &str, before: &[Value], after: &[Value], changes: &mut Vec<Change>) {
    if let (Some(old), Some(new)) = (by_name(before), by_name(after)) {
        for (name, value) in &old {
            compare(&format!("{path}[{name}]"), Some(*value), new.get(name).copied(), changes);
        }
        for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            compare(&format!("{path}[{name}]"), None, Some(*value), changes);
        }
        if old.len() == new.len() && old.keys().eq(new.keys()) && order(before) != order(after) {
            let path = format!("{path} (order)");
            let (before, after) = (Some(order(before)), Some(order(after)));
            changes.push(Change { path, before, after });
        }
        return;
    }
    // Without names there is no telling which one became which: what is gone, and what has come.
    let gone = without(before, after);
    let come = without(after, before);
    let (gone, come) = if gone.is_empty() && come.is_empty() {
        (before.to_vec(), after.to_vec())
    } else {
        (gone, come)
    };
    let some = |items: Vec<Value>| (!items.is_empty()).then_some(Value::Array(items));
    changes.push(Change { path: path.to_owned(), before: some(gone), after: some(come) });
}

/// The items by their names, if each has one of its own.
fn by_name(items: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let mut named = BTreeMap::new();
    for item in items {
        named.insert(item.get("name")?.as_str()?, item);
    }
    (named.len() == items.len()).then_some(named)
}

fn order(items: &[Value]) -> Value {
    items.iter().filter_map(|item| item.get("name").cloned()).collect()
}

/// What is in `these` more often than in `those`. Lists may be long: a pool has thousands of backends.
fn without(these: &[Value], those: &[Value]) -> Vec<Value> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for item in those {
        *counts.entry(item.to_string()).or_default() += 1;
    }
    let mut left = Vec::new();
    for item in these {
        match counts.get_mut(&item.to_string()) {
            Some(count) if *count > 0 => *count -= 1,
            _ => left.push(item.clone()),
        }
    }
    left
}

/// Whether values of headers and patterns below a place are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hides {
    Values,
    Nothing,
}

impl Hides {
    /// What backends are sent may be a credential; what clients are sent is nobody's secret.
    fn of(path: &str) -> Self {
        if path.contains("requestHeaderConfigurations") { Self::Values } else { Self::Nothing }
    }

    /// What hides at a place hides below it, too.
    fn or(self, above: Self) -> Self {
        if self == Self::Values { self } else { above }
    }
}

/// A value as text, without what must not be seen.
fn shown(key: &str, value: Value, hides: Hides) -> String {
    let text = match redact(key, value, hides) {
        Value::String(text) => text,
        other => format!("{other:#}"),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn redact(key: &str, value: Value, hides: Hides) -> Value {
    match value {
        Value::Object(members) => {
            let compares = members.contains_key("variable");
            let inside = |(key, value): (String, Value)| {
                let hides = if compares { Hides::Values } else { Hides::of(&key).or(hides) };
                let value = redact(&key, value, hides);
                (key, value)
            };
            Value::Object(members.into_iter().map(inside).collect())
        }
        Value::Array(items) => items.into_iter().map(|item| redact(key, item, hides)).collect(),
        Value::String(text) => Value::String(match key {
            "customErrorPageUrl" | "path" => bare(&text),
            "modifiedQueryString" => HIDDEN.to_owned(),
            "headerValue" | "pattern" if hides == Hides::Values => HIDDEN.to_owned(),
            _ => text,
        }),
        other => other,
    }
}

/// A URL without who asks and without its query: either may be the key to what is there.
fn bare(url: &str) -> String {
    let (place, query) =
        url.split_once(['?', '#']).map_or((url, false), |(place, _)| (place, true));
    let place = match place.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            let user = if host.len() < authority.len() { "…@" } else { "" };
            format!("{scheme}://{user}{host}{path}")
        }
        None => place.to_owned(),
    };
    if query { format!("{place}?{HIDDEN}") } else { place }
}

#[cfg(test)]
mod tests;
