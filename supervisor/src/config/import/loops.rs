//! `copy`: loops of resources, of properties and of variables. A loop never runs more often than Azure lets it.

use super::context::Fault;
use super::item::{Item, Value};
use super::scope::member;
use crate::config::json::{Node, Value as Json};

/// Azure's limit for the rounds of any loop.
const ROUNDS: i64 = 800;

/// A loop whose rounds make a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loop<'a> {
    pub(super) name: &'a str,
    pub(super) count: &'a Node,
    /// Absent in a resource's loop: there it is the resource itself.
    pub(super) input: Option<&'a Node>,
}

/// What an expression may ask for beside its template: the round of a loop, a lambda's variable.
#[derive(Debug)]
pub(super) struct Frame<'e> {
    pub(super) kind: FrameKind,
    pub(super) outer: Option<&'e Frame<'e>>,
}

/// See [`Frame`].
#[derive(Debug)]
pub(super) enum FrameKind {
    Round { name: String, index: i64, of_resource: bool },
    Lambda { name: String, value: Item },
}

// === impl Loop ===

impl<'a> Loop<'a> {
    /// Reads one.
    pub(super) fn read(node: &'a Node) -> Option<Self> {
        let name = member(node, "name").and_then(super::scope::text).unwrap_or_default();
        Some(Self { name, count: member(node, "count")?, input: member(node, "input") })
    }

    /// The loops of a member `copy` of an object, if it is one that holds them.
    pub(super) fn list(name: &str, node: &'a Node) -> Option<Vec<Self>> {
        let Json::List(entries) = &node.value else { return None };
        if !name.eq_ignore_ascii_case("copy") || entries.is_empty() {
            return None;
        }
        let loops: Option<Vec<_>> = entries.iter().map(Self::read).collect();
        loops.filter(|loops| loops.iter().all(|it| it.input.is_some() && !it.name.is_empty()))
    }

    /// How many rounds a count means.
    pub(super) fn rounds(&self, count: &Item) -> Result<i64, Fault> {
        let number = match &count.value {
            Value::Int(number) => *number,
            Value::Text(text) => text.trim().parse().unwrap_or(-1),
            _ => -1,
        };
        if (0..=ROUNDS).contains(&number) {
            return Ok(number);
        }
        let written = match &count.value {
            Value::Int(number) => number.to_string(),
            other => other.kind().to_owned(),
        };
        Err(Fault::new(
            format!("the loop {:?} counts to {written}", self.name),
            format!("let it count to a number from 0 to {ROUNDS}, as in Azure"),
        ))
    }
}

// === impl Frame ===

impl<'e> Frame<'e> {
    /// This frame and those around it, from inside to outside.
    fn chain(&'e self) -> impl Iterator<Item = &'e FrameKind> {
        std::iter::successors(Some(self), |frame| frame.outer).map(|frame| &frame.kind)
    }

    /// The round of the loop of that name; without a name of the nearest resource's.
    pub(super) fn round(&'e self, wanted: Option<&str>) -> Option<i64> {
        let rounds = || {
            self.chain().filter_map(|kind| match kind {
                FrameKind::Round { name, index, of_resource } => Some((name, *index, *of_resource)),
                FrameKind::Lambda { .. } => None,
            })
        };
        let found = match wanted {
            Some(wanted) => rounds().find(|(name, ..)| name.eq_ignore_ascii_case(wanted)),
            None => rounds().find(|(.., of_resource)| *of_resource).or_else(|| rounds().next()),
        };
        found.map(|(_, index, _)| index)
    }

    /// A lambda's variable.
    pub(super) fn variable(&'e self, wanted: &str) -> Option<Item> {
        self.chain().find_map(|kind| match kind {
            FrameKind::Lambda { name, value } if name.eq_ignore_ascii_case(wanted) => {
                Some(value.clone())
            }
            _ => None,
        })
    }
}
