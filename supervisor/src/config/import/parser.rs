//! The language between `[` and `]` of a template's strings: from text to a tree. Pure, and bounded in length and
//! nesting; it evaluates nothing.

use super::context::Fault;

/// Azure allows 24,576 characters.
const LONGEST: usize = 65_536;
/// Calls in calls; real templates have ten.
const DEEPEST: usize = 48;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Text(String),
    Int(i64),
    /// Bare `true`, `false` and `null`.
    Bool(bool),
    Null,
    /// Name in lower case; with its namespace and a dot, where the template defines it.
    Call(String, Vec<Expression>),
    /// A value and the way into it.
    Access(Box<Expression>, Vec<Step>),
}

/// `.name` or `[index]`, or `.?name` or `[?index]`, which are null where there is nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) to: Target,
    pub(super) may_miss: bool,
}

/// What a [`Step`] leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    Member(String),
    Index(Expression),
}

/// What a string of a template is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Written<'t> {
    Literal(&'t str),
    Expression(&'t str),
}

/// Tells expressions from other strings; `[[` at the start of one that ends with `]` stands for a bracket.
pub(super) fn written(text: &str) -> Written<'_> {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match inside {
        Some(_) if text.starts_with("[[") => Written::Literal(text.get(1..).unwrap_or_default()),
        Some(inside) => Written::Expression(inside),
        None => Written::Literal(text),
    }
}

/// Reads what stands between the brackets.
pub(super) fn parse(text: &str) -> Result<Expression, Fault> {
    if text.len() > LONGEST {
        return Err(Fault::new(
            format!("an expression is longer than {LONGEST} bytes"),
            "shorten it",
        ));
    }
    let mut parser = Parser { text, rest: text };
    let found = parser.expression(0)?;
    match parser.peek() {
        None => Ok(found),
        Some(c) => Err(parser.wrong(&format!("{c:?} stands after the expression's end"))),
    }
}

struct Parser<'t> {
    text: &'t str,
    rest: &'t str,
}

// === impl Parser ===

impl Parser<'_> {
    /// The next character that is no white space.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = self.rest.get(wanted.len_utf8()..).unwrap_or_default();
        }
        found
    }

    fn wrong(&self, reason: &str) -> Fault {
        let at = self.text.len().saturating_sub(self.rest.len());
        let before = self.text.get(..at).unwrap_or_default().chars().count() + 2;
        Fault::new(
            format!("the expression cannot be read: at its character {before}, {reason}"),
            "write it as in Azure: [function('text', 1).property[0]]",
        )
    }

    fn expect(&mut self, wanted: char) -> Result<(), Fault> {
        if self.take(wanted) {
            return Ok(());
        }
        let found = self.peek().map_or("the end".to_owned(), |c| format!("{c:?}"));
        Err(self.wrong(&format!("{found} stands where {wanted:?} should")))
    }

    fn expression(&mut self, depth: usize) -> Result<Expression, Fault> {
        if depth >= DEEPEST {
            return Err(self.wrong(&format!("calls are nested more than {DEEPEST} deep")));
        }
        let value = match self.peek() {
            Some('\'') => Expression::Text(self.text()?),
            Some(c) if c.is_ascii_digit() || c == '-' || c == '+' => self.number()?,
            Some(c) if is_word(c) => self.call(depth)?,
            Some(c) => return Err(self.wrong(&format!("{c:?} begins no value"))),
            None => return Err(self.wrong("a value is missing")),
        };
        let mut steps = Vec::new();
        loop {
            if self.take('.') {
                let may_miss = self.take('?');
                let name = self.word();
                if name.is_empty() {
                    return Err(self.wrong("a property's name is missing"));
                }
                steps.push(Step { to: Target::Member(name), may_miss });
            } else if self.take('[') {
                let may_miss = self.take('?');
                let index = self.expression(depth + 1)?;
                self.expect(']')?;
                steps.push(Step { to: Target::Index(index), may_miss });
            } else if steps.is_empty() {
                return Ok(value);
            } else {
                return Ok(Expression::Access(Box::new(value), steps));
            }
        }
    }

    /// A function's call; what stands before a dot is its namespace.
    fn call(&mut self, depth: usize) -> Result<Expression, Fault> {
        let mut name = self.word();
        while self.take('.') {
            let next = self.word();
            if next.is_empty() {
                return Err(self.wrong("a function's name is missing"));
            }
            name = format!("{name}.{next}");
        }
        let name = name.to_ascii_lowercase();
        if !self.take('(') {
            return match name.as_str() {
                "true" => Ok(Expression::Bool(true)),
                "false" => Ok(Expression::Bool(false)),
                "null" => Ok(Expression::Null),
                _ => Err(self.wrong(&format!("no ( follows {name:.40?}"))),
            };
        }
        let mut arguments = Vec::new();
        if self.take(')') {
            return Ok(Expression::Call(name, arguments));
        }
        loop {
            arguments.push(self.expression(depth + 1)?);
            if self.take(')') {
                return Ok(Expression::Call(name, arguments));
            }
            self.expect(',')?;
        }
    }

    fn word(&mut self) -> String {
        self.peek();
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    /// `'…'`, where `''` is a quote.
    fn text(&mut self) -> Result<String, Fault> {
        let mut text = String::new();
        let opened = self.rest.strip_prefix('\'').unwrap_or(self.rest);
        let mut chars = opened.chars();
        while let Some(c) = chars.next() {
            if c != '\'' {
                text.push(c);
            } else if let Some(after) = chars.as_str().strip_prefix('\'') {
                text.push('\'');
                chars = after.chars();
            } else {
                self.rest = chars.as_str();
                return Ok(text);
            }
        }
        Err(self.wrong("a string has no end"))
    }

    fn number(&mut self) -> Result<Expression, Fault> {
        let signs = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.');
        let end = self.rest.find(|c| !signs(c)).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let Ok(number) = digits.parse() else {
            return Err(self.wrong(&format!("{digits:.40?} is not a whole number")));
        };
        self.rest = rest;
        Ok(Expression::Int(number))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests;
