//! The page's list of tunnels: what workers said a moment ago, with rates, searched, ordered and cut.
//!
//! A hundred thousand tunnels are a message of many megabytes, so that workers are asked seldom and for everybody at once:
//! one listing at a time, and the pause after it grows with what it took. A list that nobody asks for is forgotten. Nor is
//! it searched by many at once: a question that was asked of a listing has an answer already.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::admin::{SilentWorker, TunnelInfo, TunnelsResponse};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::query::Query;
use crate::facts::{silent_words, tunnel_json};
use crate::grpc::view;
use crate::state::Supervisor;

/// Shortest time between two listings: a page that follows asks once a second.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(700);
/// A listing is good for so many times as long as it took: workers spend a twentieth of their time on it at most.
const PAUSES_A_LISTING: u32 = 20;
/// The same where a worker has not answered: most of that time nobody has worked, and who wakes up is to be seen.
const PAUSES_A_SILENCE: u32 = 1;
/// Memory for a list that nobody looks at any more is given back after this.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Rows of an answer, unless the page asks for fewer.
const MOST_ROWS: u64 = 500;
const USUAL_ROWS: u64 = 100;
/// Words of a search; more of them narrow nothing.
const MOST_WORDS: usize = 16;
/// Answers that are kept of a listing: most pages ask for the same. A large one has some two hundred kilobytes.
const MOST_ANSWERS: usize = 16;

/// The last listing.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Held while workers are asked: who comes meanwhile gets what comes of that.
    last: Arc<tokio::sync::Mutex<Option<Arc<Listed>>>>,
    /// Held while it is searched: that costs one processor, however many ask.
    answers: tokio::sync::Mutex<Answers>,
}

/// What has been asked of a listing.
#[derive(Debug, Default)]
struct Answers {
    of: Weak<Listed>,
    told: Vec<(Question, Bytes)>,
}

/// Every live tunnel at one moment, oldest first.
#[derive(Debug)]
struct Listed {
    begun: Instant,
    ended: Instant,
    at_ms: i64,
    rows: Vec<Row>,
    /// Whose tunnels are not among these.
    silent: Vec<SilentWorker>,
}

#[derive(Debug)]
struct Row {
    tunnel: TunnelInfo,
    /// Bytes a second since the listing before, in and out; of a tunnel that was not in it since it was opened.
    rate: Option<[f64; 2]>,
}

/// How rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Newest,
    Oldest,
    Busiest,
    Largest,
    Idlest,
}

// === impl Listing ===

impl Listing {
    /// The tunnels that a page asks for.
    pub(super) async fn json(&self, supervisor: &Arc<Supervisor>, query: Query<'_>) -> Bytes {
        let question = Question::read(query);
        let listed = self.recent(supervisor).await;
        let mut answers = self.answers.lock().await;
        // Off the event loop's way: a large list takes some time to be searched.
        tokio::task::block_in_place(|| answers.give(question, &listed))
    }

    async fn recent(&self, supervisor: &Arc<Supervisor>) -> Arc<Listed> {
        let mut last = self.last.clone().lock_owned().await;
        let begun = Instant::now();
        if let Some(listed) = last.as_ref().filter(|it| it.is_recent(begun)) {
            return listed.clone();
        }
        let supervisor = supervisor.clone();
        // A task of its own: a page that gives up does not take with it what the next one needs.
        let listing = tokio::spawn(async move {
            let told = view::tunnels(&supervisor).await;
            let before = last.as_deref().filter(|it| !it.is_forgotten(begun));
            let at_ms = jiff::Timestamp::now().as_millisecond();
            let listed = Arc::new(Listed::new(told, before, [begun, Instant::now()], at_ms));
            *last = Some(listed.clone());
            listed
        });
        // It only fails where the process ends.
        let nothing = TunnelsResponse::default;
        listing.await.unwrap_or_else(|_| Arc::new(Listed::new(nothing(), None, [begun; 2], 0)))
    }

    /// Gives the memory back if nobody has asked for a while.
    pub(super) fn forget(&self) {
        // Somebody who holds it is asking.
        if let Ok(mut last) = self.last.try_lock()
            && last.as_ref().is_some_and(|it| it.is_forgotten(Instant::now()))
        {
            *last = None;
            if let Ok(mut answers) = self.answers.try_lock() {
                *answers = Answers::default();
            }
        }
    }
}

// === impl Answers ===

impl Answers {
    /// The answer to a question, which may have been asked before.
    fn give(&mut self, question: Question, listed: &Arc<Listed>) -> Bytes {
        if !self.of.ptr_eq(&Arc::downgrade(listed)) {
            *self = Self { of: Arc::downgrade(listed), told: Vec::new() };
        }
        if let Some((_, answer)) = self.told.iter().find(|(asked, _)| *asked == question) {
            return answer.clone();
        }
        let answer = Bytes::from(listed.answer(&question).to_string());
        if self.told.len() < MOST_ANSWERS {
            self.told.push((question, answer.clone()));
        }
        answer
    }
}

// === impl Listed ===

