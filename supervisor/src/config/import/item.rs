//! Values while a document is imported: JSON that remembers the line it came from, is cheap to copy, and may hold
//! places that nobody has filled yet. Such a hole is part of a text, so that `concat` and its kind work around it.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use serde_json::{Map, Number};

use super::context::{Context, Fault};
use crate::config::json::{Node, Value as Json};

/// Around the number of an [`Ask`](super::context::Ask) in a text. Unicode reserves both for use inside of a program;
/// texts from outside never hold them, see [`text_of`].
pub(super) const OPEN: char = '\u{fdd0}';
pub(super) const CLOSE: char = '\u{fdd1}';

/// Levels of a value, and units of 16 bytes in it: of more than this no document is made.
const LEVELS: u32 = 100;
const SIZE: u64 = 1_000_000;

/// A value and the line of the source that it comes from; 0: computed.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// JSON, shared: a copy of a list costs as much as one of a number.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// Not a whole number, or too large for one; as written.
    Number(Rc<str>),
    Text(Rc<str>),
    List(Rc<Nest<Item>>),
    Object(Rc<Nest<Member>>),
}

/// Entries or members, and how much all of it is when it is written out: shared parts make that much more than what is
/// in memory, and whoever walks through it must not meet more than fits.
#[derive(Clone, Debug)]
pub(super) struct Nest<T> {
    all: Vec<T>,
    levels: u32,
    size: u64,
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: Rc<str>,
    pub(super) item: Item,
}

// === impl Item ===

impl Item {
    /// A value that stands nowhere.
    pub(super) fn new(value: Value) -> Self {
        Self { value, line: 0, column: 0 }
    }

    pub(super) fn text(text: &str) -> Self {
        Self::new(Value::text(text))
    }

