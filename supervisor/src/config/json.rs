//! A JSON reader that knows where every value stands, and takes what Azure's own documents hold: a byte order
//! mark, `//` and `/* */` comments, trailing commas. It must never recurse deeper than [`DEPTH`], and never panic.

use std::iter::Peekable;
use std::str::Chars;

/// Real gateways nest about ten deep; the reader's stack must hold for hostile ones.
const DEPTH: usize = 128;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A JSON value; numbers stay as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

/// A member of an object and where its name begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) value: Node,
}

/// Why a document cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct SyntaxError {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) reason: String,
    pub(super) mend: String,
}

/// Reads a whole document.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text.chars().peekable(), line: 1, column: 1 };
    reader.skip()?;
    let node = reader.value(0)?;
    reader.skip()?;
    match reader.peek() {
        None => Ok(node),
        Some(c) => Err(reader.wrong(
            &format!("the document goes on after its end, with {c:?}"),
            "remove what follows the last closing bracket",
        )),
    }
}

impl Value {
    /// For people: what kind of value this is.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: u32,
    column: u32,
}

// === impl Reader ===

impl Reader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line = self.line.saturating_add(1);
            self.column = 1;
        } else {
            self.column = self.column.saturating_add(1);
        }
        Some(c)
    }

    fn wrong(&self, reason: &str, mend: &str) -> SyntaxError {
        let (line, column) = (self.line, self.column);
        SyntaxError { line, column, reason: reason.to_owned(), mend: mend.to_owned() }
    }

    fn ended(&self, inside: &str) -> SyntaxError {
        self.wrong(
            &format!("the document ends inside {inside}"),
            "it may have been cut off; write the rest",
        )
    }

    /// Passes over white space and comments.
    fn skip(&mut self) -> Result<(), SyntaxError> {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\n' | '\r' => {
                    self.next();
                }
                '/' => {
                    self.next();
                    match self.next() {
                        Some('/') => while self.next().is_some_and(|c| c != '\n') {},
                        Some('*') => self.block_comment()?,
                        None => return Err(self.ended("a comment")),
                        Some(_) => {
                            return Err(self.wrong(
                                "a single / stands outside a string",
                                "write // or /* */ for a comment",
                            ));
                        }
                    }
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn block_comment(&mut self) -> Result<(), SyntaxError> {
        let mut last = ' ';
        while let Some(c) = self.next() {
            if last == '*' && c == '/' {
                return Ok(());
            }
            last = c;
        }
        Err(self.ended("a /* comment"))
    }

    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        let (line, column) = (self.line, self.column);
        let value = match self.peek() {
            None => return Err(self.ended("a value")),
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Value::Text(self.text()?),
            Some('-' | '0'..='9') => self.number()?,
            Some(c) if c.is_ascii_alphabetic() => self.word()?,
            Some(c) => {
                return Err(self.wrong(
                    &format!("{c:?} stands where a value should"),
                    "write a string in double quotes, a number, true, false, null, {…} or […]",
                ));
            }
        };
        Ok(Node { value, line, column })
    }

    fn deeper(&self, depth: usize) -> Result<usize, SyntaxError> {
        if depth >= DEPTH {
            return Err(self.wrong(
                &format!("values are nested more than {DEPTH} deep"),
                "a gateway needs about ten levels; remove the extra brackets",
            ));
        }
        Ok(depth + 1)
    }

    fn object(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let depth = self.deeper(depth)?;
        self.next();
        let mut members = Vec::new();
        loop {
            self.skip()?;
            let (line, column) = (self.line, self.column);
            match self.peek() {
                None => return Err(self.ended("an object")),
                Some('}') => {
                    self.next();
                    return Ok(Value::Object(members));
                }
                Some('"') => {}
                Some(c) => {
                    return Err(self.wrong(
                        &format!("{c:?} stands where a property name should"),
                        "write names in double quotes, with a comma between members",
                    ));
                }
            }
            let name = self.text()?;
            self.skip()?;
            match self.peek() {
                Some(':') => self.next(),
                None => return Err(self.ended("an object")),
                Some(_) => {
                    let reason = format!("no colon follows the name {name:?}");
                    return Err(self.wrong(&reason, "write \"name\": value"));
                }
            };
            self.skip()?;
            let value = self.value(depth)?;
            members.push(Member { name, line, column, value });
            self.comma('}', "an object")?;
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let depth = self.deeper(depth)?;
        self.next();
        let mut entries = Vec::new();
        loop {
            self.skip()?;
            match self.peek() {
                None => return Err(self.ended("a list")),
                Some(']') => {
                    self.next();
                    return Ok(Value::List(entries));
                }
                Some(_) => entries.push(self.value(depth)?),
            }
            self.comma(']', "a list")?;
        }
    }

    /// A comma, or the closing bracket (left where it is).
    fn comma(&mut self, close: char, inside: &str) -> Result<(), SyntaxError> {
        self.skip()?;
        match self.peek() {
            Some(',') => {
                self.next();
                Ok(())
            }
            Some(c) if c == close => Ok(()),
            None => Err(self.ended(inside)),
            Some(c) => Err(self.wrong(
                &format!("{c:?} stands where a comma or {close:?} should"),
                "put a comma between entries and close what was opened",
            )),
        }
    }

    fn text(&mut self) -> Result<String, SyntaxError> {
        self.next();
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err(self.ended("a string")),
                Some('"') => {
                    self.next();
                    return Ok(text);
                }
                Some('\\') => {
                    self.next();
                    text.push(self.escape()?);
                }
                Some(c) if c < ' ' => {
                    return Err(self.wrong(
                        "a string goes over the end of its line",
                        "close it with a double quote, or write \\n",
                    ));
                }
                Some(c) => {
                    self.next();
                    text.push(c);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        Ok(match self.next() {
            None => return Err(self.ended("a string")),
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => self.unicode()?,
            Some(c) => {
                return Err(self.wrong(
                    &format!("\\{c} is no escape that JSON knows"),
                    "write \\\\ for a backslash",
                ));
            }
        })
    }

    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let first = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            // RFC 8259 section 7: outside the basic plane a pair of escapes.
            if self.next() != Some('\\') || self.next() != Some('u') {
                return Err(self.wrong("half a surrogate pair stands alone", "write both halves"));
            }
            let second = self.hex4()?;
            0x10000 + ((first - 0xd800) << 10) + (second.wrapping_sub(0xdc00) & 0x3ff)
        } else {
            first
        };
        char::from_u32(code)
            .ok_or_else(|| self.wrong("half a surrogate pair stands alone", "write both halves"))
    }

    fn hex4(&mut self) -> Result<u32, SyntaxError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|c| c.to_digit(16)).ok_or_else(|| {
                self.wrong("\\u is not followed by four hexadecimal digits", "write them")
            })?;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<Value, SyntaxError> {
        let mut text = String::new();
        while let Some(c @ ('-' | '+' | '.' | 'e' | 'E' | '0'..='9')) = self.peek() {
            self.next();
            text.push(c);
        }
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Ok(Value::Number(text));
        }
        Err(self.wrong(&format!("{text:.40} is not a number"), "write digits"))
    }

    fn word(&mut self) -> Result<Value, SyntaxError> {
        let start = self.wrong("", "");
        let mut word = String::new();
        while let Some(c) = self.peek().filter(char::is_ascii_alphanumeric) {
            self.next();
            // Longer than any word that JSON knows; the rest is read, but not kept.
            if word.len() < 40 {
                word.push(c);
            }
        }
        match word.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            _ => Err(SyntaxError {
                reason: format!("{word} is not a value"),
                mend: "put text in double quotes".to_owned(),
                ..start
            }),
        }
    }
}