impl Listed {
    fn new(
        told: TunnelsResponse,
        before: Option<&Self>,
        [begun, ended]: [Instant; 2],
        at_ms: i64,
    ) -> Self {
        let known: HashMap<_, _> = before
            .into_iter()
            .flat_map(|before| &before.rows)
            .map(|row| (key(&row.tunnel), [row.tunnel.bytes_in, row.tunnel.bytes_out]))
            .collect();
        let passed = before.map(|before| ended.saturating_duration_since(before.ended));
        let rate = |tunnel: &TunnelInfo| {
            let now = [tunnel.bytes_in, tunnel.bytes_out];
            match (known.get(&key(tunnel)), passed) {
                (Some(then), Some(passed)) => rate(*then, now, passed),
                _ => rate([0, 0], now, Duration::from_millis(tunnel.age_ms)),
            }
        };
        let row = |tunnel: TunnelInfo| Row { rate: rate(&tunnel), tunnel };
        let rows = told.tunnels.into_iter().map(row).collect();
        Self { begun, ended, at_ms, rows, silent: told.silent }
    }

    fn is_recent(&self, now: Instant) -> bool {
        let took = self.ended.saturating_duration_since(self.begun);
        let pauses = if self.silent.is_empty() { PAUSES_A_LISTING } else { PAUSES_A_SILENCE };
        let good_for = SHORTEST_PAUSE.max(took.saturating_mul(pauses));
        now.saturating_duration_since(self.ended) < good_for
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.ended) > FORGOTTEN && !self.is_recent(now)
    }

    fn answer(&self, question: &Question) -> Value {
        let mut found: Vec<&Row> = self.rows.iter().filter(|row| question.matches(row)).collect();
        question.order.sort(&mut found);
        let matching = found.len();
        found.truncate(question.rows);
        json!({
            "at_ms": self.at_ms,
            "total": self.rows.len(),
            "matching": matching,
            "missing": self.silent.iter().map(silent_words).collect::<Vec<_>>(),
            "tunnels": found.iter().map(|row| row.json()).collect::<Vec<_>>(),
        })
    }
}

/// A listener's workers give each tunnel a number of its own.
fn key(tunnel: &TunnelInfo) -> (&str, &str) {
    (&tunnel.listener, &tunnel.id)
}

#[allow(clippy::cast_precision_loss, reason = "a rate is an estimate")]
fn rate(then: [u64; 2], now: [u64; 2], passed: Duration) -> Option<[f64; 2]> {
    let seconds = passed.as_secs_f64();
    let [bytes_in, bytes_out] = [0, 1].map(|way: usize| {
        let side = |of: &[u64; 2]| of.get(way).copied().unwrap_or(0);
        side(&now).saturating_sub(side(&then)) as f64
    });
    (seconds > 0.0).then(|| [bytes_in / seconds, bytes_out / seconds])
}

// === impl Row ===

impl Row {
    fn json(&self) -> Value {
        let mut told = tunnel_json(&self.tunnel);
        if let Some(members) = told.as_object_mut() {
            let [bytes_in, bytes_out] = self.rate.map_or([None; 2], |rate| rate.map(Some));
            members.insert("rate_in".to_owned(), json!(bytes_in));
            members.insert("rate_out".to_owned(), json!(bytes_out));
        }
        told
    }

    fn total_rate(&self) -> f64 {
        self.rate.map_or(0.0, |[bytes_in, bytes_out]| bytes_in + bytes_out)
    }

    fn has(&self, word: &str) -> bool {
        let it = &self.tunnel;
        [
            &it.client,
            &it.id,
            &it.backend,
            &it.pool,
            &it.site,
            &it.listener,
            &it.settings,
            &it.trace_id,
        ]
        .into_iter()
        .any(|text| contains(text, word))
    }
}

/// Whether a text has a lower-case word in it, in whatever case.
fn contains(text: &str, word: &str) -> bool {
    if text.is_ascii() && word.is_ascii() {
        // Without a copy of each of a hundred thousand rows.
        let (text, word) = (text.as_bytes(), word.as_bytes());
        return text.windows(word.len().max(1)).any(|part| part.eq_ignore_ascii_case(word));
    }
    text.to_lowercase().contains(word)
}

/// What a page wants to see.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    words: Vec<String>,
    order: Order,
    rows: usize,
}

impl Question {
    fn read(query: Query<'_>) -> Self {
        let search = query.text("search").to_lowercase();
        let words = search.split_whitespace().take(MOST_WORDS).map(str::to_owned).collect();
        let rows = query.number("rows").unwrap_or(USUAL_ROWS).min(MOST_ROWS);
        Self {
            words,
            order: Order::read(&query.text("order")),
            rows: usize::try_from(rows).unwrap_or(0),
        }
    }

    fn matches(&self, row: &Row) -> bool {
        self.words.iter().all(|word| row.has(word))
    }
}

impl Order {
    fn read(name: &str) -> Self {
        match name {
            "oldest" => Self::Oldest,
            "busiest" => Self::Busiest,
            "largest" => Self::Largest,
            "idlest" => Self::Idlest,
            _ => Self::Newest,
        }
    }

    /// From oldest first, which stays the order among equals.
    fn sort(self, rows: &mut [&Row]) {
        let bytes = |row: &Row| row.tunnel.bytes_in.saturating_add(row.tunnel.bytes_out);
        match self {
            Self::Oldest => {}
            Self::Newest => rows.reverse(),
            Self::Busiest => rows.sort_by(|a, b| b.total_rate().total_cmp(&a.total_rate())),
            Self::Largest => rows.sort_by_key(|row| std::cmp::Reverse(bytes(row))),
            Self::Idlest => rows.sort_by_key(|row| std::cmp::Reverse(row.tunnel.idle_ms)),
        }
    }
}

#[cfg(test)]
mod tests;
