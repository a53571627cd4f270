//! Evaluates: a template's JSON with expressions in it becomes plain values. A string that cannot be evaluated becomes a
//! hole, not an end: most of a template has no meaning here, and only what is kept must be whole.

use super::context::{Context, Fault, poison};
use super::item::{CLOSE, Item, Member, OPEN, Value, text_of};
use super::loops::{Frame, FrameKind, Loop};
use super::parser::{self, Expression, Step, Target, Written};
use super::scope::{Scope, Source};
use crate::config::json::{Node, Value as Json};

/// Where an expression looks things up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Env<'e> {
    pub(super) scope: &'e Scope<'e>,
    pub(super) frame: Option<&'e Frame<'e>>,
}

// === impl Env ===

impl<'e> Env<'e> {
    pub(super) fn new(scope: &'e Scope<'e>) -> Self {
        Self { scope, frame: None }
    }
}

impl Context<'_> {
    /// A value with every expression in it evaluated and every loop run.
    pub(super) fn expand(&self, env: Env<'_>, node: &Node) -> Item {
        let found = self.deeper().and_then(|level| {
            self.spend(1)?;
            let found = self.expanded(env, node);
            drop(level);
            Ok(found)
        });
        found.unwrap_or_else(|fault| self.broken(fault)).at(node.line, node.column)
    }

    fn expanded(&self, env: Env<'_>, node: &Node) -> Item {
        match &node.value {
            Json::Text(text) => self.expand_text(env, text),
            Json::List(entries) => {
                let entries = entries.iter().map(|entry| self.expand(env, entry));
                Item::new(Value::list(entries.collect()))
            }
            Json::Object(members) => {
                let mut found = Vec::with_capacity(members.len());
                for member in members {
                    match Loop::list(&member.name, &member.value) {
                        Some(loops) => found.extend(
                            loops.into_iter().map(|it| Member::new(it.name, self.run(env, it))),
                        ),
                        None => found.push(Member {
                            name: text_of(&member.name),
                            item: self.expand(env, &member.value),
                        }),
                    }
                }
                Item::new(Value::object(found))
            }
            _ => Item::literal(node),
        }
    }

    /// A string, which may be an expression.
    fn expand_text(&self, env: Env<'_>, text: &str) -> Item {
        match parser::written(text) {
            Written::Literal(text) => Item::new(Value::Text(text_of(text))),
            Written::Expression(inside) => {
                let found = self
                    .spend(inside.len() / 16)
                    .and_then(|()| parser::parse(inside))
                    .and_then(|expression| self.evaluate(env, &expression));
                found.unwrap_or_else(|fault| self.broken(fault))
            }
        }
    }

    /// Where a parameter or a variable comes from.
    pub(super) fn expand_source(&self, env: Env<'_>, source: Source<'_>) -> Item {
        match source {
            Source::Node(node) => self.expand(env, node),
            Source::Loop(it) => self.run(env, it),
        }
    }

    /// Runs a loop that makes a list.
    fn run(&self, env: Env<'_>, it: Loop<'_>) -> Item {
        let count = self.expand(env, it.count);
        if let Some(text) = count.as_text().filter(|_| count.has_hole()) {
            return Item::new(poison([text].into_iter()));
        }
        let rounds = match it.rounds(&count) {
            Ok(rounds) => rounds,
            Err(fault) => return self.broken(fault).at(it.count.line, it.count.column),
        };
        let mut entries = Vec::new();
        for index in 0..rounds {
            let kind = FrameKind::Round { name: it.name.to_owned(), index, of_resource: false };
            let frame = Frame { kind, outer: env.frame };
            if let Some(input) = it.input {
                entries.push(self.expand(Env { scope: env.scope, frame: Some(&frame) }, input));
            }
        }
        Item::new(Value::list(entries)).at(it.count.line, it.count.column)
    }

    /// An expression's value.
    pub(super) fn evaluate(&self, env: Env<'_>, expression: &Expression) -> Result<Item, Fault> {
        let _level = self.deeper()?;
        self.spend(1)?;
        Ok(match expression {
            Expression::Text(text) => Item::new(Value::Text(text_of(text))),
            Expression::Int(number) => Item::new(Value::Int(*number)),
            Expression::Bool(value) => Item::new(Value::Bool(*value)),
            Expression::Null => Item::new(Value::Null),
            Expression::Call(name, arguments) => self.call(env, name, arguments)?,
            Expression::Access(of, steps) => {
                let mut item = self.evaluate(env, of)?;
                for step in steps {
                    item = self.step(env, &item, step)?;
                }
                item
            }
        })
    }

    /// One step into a value.
    fn step(&self, env: Env<'_>, of: &Item, step: &Step) -> Result<Item, Fault> {
        let nothing = || step.may_miss.then(|| Item::new(Value::Null));
        if let (Some(text), Target::Member(name)) = (of.as_text(), &step.to)
            && of.has_hole()
        {
            return Ok(self.part(text, &format!(".{name}")));
        }
        let (name, found) = match &step.to {
            Target::Member(name) => (format!("{name:?}"), self.find(of, name)?),
            Target::Index(index) => {
                let index = self.evaluate(env, index)?;
                match (&of.value, &index.value) {
                    (_, Value::Text(text)) if index.has_hole() => {
                        return Ok(Item::new(poison([&**text].into_iter())));
                    }
                    (Value::Text(text), Value::Int(at)) if of.has_hole() => {
                        return Ok(self.part(text, &format!("[{at}]")));
                    }
                    (Value::List(entries), Value::Int(at)) => {
                        let at = usize::try_from(*at).ok();
                        let found = at.and_then(|at| entries.get(at)).cloned();
                        if found.is_none() && entries.iter().any(Item::has_hole) {
                            // A text that is not known was split: nobody knows into how many.
                            let open = entries.iter().filter_map(Item::as_text);
                            return Ok(Item::new(poison(open)));
                        }
                        (format!("entry {}", at.unwrap_or_default()), found)
                    }
                    (Value::Text(of), Value::Text(name)) if of.contains([OPEN, CLOSE]) => {
                        return Ok(self.part(of, &format!(".{name}")));
                    }
                    (_, Value::Text(text)) => (format!("{text:.80?}"), self.find(of, text)?),
                    (of, at) => {
                        return nothing().ok_or_else(|| {
                            Fault::new(
                                format!("{} has no entry by {}", of.kind(), at.kind()),
                                "write a number behind an array, a name behind an object",
                            )
                        });
                    }
                }
            }
        };
        found.or_else(nothing).ok_or_else(|| {
            Fault::new(
                format!("{} has no {name}", of.value.kind()),
                "correct the name, or write .? for what may be missing",
            )
        })
    }

    fn find(&self, of: &Item, name: &str) -> Result<Option<Item>, Fault> {
        self.spend(1 + of.members().len() / 8)?;
        Ok(of.get(name).cloned())
    }
}
