//! One object of a document, whichever of Azure's shapes it has: `{name, properties}`, bare properties or
//! flattened. Names and words are matched without regard to case, numbers and booleans may be strings, null is
//! absence. What nobody asked for is reported, never dropped in silence.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::json::{Member, Node, Value};
#[cfg(test)]
use super::questions::{self, Question};
use super::reference::Reference;
use super::report::{Place, Report};
use super::spelling;

/// What Azure and its tools add to any object, without effect on traffic.
const EXTRAS: &[&str] = &[
    "id",
    "name",
    "type",
    "etag",
    "resourceGroup",
    "provisioningState",
    "operationalState",
    "resourceGuid",
    "location",
    "tags",
    "zones",
    "identity",
    "apiVersion",
    "dependsOn",
    "comments",
    "$schema",
    "$comment",
    "properties",
    "subscriptionId",
    "kind",
    "managedBy",
    "scope",
    "systemData",
];

/// One object's members, those of its `properties` among them.
pub(super) struct Shape<'a> {
    pub(super) place: Place,
    fields: Vec<Field<'a>>,
}

struct Field<'a> {
    name: &'a str,
    node: &'a Node,
    place: Place,
    asked: Cell<bool>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

// === impl Shape ===

impl<'a> Shape<'a> {
    /// Opens a node that should be an object; reports when it is not.
    pub(super) fn open(node: &'a Node, place: Place, report: &mut Report) -> Option<Self> {
        let Value::Object(members) = &node.value else {
            report.error(
                &place,
                format!("{} stands where an object should", node.value.kind()),
                "write {…}",
            );
            return None;
        };
        let mut shape = Self { place, fields: Vec::new() };
        let at = shape.place.clone();
        shape.add(members, &at, report);
        let wrapped = members.iter().find(|m| m.name.eq_ignore_ascii_case("properties"));
        if let Some(Member { name, line, column, value }) = wrapped {
            let at = at.member(name, *line, *column);
            match &value.value {
                Value::Object(members) => shape.add(members, &at, report),
                Value::Null => {}
                other => {
                    report.error(&at, format!("properties is {}", other.kind()), "write {…}");
                }
            }
        }
        Some(shape)
    }

    fn add(&mut self, members: &'a [Member], at: &Place, report: &mut Report) {
        // Not by comparing each with each: a hostile object has a million members.
        let mut lines: HashMap<String, u32> = HashMap::new();
        for member in members {
            let place = at.member(&member.name, member.line, member.column);
            let given = lines.insert(member.name.to_ascii_lowercase(), member.line);
            if let Some(line) = given {
                report.error(
                    &place,
                    format!(
                        "{:?} is given twice in one object, before that on line {}",
                        member.name, line
                    ),
                    "keep one of them",
                );
                continue;
            }
            let asked = Cell::new(false);
            self.fields.push(Field { name: &member.name, node: &member.value, place, asked });
        }
    }

    /// A member that is not null.
    pub(super) fn get(&self, name: &str) -> Option<(&'a Node, &Place)> {
        #[cfg(test)]
        questions::note(&self.place, name, Question::Known);
        self.find(name)
    }

    /// The same for a member that somebody knows of, but does not read.
    fn find(&self, name: &str) -> Option<(&'a Node, &Place)> {
        #[cfg(test)]
        questions::note(&self.place, name, Question::Passed);
        let mut found = None;
        for field in self.fields.iter().filter(|f| f.name.eq_ignore_ascii_case(name)) {
            field.asked.set(true);
            if field.node.value != Value::Null {
                found = Some((field.node, &field.place));
            }
        }
        found
    }

    /// Where a member stands, or the object itself when it has none such.
    pub(super) fn place_of(&self, name: &str) -> &Place {
        let found = self.fields.iter().find(|f| f.name.eq_ignore_ascii_case(name));
        found.map_or(&self.place, |f| &f.place)
    }

    /// Whether a member is there and says something: not null, false, an empty text, list or object.
    pub(super) fn says(&self, name: &str) -> bool {
        self.find(name).is_some_and(|(node, _)| match &node.value {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Number(_) => true,
            Value::Text(text) => !text.is_empty() && !text.eq_ignore_ascii_case("false"),
            Value::List(entries) => !entries.is_empty(),
            Value::Object(members) => !members.is_empty(),
        })
    }

    /// A text that is not empty; numbers and booleans count as their spelling.
    pub(super) fn text(&self, name: &str, report: &mut Report) -> Option<Placed<String>> {
        let (node, place) = self.get(name)?;
        let value = match &node.value {
            Value::Text(text) | Value::Number(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            other => {
                report.error(
                    place,
                    format!("{} stands where a string should", other.kind()),
                    "write \"…\"",
                );
                return None;
            }
        };
        (!value.trim().is_empty()).then(|| Placed { value, place: place.clone() })
    }

    /// A whole number within a range. `Err`: given, but wrong, and reported.
    pub(super) fn number(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        report: &mut Report,
    ) -> Result<Option<u64>, ()> {
        #[cfg(test)]
        questions::note(&self.place, name, Question::Number(*range.start(), *range.end()));
        let Some((node, place)) = self.get(name) else { return Ok(None) };
        let number = match &node.value {
            Value::Number(text) => whole(text),
            Value::Text(text) if text.trim().is_empty() => return Ok(None),
            Value::Text(text) => whole(text.trim()),
            _ => None,
        };
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return Ok(Some(number));
        }
        let reason = match &node.value {
            Value::Number(text) if number.is_some() || text.starts_with('-') => {
                format!("{text:.40} is out of range for {name}")
            }
            Value::Text(text) if number.is_some() => {
                format!("{text:.40} is out of range for {name}")
            }
            Value::Number(text) => format!("{text:.40} is not a whole number"),
            Value::Text(text) => format!("{text:.40?} is not a whole number"),
            other => format!("{} stands where a number should", other.kind()),
        };
        let mend = format!("write a whole number from {} to {}", range.start(), range.end());
        report.error(place, reason, mend);
        Err(())
    }

