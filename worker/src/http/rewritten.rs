//! What becomes of a request whose route has a rewrite set: the set changes it, and may send it through the path map again.
//!
//! # Invariants
//! - A set sees the request as a backend would get it, forwarded headers included; what it writes there stands.
//! - Every route on the way has its say; the last one's set has the answer.
//! - A request that goes in circles, or cannot be sent as it was made, is answered 500 and reaches no backend.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::rewrite::facts::Facts;
use crate::rewrite::{Decided, Failure, RewriteSet};
use crate::route::{Action, MatchedPrefix, Routed};

/// How often a request may go through the path map again. nginx's figure.
const MOST_TURNS: usize = 10;
/// A rewrite that fails may do so with every request.
const NEWS_EVERY: Duration = Duration::from_secs(10);

/// Where a request goes, and what is still to be done for it.
pub(super) struct Course<'a> {
    /// What is done with it.
    pub(super) action: &'a Action,
    /// What of its path the route has matched.
    pub(super) prefix: MatchedPrefix,
    /// Its Host, where a rewrite has written one.
    pub(super) host: Option<HeaderValue>,
    /// What its answer goes through.
    pub(super) kept: Option<Box<Kept<'a>>>,
}

/// What a set has to know of a request when its answer comes.
pub(super) struct Kept<'a> {
    set: &'a RewriteSet,
    facts: Facts<'a>,
    decided: Decided,
    method: Method,
    headers: HeaderMap,
}

/// What happens to a request on its way.
pub(super) enum Turn<'t> {
    /// A set has changed it.
    Rewritten(&'t RewriteSet, &'t Decided),
    /// The path map has decided again.
    Routed(&'t Routed<'t>),
}

/// Whether a request of this route is rewritten at all.
pub(super) fn concerns(routed: &Routed<'_>) -> bool {
    matches!(routed.action, Action::Forward { rewrite: Some(_), .. })
}

/// Changes a request, and says where it goes then; `seen` is told each turn on the way.
pub(super) fn follow<'a>(
    routed: &Routed<'a>,
    sets: &'a [RewriteSet],
    facts: Facts<'a>,
    head: &mut request::Parts,
    seen: &mut dyn FnMut(Turn<'_>),
) -> Result<Course<'a>, Fault> {
    let came_as = head.headers.get(HOST).cloned();
    let (mut action, mut prefix) = (routed.action, routed.matched_prefix);
    for _ in 0..=MOST_TURNS {
        let set = set_of(action, sets);
        let mut kept = None;
        if let Some(set) = set {
            let asked = set.change_request(&facts, head).map_err(|it| fault(set, it))?;
            seen(Turn::Rewritten(set, &asked.decided));
            if asked.moved {
                prefix = MatchedPrefix::NONE;
            }
            if asked.reroute && routed.site.has_paths() {
                let again = routed.site.route(head.uri.path());
                seen(Turn::Routed(&again));
                (action, prefix) = (again.action, again.matched_prefix);
                continue;
            }
            if set.changes_answers() {
                kept = Some((set, asked.decided));
            }
        }
        let host = head.headers.get(HOST).filter(|host| came_as.as_ref() != Some(*host)).cloned();
        let kept = kept.map(|(set, decided)| {
            let (method, headers) = (head.method.clone(), head.headers.clone());
            Box::new(Kept { set, facts, decided, method, headers })
        });
        return Ok(Course { action, prefix, host, kept });
    }
    let reason = "its rewrites send the request in circles";
    if let Some(set) = set_of(routed.action, sets) {
        tell(set, "", reason);
    }
    Err(Fault::new(FaultKind::Rewrite(reason)))
}

fn set_of<'a>(action: &Action, sets: &'a [RewriteSet]) -> Option<&'a RewriteSet> {
    match action {
        Action::Forward { rewrite: Some(index), .. } => sets.get(*index),
        _ => None,
    }
}

fn fault(set: &RewriteSet, failure: Failure<'_>) -> Fault {
    tell(set, failure.rule, failure.reason);
    Fault::new(FaultKind::Rewrite(failure.reason))
}

/// One line for the operator, who can mend the set; the client is told nothing of it.
fn tell(set: &RewriteSet, rule: &str, reason: &'static str) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if last.is_none_or(|last| now.duration_since(last) >= NEWS_EVERY) {
        *last = Some(now);
        tracing::warn!(
            set = &*set.name,
            rule,
            reason,
            "a rewrite fails: requests are answered 500"
        );
    }
}

// === impl Kept ===

impl Kept<'_> {
    /// Changes the headers of the backend's answer.
    pub(super) fn change(&self, status: StatusCode, headers: &mut HeaderMap) -> Result<(), Fault> {
        let asked = (&self.facts, &self.method, &self.headers);
        let changed = self.set.change_answer(asked, &self.decided, status, headers);
        changed.map_err(|failure| fault(self.set, failure))
    }
}
