//! Changes a message by a set: rule by rule, each seeing what those before it have made of the headers.
//!
//! Conditions on the request are decided once, when the rule's turn comes while the request is changed, and hold for its
//! changes of the answer too. A rule with a condition on the answer waits for it, and changes the answer alone.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, request};

use super::facts::{Exchange, Facts};
use super::url::{Place, encode};
use super::value::{Captures, Found, Piece, Value};
use super::{HeaderChange, Pattern, RewriteSet, Rule, UrlChange};
use crate::headers::is_host;

/// Most bytes that the rewrites of one message may come to: more than any backend takes, and little enough that values
/// which quote one another cannot be blown up.
const MOST_BYTES: usize = 64 * 1024;

/// Why a message cannot be sent as a set has made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'s> {
    /// Name of the rule.
    pub rule: &'s str,
    /// What is wrong.
    pub reason: &'static str,
}

/// What the rules have decided about a request: what each has captured, if its conditions hold.
#[derive(Clone, Debug, Default)]
pub struct Decided(Vec<Option<Captures>>);

/// What has become of a request.
#[derive(Debug)]
pub struct Asked {
    /// For the answer.
    pub decided: Decided,
    /// Whether the path is another one.
    pub moved: bool,
    /// Whether the path map is to decide again.
    pub reroute: bool,
}

/// Bytes that are left to a message's rewrites.
struct Room(usize);

/// A request's path and query while rules change them.
struct Target {
    path: String,
    query: Option<String>,
}

/// What becomes of a rule for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Its conditions hold.
    Applies,
    /// They do not.
    DoesNotApply,
    /// They are about the answer.
    Waits,
}

// === impl RewriteSet ===

impl RewriteSet {
    /// Its rules by name, with what becomes of each.
    pub fn effects<'s>(
        &'s self,
        decided: &'s Decided,
    ) -> impl Iterator<Item = (&'s str, Effect)> + 's {
        self.rules.iter().zip(&decided.0).map(|(rule, captures)| {
            let effect = match captures {
                Some(_) => Effect::Applies,
                None if rule.waits => Effect::Waits,
                None => Effect::DoesNotApply,
            };
            (rule.name.as_str(), effect)
        })
    }

    /// Changes a request's headers and URL.
    pub fn change_request<'s>(
        &'s self,
        facts: &Facts<'_>,
        head: &mut request::Parts,
    ) -> Result<Asked, Failure<'s>> {
        let mut room = Room(MOST_BYTES);
        let mut asked = Asked { decided: Decided::default(), moved: false, reroute: false };
        for rule in &self.rules {
            let exchange =
                Exchange { facts, method: &head.method, request: &head.headers, answer: None };
            let captures = if rule.waits { None } else { rule.decide(&exchange) };
            if let Some(captures) = &captures {
                rule.change_request(facts, head, captures, &mut room, &mut asked)?;
            }
            asked.decided.0.push(captures);
        }
        Ok(asked)
    }

    /// Changes the headers of a backend's answer; `request` is the request's header as it went to the backend.
    pub fn change_answer<'s>(
        &'s self,
        (facts, method, request): (&Facts<'_>, &Method, &HeaderMap),
        decided: &Decided,
        status: StatusCode,
        headers: &mut HeaderMap,
    ) -> Result<(), Failure<'s>> {
        let mut room = Room(MOST_BYTES);
        for (rule, decided) in self.rules.iter().zip(&decided.0) {
            if rule.response.is_empty() {
                continue;
            }
            let mut late = None;
            if rule.waits {
                let answer = Some((status, &*headers));
                late = rule.decide(&Exchange { facts, method, request, answer });
            }
            let Some(captures) = decided.as_ref().or(late.as_ref()) else { continue };
            for change in &rule.response {
                let answer = Some((status, &*headers));
                let exchange = Exchange { facts, method, request, answer };
                let lines = rule.lines(change, &exchange, captures, headers, &mut room)?;
                if let Some(lines) = lines {
                    headers.remove(&change.name);
                    for line in lines {
                        headers.append(change.name.clone(), line);
                    }
                }
            }
        }
        Ok(())
    }
}

// === impl Rule ===

impl Rule {
    /// What the conditions have captured, if all of them hold.
    fn decide(&self, exchange: &Exchange<'_>) -> Option<Captures> {
        let mut captures = Captures::with_capacity(self.conditions.len());
        let mut value = Vec::new();
        for condition in &self.conditions {
            value.clear();
            exchange.write(&condition.source, &mut value);
            if condition.captures {
                captures.push(condition.pattern.groups(&value)?);
            } else if condition.pattern.holds(&value) {
                captures.push(Vec::new());
            } else {
                return None;
            }
        }
        Some(captures)
    }

