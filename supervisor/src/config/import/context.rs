//! What an import keeps track of while it evaluates: what it must ask for, what went wrong, which texts it made up, and
//! how much work is left. Without the last, a few lines of a hostile template would never end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::given::Given;
use super::item::{CLOSE, Item, OPEN, Value, holes};
use super::linked::Library;

/// Values looked at and made; the largest real templates need a few thousand.
const STEPS: u64 = 1_000_000;
/// Expressions in variables in parameters in deployments. The stack is made for it, see `import`.
const DEEPEST: u32 = 200;
/// More open places than this nobody fills.
const ASKS: usize = 10_000;
/// Misspelled names that are answered with the near one; to look for it takes long.
const SUGGESTIONS: u32 = 20;
/// Texts of our own making that are looked for in the result.
const MADE: usize = 100;

/// Why something cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Fault {
    pub(super) reason: String,
    pub(super) mend: String,
}

/// A value that only the caller can give.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// What `--set` calls it.
    pub(super) name: String,
    /// What it is.
    pub(super) why: String,
    /// Nothing that could be given: an expression that cannot be evaluated.
    pub(super) fault: Option<Fault>,
}

/// The state of one import.
#[derive(Debug)]
pub(super) struct Context<'g> {
    pub(super) given: &'g Given,
    pub(super) library: Library,
    asks: RefCell<Vec<Ask>>,
    positions: RefCell<HashMap<String, usize>>,
    made: RefCell<Vec<String>>,
    steps: Cell<u64>,
    depth: Cell<u32>,
    suggestions: Cell<u32>,
    /// The first limit that was met: what comes after it is not to be relied on.
    limit: RefCell<Option<Fault>>,
}

/// One level of nesting, until it is dropped.
pub(super) struct Level<'c>(&'c Cell<u32>);

// === impl Fault ===

impl Fault {
    pub(super) fn new(reason: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { reason: reason.into(), mend: mend.into() }
    }
}

// === impl Context ===

impl<'g> Context<'g> {
    pub(super) fn new(given: &'g Given) -> Self {
        Self {
            given,
            library: Library::default(),
            asks: RefCell::default(),
            positions: RefCell::default(),
            made: RefCell::default(),
            steps: Cell::new(STEPS),
            depth: Cell::new(0),
            suggestions: Cell::new(SUGGESTIONS),
            limit: RefCell::default(),
        }
    }

    /// Pays for work; in vain once too much was done.
    pub(super) fn spend(&self, steps: usize) -> Result<(), Fault> {
        let left = self.steps.get().checked_sub(u64::try_from(steps).unwrap_or(u64::MAX));
        self.steps.set(left.unwrap_or(0));
        match left {
            Some(_) => Ok(()),
            None => Err(self.limited(
                format!("the template takes more than {STEPS} steps to evaluate"),
                "take out what multiplies: loops in loops, variables that repeat one another",
            )),
        }
    }

    fn limited(&self, reason: String, mend: &str) -> Fault {
        self.limit.borrow_mut().get_or_insert_with(|| Fault::new(reason, mend)).clone()
    }

    /// The limit that was met, if one was.
    pub(super) fn limit(&self) -> Option<Fault> {
        self.limit.borrow().clone()
    }

