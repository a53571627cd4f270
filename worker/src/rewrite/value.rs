//! Where values come from, and text with references to them. Nothing here knows what a value is for.

use holdfast_proto::control::{self as wire, ServerVariable, rewrite_part, rewrite_source};
use http::HeaderName;

use super::facts::Exchange;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Variable(ServerVariable),
    Cookie(String),
    Request(HeaderName),
    Response(HeaderName),
}

/// A piece of a [`Value`].
#[derive(Debug)]
enum Part {
    Text(Vec<u8>),
    Source(Source),
    Capture { condition: usize, group: usize },
    Matched(usize),
}

/// Text with references.
#[derive(Debug)]
pub(super) struct Value {
    parts: Vec<Part>,
}

/// What the groups of a rule's conditions have matched: condition, group, bytes. No groups where nobody asks.
pub(super) type Captures = Vec<Vec<Vec<u8>>>;

/// What a rule's values are made from, beside what is known of the exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// Of the rule's conditions.
    pub(super) captures: &'a Captures,
    /// Of the header's own matcher; the first is the whole value.
    pub(super) matched: &'a [Vec<u8>],
}

/// A piece of a value that has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The configuration's, or of a URL: an `&` there is meant.
    Written,
    /// Of a client's or backend's header, or of what the gateway knows: an `&` there is a character like any other.
    Told,
}

// === impl Source ===

impl Source {
    /// `None`: the wire names nothing that is known here.
    pub(super) fn compile(source: wire::RewriteSource) -> Option<Self> {
        let header = |name: String| HeaderName::from_bytes(name.as_bytes()).ok();
        Some(match source.kind? {
            rewrite_source::Kind::Variable(number) => {
                let variable = ServerVariable::try_from(number).ok()?;
                Self::Variable(Some(variable).filter(|it| *it != ServerVariable::Unspecified)?)
            }
            rewrite_source::Kind::Cookie(name) => Self::Cookie(name),
            rewrite_source::Kind::RequestHeader(name) => Self::Request(header(name)?),
            rewrite_source::Kind::ResponseHeader(name) => Self::Response(header(name)?),
        })
    }

    /// Whether it is known only once a backend has answered.
    pub(super) fn is_of_answer(&self) -> bool {
        matches!(self, Self::Response(_) | Self::Variable(ServerVariable::HttpStatus))
    }

    pub(super) fn piece(&self) -> Piece {
        match self {
            Self::Variable(
                ServerVariable::QueryString
                | ServerVariable::RequestQuery
                | ServerVariable::RequestUri
                | ServerVariable::UriPath,
            ) => Piece::Written,
            _ => Piece::Told,
        }
    }
}

// === impl Value ===

impl Value {
    /// `None`: a part that says nothing, or refers to nothing.
    pub(super) fn compile(value: wire::RewriteValue) -> Option<Self> {
        let index = |number: u32| usize::try_from(number).ok();
        let parts = value.parts.into_iter().map(|part| {
            Some(match part.kind? {
                rewrite_part::Kind::Text(text) => Part::Text(text.into_bytes()),
                rewrite_part::Kind::Source(source) => Part::Source(Source::compile(source)?),
                rewrite_part::Kind::Capture(wire::RewriteCapture { condition, group }) => {
                    Part::Capture { condition: index(condition)?, group: index(group)? }
                }
                rewrite_part::Kind::Matched(group) => Part::Matched(index(group)?),
            })
        });
        Some(Self { parts: parts.collect::<Option<_>>()? })
    }

    /// Conditions and groups that it refers to.
    pub(super) fn captured(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Capture { condition, group } => Some((*condition, *group)),
            _ => None,
        })
    }

    /// Groups of the header's own matcher that it refers to.
    pub(super) fn matched(&self) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Matched(group) => Some(*group),
            _ => None,
        })
    }

    /// Makes the value piece by piece; `sources` are those of the rule's conditions. `take` says when to stop.
    pub(super) fn make<E>(
        &self,
        exchange: &Exchange<'_>,
        found: Found<'_>,
        source_of: impl Fn(usize) -> Piece,
        mut take: impl FnMut(Piece, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => take(Piece::Written, text)?,
                Part::Source(source) => {
                    buffer.clear();
                    exchange.write(source, &mut buffer);
                    take(source.piece(), &buffer)?;
                }
                Part::Capture { condition, group } => {
                    let text = found.captures.get(*condition).and_then(|it| it.get(*group));
                    take(source_of(*condition), text.map_or(&[][..], Vec::as_slice))?;
                }
                Part::Matched(group) => {
                    let text = found.matched.get(*group).map_or(&[][..], Vec::as_slice);
                    take(Piece::Told, text)?;
                }
            }
        }
        Ok(())
    }
}
