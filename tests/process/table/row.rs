//! One row of the table: a request and what is documented of its answer. How it is asked is another module's.

use crate::harness::Response;

/// A row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) line: usize,
    pub(crate) name: String,
    /// Only HTTP/1.1 has words for it.
    pub(crate) only_http1: bool,
    pub(crate) door: String,
    pub(crate) request: Request,
    expectation: Vec<Expected>,
}

/// What is sent.
#[derive(Debug)]
pub(crate) enum Request {
    /// A request in its parts.
    Parts {
        method: String,
        target: String,
        version: String,
        /// `None`: without a Host.
        host: Option<String>,
        fields: Vec<(String, String)>,
        body: Option<String>,
    },
    /// Bytes as they are.
    Raw(String),
}

/// What is answered.
#[derive(Debug)]
enum Expected {
    Status(u16),
    /// A backend's name and the target that it saw.
    Backend(String, String),
    /// No backend was asked.
    Gateway,
    Method(String),
    Saw(String, String),
    /// With the value that it may not have; any without one.
    SawNot(String, Option<String>),
    Says(String, String),
    SaysNot(String),
    Page(String),
    Empty,
}

/// What was heard of a request.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) answer: Response,
    /// The client's own address.
    pub(crate) client: String,
}

/// All rows of a table. Lines that begin with # are for people.
pub(crate) fn rows(text: &str) -> Vec<Row> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let rows = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    rows.map(|(at, line)| Row::read(at, line)).collect()
}

// === impl Row ===

impl Row {
    fn read(line: usize, text: &str) -> Self {
        let columns: Vec<&str> = text.split(" :: ").map(str::trim).collect();
        let [name, door, request, fields, expectation] = columns[..] else {
            panic!("line {line} has {} columns: {text}", columns.len())
        };
        let (only_http1, name) = match name.strip_prefix("h1 ") {
            Some(name) => (true, name),
            None => (false, name),
        };
        let request = match request.strip_prefix("raw ") {
            Some(raw) => Request::Raw(unescaped(raw)),
            None => parts(request, fields),
        };
        let words = expectation.split(" | ").map(|word| unescaped(word.trim())).enumerate();
        let expectation = words.flat_map(|(at, word)| expected(at == 0, &word)).collect();
        Self { line, name: name.into(), only_http1, door: door.into(), request, expectation }
    }

    /// What of an answer is not as it should be; `fill` knows what stands in braces.
    pub(crate) fn judge(&self, heard: &Heard, fill: &dyn Fn(&str) -> String) -> Vec<String> {
        let answer = &heard.answer;
        let all = |name: &str| {
            let found = answer.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
        };
        let saw = |name: &str| all(&format!("x-saw-{name}"));
        let mut faults = Vec::new();
        let mut same = |what: &str, is: &str, should: &str| {
            let should = fill(should);
            if is != should {
                faults.push(format!("{what} is {is:?} and not {should:?}"));
            }
        };
        for expected in &self.expectation {
            match expected {
                Expected::Status(code) => {
                    same("the status", &answer.status.to_string(), &code.to_string());
                }
                Expected::Backend(name, target) => {
                    same("the backend", &all("x-backend"), name);
                    same("its target", &saw("target"), target);
                }
                Expected::Gateway => same("the backend", &all("x-backend"), ""),
                Expected::Method(method) => same("its method", &saw("method"), method),
                Expected::Saw(name, value) => same(name, &saw(name), value),
                Expected::SawNot(name, value) => {
                    let found = saw(name);
                    let other = value.as_ref().is_some_and(|value| !found.contains(value));
                    same(name, if other { "" } else { &found }, "");
                }
                Expected::Says(name, value) => same(name, &all(name), value),
                Expected::SaysNot(name) => same(name, &all(name), ""),
                Expected::Page(part) => {
                    let found = if answer.text().contains(part) { part.as_str() } else { "absent" };
                    same("a part of the page", found, part);
                }
                Expected::Empty => same("the length", &answer.body.len().to_string(), "0"),
            }
        }
        faults
    }
}

/// `METHOD TARGET [VERSION]`, and `HOST | NAME: VALUE | body=…`, the host a `-` for none.
fn parts(request: &str, fields: &str) -> Request {
    let mut words = request.split(' ');
    let method = words.next().unwrap().to_owned();
    let target = unescaped(words.next().unwrap_or_else(|| panic!("no target in {request:?}")));
    let version = words.next().unwrap_or("HTTP/1.1").to_owned();
    let mut items = fields.split(" | ").map(str::trim);
    let host = items.next().filter(|host| *host != "-").map(unescaped);
    let (mut found, mut body) = (Vec::new(), None);
    for item in items {
        if let Some(text) = item.strip_prefix("body=") {
            body = Some(text.to_owned());
        } else {
            let (name, value) =
                item.split_once(':').unwrap_or_else(|| panic!("no colon: {item:?}"));
            found.push((name.to_owned(), unescaped(value.trim())));
        }
    }
    Request::Parts { method, target, version, host, fields: found, body }
}

fn expected(first: bool, word: &str) -> Vec<Expected> {
    if first {
        let mut words = word.split(' ');
        let status = Expected::Status(words.next().unwrap().parse().unwrap());
        let who = match (words.next(), words.next()) {
            (Some(name), Some(target)) => Expected::Backend(name.into(), target.into()),
            (None, _) => Expected::Gateway,
            other => panic!("{other:?}"),
        };
        return vec![status, who];
    }
    let (verb, rest) = word.split_once(' ').unwrap_or((word, ""));
    let pair = || {
        let (name, value) = rest.split_once(':').unwrap_or_else(|| panic!("no colon: {word:?}"));
        (name.to_owned(), value.trim().to_owned())
    };
    vec![match verb {
        "method" => Expected::Method(rest.into()),
        "saw" => Expected::Saw(pair().0, pair().1),
        "saw-not" => match rest.split_once(':') {
            Some(_) => Expected::SawNot(pair().0, Some(pair().1)),
            None => Expected::SawNot(rest.into(), None),
        },
        "says" => Expected::Says(pair().0, pair().1),
        "says-not" => Expected::SaysNot(rest.into()),
        "page" => Expected::Page(rest.into()),
        "empty" => Expected::Empty,
        other => panic!("{other:?} is no expectation"),
    }]
}

/// `\r`, `\n`, `\t` and `\0`, as a person writes them; `\xNN` for any other character below 256; `\(NNN)` for so many
/// letters.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (character, length) = match escape.as_bytes().first() {
            Some(b'r') => ('\r', 1),
            Some(b'n') => ('\n', 1),
            Some(b't') => ('\t', 1),
            Some(b'0') => ('\0', 1),
            Some(b'x') => (char::from(u8::from_str_radix(&escape[1..3], 16).unwrap()), 3),
            Some(b'(') => {
                let end = escape.find(')').unwrap();
                out.push_str(&"a".repeat(escape[1..end].parse().unwrap()));
                rest = &escape[end + 1..];
                continue;
            }
            other => panic!("{other:?} in {text:?}"),
        };
        out.push(character);
        rest = &escape[length..];
    }
    out + rest
}