    /// A value as it stands, no expression in it evaluated.
    pub(super) fn literal(node: &Node) -> Self {
        let value = match &node.value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(text) => Value::number(text),
            Json::Text(text) => Value::Text(text_of(text)),
            Json::List(entries) => Value::list(entries.iter().map(Self::literal).collect()),
            Json::Object(members) => Value::object(
                members.iter().map(|m| Member::new(&m.name, Self::literal(&m.value))).collect(),
            ),
        };
        Self { value, line: node.line, column: node.column }
    }

    /// The same value, which stands there unless it already stands somewhere.
    pub(super) fn at(mut self, line: u32, column: u32) -> Self {
        if self.line == 0 {
            (self.line, self.column) = (line, column);
        }
        self
    }

    /// A member by its name in any case.
    pub(super) fn get(&self, name: &str) -> Option<&Item> {
        self.members().iter().find(|m| m.name.eq_ignore_ascii_case(name)).map(|m| &m.item)
    }

    /// A member that is a text with something in it.
    pub(super) fn word(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Item::as_text).filter(|text| !text.trim().is_empty())
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn members(&self) -> &[Member] {
        match &self.value {
            Value::Object(members) => members,
            _ => &[],
        }
    }

    pub(super) fn entries(&self) -> &[Item] {
        match &self.value {
            Value::List(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Item> {
        let found = self.members_mut().iter_mut();
        found.into_iter().find(|m| m.name.eq_ignore_ascii_case(name)).map(|m| &mut m.item)
    }

    pub(super) fn members_mut(&mut self) -> &mut [Member] {
        match &mut self.value {
            Value::Object(members) => &mut Rc::make_mut(members).all,
            _ => &mut [],
        }
    }

    pub(super) fn entries_mut(&mut self) -> &mut [Item] {
        match &mut self.value {
            Value::List(entries) => &mut Rc::make_mut(entries).all,
            _ => &mut [],
        }
    }

    /// Sets a member of an object.
    pub(super) fn set(&mut self, name: &str, item: Item) {
        if let Some(known) = self.get_mut(name) {
            *known = item;
        } else if let Value::Object(members) = &mut self.value {
            Rc::make_mut(members).push(Member::new(name, item));
        }
    }

    /// Takes a member out of an object.
    pub(super) fn remove(&mut self, name: &str) -> Option<Item> {
        let Value::Object(members) = &mut self.value else { return None };
        let at = members.iter().position(|m| m.name.eq_ignore_ascii_case(name))?;
        Some(Rc::make_mut(members).remove(at).item)
    }

    /// Keeps the entries of a list for which `keep` holds.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Item) -> bool) {
        if let Value::List(entries) = &mut self.value {
            Rc::make_mut(entries).retain(keep);
        }
    }

    /// Null, or an empty text or list: what Azure's documents write for absence.
    pub(super) fn is_absent(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Text(text) => text.trim().is_empty(),
            Value::List(entries) => entries.is_empty(),
            _ => false,
        }
    }

    pub(super) fn has_hole(&self) -> bool {
        self.as_text().is_some_and(|text| text.contains([OPEN, CLOSE]))
    }

    /// As JSON; `hole` gives the text that stands for an open place.
    pub(super) fn to_json(&self, hole: &dyn Fn(&str) -> String) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Number(text) => text
                .parse::<f64>()
                .ok()
                .and_then(Number::from_f64)
                .map_or(serde_json::Value::Null, serde_json::Value::Number),
            Value::Text(text) if self.has_hole() => hole(text).into(),
            Value::Text(text) => (**text).into(),
            Value::List(entries) => entries.iter().map(|entry| entry.to_json(hole)).collect(),
            Value::Object(members) => {
                let members = members.iter().map(|m| (m.name.to_string(), m.item.to_json(hole)));
                serde_json::Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

// === impl Value ===

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn list(entries: Vec<Item>) -> Self {
        match Nest::new(entries, |entry| entry) {
            Some(nest) => Self::List(Rc::new(nest)),
            None => Self::too_much(),
        }
    }

    pub(super) fn object(members: Vec<Member>) -> Self {
        match Nest::new(members, |member| &member.item) {
            Some(nest) => Self::Object(Rc::new(nest)),
            None => Self::too_much(),
        }
    }

    /// A hole without a number: it is told of where it is left.
    fn too_much() -> Self {
        Self::text("\u{fdd0}")
    }

    fn levels(&self) -> u32 {
        match self {
            Self::List(nest) => nest.levels,
            Self::Object(nest) => nest.levels,
            _ => 0,
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::List(nest) => nest.size,
            Self::Object(nest) => nest.size,
            Self::Text(text) | Self::Number(text) => {
                1 + u64::try_from(text.len() / 16).unwrap_or(SIZE)
            }
            _ => 1,
        }
    }

    pub(super) fn number(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Number(text.into()), Self::Int)
    }

    /// For people: what kind of value this is.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// Equality as templates see it: deep, lines and the order of members aside.
    pub(super) fn same(&self, other: &Self, context: &Context<'_>) -> Result<bool, Fault> {
        Ok(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Number(a), Self::Number(b)) | (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                context.spend(1 + a.len())?;
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.value.same(&b.value, context)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Object(a), Self::Object(b)) => {
                context.spend(1 + a.len().saturating_mul(b.len()))?;
                if a.len() != b.len() {
                    return Ok(false);
                }
                for member in a.iter() {
                    let other = b.iter().find(|o| o.name.eq_ignore_ascii_case(&member.name));
                    let Some(other) = other else { return Ok(false) };
                    if !member.item.value.same(&other.item.value, context)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }
}

// === impl Nest ===

impl<T> Nest<T> {
    /// `None`: it is too much.
    fn new(all: Vec<T>, item: impl Fn(&T) -> &Item) -> Option<Self> {
        let levels = all.iter().map(|it| item(it).value.levels()).max().unwrap_or(0) + 1;
        let size = all.iter().map(|it| item(it).value.size());
        let size = size.fold(1, u64::saturating_add);
        (levels <= LEVELS && size <= SIZE).then_some(Self { all, levels, size })
    }
}

impl<T> Deref for Nest<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.all
    }
}

impl<T> DerefMut for Nest<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.all
    }
}

// === impl Member ===

impl Member {
    pub(super) fn new(name: &str, item: Item) -> Self {
        Self { name: name.into(), item }
    }
}

/// A text from outside, which cannot pass for one with holes.
pub(super) fn text_of(text: &str) -> Rc<str> {
    if text.contains([OPEN, CLOSE]) {
        text.replace([OPEN, CLOSE], "\u{fffd}").into()
    } else {
        text.into()
    }
}

/// The numbers of the holes in a text, and whether anything else stands there. A hole that a function has cut in two is
/// one without a number.
pub(super) fn holes(text: &str) -> (Vec<Option<usize>>, bool) {
    let mut found = Vec::new();
    let mut other = false;
    let mut rest = text;
    while let Some(at) = rest.find([OPEN, CLOSE]) {
        let (before, from) = rest.split_at(at);
        other |= !before.is_empty();
        let whole = from.strip_prefix(OPEN).and_then(|from| {
            let end = from.find([OPEN, CLOSE])?;
            let (number, after) = from.split_at(end);
            Some((number.parse().ok()?, after.strip_prefix(CLOSE)?))
        });
        if let Some((number, after)) = whole {
            found.push(Some(number));
            rest = after;
        } else {
            found.push(None);
            let mut chars = from.chars();
            chars.next();
            rest = chars.as_str();
        }
    }
    (found, other || !rest.is_empty())
}