    /// One level deeper, while the result lives.
    pub(super) fn deeper(&self) -> Result<Level<'_>, Fault> {
        if self.depth.get() >= DEEPEST {
            return Err(self.limited(
                format!(
                    "expressions, variables and deployments are nested more than {DEEPEST} deep"
                ),
                "write some of them out",
            ));
        }
        self.depth.set(self.depth.get() + 1);
        Ok(Level(&self.depth))
    }

    /// Whether a misspelled name may be thought about.
    pub(super) fn may_suggest(&self) -> bool {
        let left = self.suggestions.get();
        self.suggestions.set(left.saturating_sub(1));
        left > 0
    }

    /// What was given under a name, or a hole for it.
    pub(super) fn ask(&self, name: &str, why: impl FnOnce() -> String) -> Item {
        match self.given.any(name) {
            Some(given) => given,
            None => self.hole(name, why),
        }
    }

    /// A hole for something that is known not to be given.
    pub(super) fn hole(&self, name: &str, why: impl FnOnce() -> String) -> Item {
        let key = name.to_ascii_lowercase();
        let known = self.positions.borrow().get(&key).copied();
        let position = known.unwrap_or_else(|| {
            let ask = Ask { name: name.to_owned(), why: why(), fault: None };
            self.add(key, ask)
        });
        Item::new(hole(position))
    }

    /// A hole that nothing fills.
    pub(super) fn broken(&self, fault: Fault) -> Item {
        let key = format!("\0{}", fault.reason);
        let known = self.positions.borrow().get(&key).copied();
        let position = known.unwrap_or_else(|| {
            self.add(key, Ask { name: String::new(), why: String::new(), fault: Some(fault) })
        });
        Item::new(hole(position))
    }

    fn add(&self, key: String, ask: Ask) -> usize {
        let mut asks = self.asks.borrow_mut();
        if asks.len() >= ASKS {
            return asks.len() - 1;
        }
        asks.push(ask);
        self.positions.borrow_mut().insert(key, asks.len() - 1);
        asks.len() - 1
    }

    /// What belongs into a hole.
    pub(super) fn asked(&self, position: usize) -> Option<Ask> {
        self.asks.borrow().get(position).cloned()
    }

    /// A text with its holes shown as `<name>`.
    pub(super) fn shown(&self, text: &str) -> String {
        let mut shown = String::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once(OPEN) {
            shown.push_str(before);
            let (number, after) = from.split_once(CLOSE).unwrap_or((from, ""));
            let ask = number.parse().ok().and_then(|number| self.asked(number));
            let name = ask.map(|ask| ask.name).filter(|name| !name.is_empty());
            shown.push_str(&name.map_or("<?>".to_owned(), |name| format!("<{name}>")));
            rest = after;
        }
        shown.push_str(rest);
        shown.replace(CLOSE, "<?>")
    }

    /// A part of a value that is not known: known as little, unless that part itself was given.
    pub(super) fn part(&self, of: &str, part: &str) -> Item {
        if let ([Some(number)], false) = (holes(of).0.as_slice(), holes(of).1)
            && let Some(Ask { name, why, fault: None }) = self.asked(*number)
        {
            return self.ask(&format!("{name}{part}"), || why);
        }
        Item::new(poison([of].into_iter()))
    }

    /// Keeps a text that Azure would have made otherwise.
    pub(super) fn makes(&self, text: &str) {
        let mut made = self.made.borrow_mut();
        let known = made.iter().any(|made| text.contains(made.as_str()));
        if made.len() < MADE && text.len() >= 3 && !known {
            made.push(text.to_owned());
        }
    }

    /// Whether a text holds one that Azure would have made otherwise.
    pub(super) fn is_made(&self, text: &str) -> bool {
        self.made.borrow().iter().any(|made| text.contains(made.as_str()))
    }
}

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

fn hole(position: usize) -> Value {
    Value::text(&format!("{OPEN}{position}{CLOSE}"))
}

/// Nothing but the holes of some texts: what is known of a value that depends on them.
pub(super) fn poison<'t>(texts: impl Iterator<Item = &'t str>) -> Value {
    let mut numbers: Vec<usize> = texts.flat_map(|text| holes(text).0).flatten().collect();
    numbers.sort_unstable();
    numbers.dedup();
    let text: Vec<String> = numbers.iter().map(|number| format!("{OPEN}{number}{CLOSE}")).collect();
    let text = text.concat();
    // Holes that were cut to pieces only: still no value.
    Value::text(if text.is_empty() { "\u{fdd0}" } else { &text })
}