    /// A boolean, `default` when absent or wrong (and then reported).
    pub(super) fn flag(&self, name: &str, default: bool, report: &mut Report) -> bool {
        #[cfg(test)]
        questions::note(&self.place, name, Question::Flag(default));
        let Some((node, place)) = self.get(name) else { return default };
        match &node.value {
            Value::Bool(value) => *value,
            Value::Text(text) if text.trim().is_empty() => default,
            Value::Text(text) if text.trim().eq_ignore_ascii_case("true") => true,
            Value::Text(text) if text.trim().eq_ignore_ascii_case("false") => false,
            other => {
                let reason = format!("{} is neither true nor false", other.kind());
                report.error(place, reason, "write true or false");
                default
            }
        }
    }

    /// One of Azure's words, spelled as in `words`. `Err`: given, but none of them, and reported.
    pub(super) fn word(
        &self,
        name: &str,
        words: &[&'static str],
        report: &mut Report,
    ) -> Result<Option<&'static str>, ()> {
        #[cfg(test)]
        questions::note(&self.place, name, Question::Word(words.to_vec()));
        let Some((node, _)) = self.get(name) else { return Ok(None) };
        let Some(text) = self.text(name, report) else {
            // An empty text is absence; a list or an object has been reported.
            let empty = matches!(node.value, Value::Text(_));
            return if empty { Ok(None) } else { Err(()) };
        };
        let spelled = text.value.trim();
        if let Some(word) = words.iter().find(|word| word.eq_ignore_ascii_case(spelled)) {
            return Ok(Some(word));
        }
        report.error(
            &text.place,
            format!("{spelled:.80?} is none of the values that {name} knows here"),
            format!("write {}", words.join(" or ")),
        );
        Err(())
    }

    /// The entries of a list; empty when absent.
    pub(super) fn list(&self, name: &str, report: &mut Report) -> Vec<(&'a Node, Place)> {
        #[cfg(test)]
        questions::note(&self.place, name, Question::List);
        let Some((node, place)) = self.get(name) else { return Vec::new() };
        let Value::List(entries) = &node.value else {
            report.error(
                place,
                format!("{} stands where a list should", node.value.kind()),
                "write […]",
            );
            return Vec::new();
        };
        let placed = entries.iter().enumerate();
        placed.map(|(i, entry)| (entry, place.entry(i, entry.line, entry.column))).collect()
    }

    /// Entries of a list of objects.
    pub(super) fn shapes(&self, name: &str, report: &mut Report) -> Vec<Shape<'a>> {
        let entries = self.list(name, report);
        entries.into_iter().filter_map(|(node, place)| Shape::open(node, place, report)).collect()
    }

    /// An object inside this one.
    pub(super) fn inner(&self, name: &str, report: &mut Report) -> Option<Shape<'a>> {
        #[cfg(test)]
        questions::note(&self.place, name, Question::Object);
        let (node, place) = self.get(name)?;
        Shape::open(node, place.clone(), report)
    }

    /// `{"id": …}`.
    pub(super) fn reference(&self, name: &str, report: &mut Report) -> Option<Reference> {
        let inner = self.inner(name, report)?;
        let id = inner.text("id", report);
        if id.is_none() {
            report.error(&inner.place, "the reference has no id", "write {\"id\": \"…/NAME\"}");
        }
        id.map(|Placed { value, place }| Reference { id: value, place })
    }

    /// A list of `{"id": …}`.
    pub(super) fn references(&self, name: &str, report: &mut Report) -> Vec<Reference> {
        let shapes = self.shapes(name, report);
        let ids = shapes.iter().filter_map(|shape| shape.text("id", report));
        ids.map(|Placed { value, place }| Reference { id: value, place }).collect()
    }

    /// Members that have words in Azure, but no effect here and none that anybody would miss.
    pub(super) fn pass_over(&self, names: &[&str]) {
        for name in names {
            self.find(name);
        }
    }

    /// A member whose absence of effect a person could miss.
    pub(super) fn no_effect(&self, name: &str, mend: &str, report: &mut Report) {
        if self.says(name) {
            let reason = format!("{name} has no effect yet in this version");
            report.warn(self.place_of(name), reason, mend);
        }
    }

    /// Reports members that nobody asked for. Call it last.
    pub(super) fn finish(&self, report: &mut Report) {
        let known: Vec<&str> =
            self.fields.iter().filter(|f| f.asked.get()).map(|f| f.name).collect();
        for field in self.fields.iter().filter(|f| !f.asked.get() && f.node.value != Value::Null) {
            if EXTRAS.iter().any(|extra| extra.eq_ignore_ascii_case(field.name)) {
                continue;
            }
            let asked = |hint: &str| known.iter().any(|name| name.eq_ignore_ascii_case(hint));
            let near = if report.is_full() {
                None
            } else {
                spelling::known(field.name, |hint| !asked(hint))
            };
            let mend = match near {
                Some(near) if near.eq_ignore_ascii_case(field.name) => {
                    "it has its meaning elsewhere; move it or remove it".to_owned()
                }
                Some(near) => format!("did you mean {near:?}?"),
                None => "remove it, or check its spelling".to_owned(),
            };
            report.warn(
                &field.place,
                format!("{:?} is not known here and has no effect", field.name),
                mend,
            );
        }
    }
}

/// A whole number, also when written as `30.0` or `3e1`.
fn whole(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse::<u64>() {
        return Some(number);
    }
    let digits = text.strip_suffix(".0").unwrap_or(text);
    digits.parse().ok()
}