    fn change_request<'s>(
        &'s self,
        facts: &Facts<'_>,
        head: &mut request::Parts,
        captures: &Captures,
        room: &mut Room,
        asked: &mut Asked,
    ) -> Result<(), Failure<'s>> {
        for change in &self.request {
            let exchange =
                Exchange { facts, method: &head.method, request: &head.headers, answer: None };
            let made =
                self.made(&change.value, &exchange, Found { captures, matched: &[] }, room)?;
            match made {
                Some(host) if change.name == HOST => {
                    if !host.to_str().is_ok_and(is_host) {
                        return Err(self.fails("the value for Host is not one"));
                    }
                    head.headers.insert(HOST, host);
                }
                None if change.name == HOST => return Err(self.fails("nothing is left of Host")),
                Some(value) => drop(head.headers.insert(change.name.clone(), value)),
                None => drop(head.headers.remove(&change.name)),
            }
        }
        let Some(change) = &self.url else { return Ok(()) };
        // `OPTIONS *` is about the server, and has no path.
        if !head.uri.path().starts_with('/') {
            return Ok(());
        }
        let exchange =
            Exchange { facts, method: &head.method, request: &head.headers, answer: None };
        head.uri = self.target(change, &exchange, captures, &head.uri, room)?;
        asked.moved |= change.path.is_some();
        asked.reroute |= change.reroute;
        Ok(())
    }

    fn target<'s>(
        &'s self,
        change: &UrlChange,
        exchange: &Exchange<'_>,
        captures: &Captures,
        uri: &Uri,
        room: &mut Room,
    ) -> Result<Uri, Failure<'s>> {
        let found = Found { captures, matched: &[] };
        let mut target =
            Target { path: uri.path().to_owned(), query: uri.query().map(str::to_owned) };
        if let Some(path) = &change.path {
            target.path = self.part(Place::Path, path, exchange, found, room)?;
            if !target.path.starts_with('/') {
                target.path.insert(0, '/');
            }
        }
        if let Some(query) = &change.query {
            let query = self.part(Place::Query, query, exchange, found, room)?;
            let query = query.strip_prefix('?').unwrap_or(&query);
            target.query = (!query.is_empty()).then(|| query.to_owned());
        }
        let Target { mut path, query } = target;
        if let Some(query) = query {
            path.push('?');
            path.push_str(&query);
        }
        PathAndQuery::try_from(path).map(Uri::from).map_err(|_| self.fails("the URL is not valid"))
    }

    fn part<'s>(
        &'s self,
        place: Place,
        value: &Value,
        exchange: &Exchange<'_>,
        found: Found<'_>,
        room: &mut Room,
    ) -> Result<String, Failure<'s>> {
        let mut text = String::new();
        value.make(
            exchange,
            found,
            |at| self.piece(at),
            |piece, bytes| {
                // An escape is three bytes.
                room.take(bytes.len().saturating_mul(3)).ok_or_else(|| self.fails(TOO_LONG))?;
                encode(place, piece, bytes, &mut text);
                Ok(())
            },
        )?;
        Ok(text)
    }

    /// A header's value; `None`: nothing is left of it.
    fn made<'s>(
        &'s self,
        value: &Value,
        exchange: &Exchange<'_>,
        found: Found<'_>,
        room: &mut Room,
    ) -> Result<Option<HeaderValue>, Failure<'s>> {
        let mut bytes = Vec::new();
        value.make(
            exchange,
            found,
            |at| self.piece(at),
            |_, piece| {
                room.take(piece.len()).ok_or_else(|| self.fails(TOO_LONG))?;
                bytes.extend_from_slice(piece);
                Ok(())
            },
        )?;
        match bytes.trim_ascii() {
            [] => Ok(None),
            bytes => HeaderValue::from_bytes(bytes)
                .map(Some)
                .map_err(|_| self.fails("a header's value is not valid")),
        }
    }

    /// The lines of a header of the answer after a change; `None`: it stays as it is.
    fn lines<'s>(
        &'s self,
        change: &HeaderChange,
        exchange: &Exchange<'_>,
        captures: &Captures,
        headers: &HeaderMap,
        room: &mut Room,
    ) -> Result<Option<Vec<HeaderValue>>, Failure<'s>> {
        let Some(matcher) = &change.matcher else {
            let found = Found { captures, matched: &[] };
            let made = self.made(&change.value, exchange, found, room)?;
            return Ok(Some(made.into_iter().collect()));
        };
        let mut lines = Vec::new();
        let mut any = false;
        for line in headers.get_all(&change.name) {
            let Some(matched) = matched(matcher, line.as_bytes()) else {
                lines.push(line.clone());
                continue;
            };
            any = true;
            let found = Found { captures, matched: &matched };
            lines.extend(self.made(&change.value, exchange, found, room)?);
        }
        Ok(any.then_some(lines))
    }

    fn piece(&self, condition: usize) -> Piece {
        self.conditions.get(condition).map_or(Piece::Told, |it| it.source.piece())
    }

    fn fails(&self, reason: &'static str) -> Failure<'_> {
        Failure { rule: &self.name, reason }
    }
}

const TOO_LONG: &str = "the values are too long together";

/// A line that is meant: the whole of it, and its groups. `None`: it is not meant.
fn matched(matcher: &Pattern, line: &[u8]) -> Option<Vec<Vec<u8>>> {
    if matcher.negate {
        return matcher.holds(line).then(|| vec![line.to_vec()]);
    }
    let mut groups = matcher.groups(line)?;
    if let Some(whole) = groups.first_mut() {
        *whole = line.to_vec();
    }
    Some(groups)
}

// === impl Room ===

impl Room {
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.checked_sub(bytes)?;
        Some(())
    }
}
