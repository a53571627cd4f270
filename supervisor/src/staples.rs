//! What OCSP responders say of the gateway's own certificates, for workers to show beside them ("stapling").
//!
//! Each answer is fetched by a process of its own, as error pages are, and passed on as it came: only whether it is one at
//! all is looked at here. What it is worth, and until when, workers find out, who read more dangerous things; they also keep
//! what they have shown while nothing better comes, so that neither a supervisor's start nor a responder's end takes it away.
//! Responders are asked every hour, and every five minutes while one does not answer, or at once when something else is put
//! in force; what it said last is kept meanwhile. Nothing waits for any of it, and it is no part of a revision.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use holdfast_proto::control::ListenerSnapshot;
use tokio::time::{Instant, sleep_until};

use crate::change::fetch;
use crate::compile::LONGEST_STAPLE;
use crate::config::gateway::Gateway;
use crate::state::Supervisor;

mod answer;
mod question;

pub(crate) use question::Question;

/// Between two questions about one certificate.
const ANSWERED: Duration = Duration::from_secs(60 * 60);
/// The same, after one that was not answered.
const UNANSWERED: Duration = Duration::from_secs(5 * 60);
/// For one answer. Its process gives up earlier and can say at what.
const PATIENCE: Duration = Duration::from_secs(15);
/// Processes at once.
const AT_ONCE: usize = 4;
/// Longest answer.
const LONGEST: u64 = LONGEST_STAPLE as u64;

/// The latest answers, each under the certificate that it is about.
#[derive(Debug, Default)]
pub struct Staples {
    kept: Mutex<HashMap<Vec<u8>, Kept>>,
}

#[derive(Debug)]
struct Kept {
    answer: Vec<u8>,
    /// When to ask again.
    due: Instant,
    /// The last question was not answered.
    is_unanswered: bool,
}

// === impl Staples ===

impl Staples {
    /// Adds what is known to a snapshot, where the configuration wants it.
    pub(crate) fn add_to(&self, snapshot: &mut ListenerSnapshot) {
        let kept = self.lock();
        for certificate in snapshot.certificates.iter_mut().filter(|it| it.wants_staple) {
            if let Some(known) = certificate.chain_der.first().and_then(|own| kept.get(own)) {
                certificate.staple.clone_from(&known.answer);
            }
        }
    }

    /// Forgets what is not wanted any more, and tells what is due of the rest.
    fn due(&self, wanted: &HashMap<Vec<u8>, Question>, now: Instant) -> Vec<(Vec<u8>, Question)> {
        let mut kept = self.lock();
        kept.retain(|own, _| wanted.contains_key(own));
        let due = |own: &Vec<u8>| kept.get(own).is_none_or(|known| known.due <= now);
        let due = wanted.iter().filter(|(own, _)| due(own));
        due.map(|(own, question)| (own.clone(), question.clone())).collect()
    }

    /// Keeps what came of a question. Whether that is news.
    fn keep(&self, own: Vec<u8>, answer: Option<Vec<u8>>, now: Instant) -> bool {
        let mut kept = self.lock();
        let known = kept.entry(own).or_insert_with(|| Kept {
            answer: Vec::new(),
            due: now,
            is_unanswered: true,
        });
        known.due = now + if answer.is_some() { ANSWERED } else { UNANSWERED };
        known.is_unanswered = answer.is_none();
        let is_news = answer.as_ref().is_some_and(|answer| *answer != known.answer);
        known.answer = answer.unwrap_or_else(|| std::mem::take(&mut known.answer));
        is_news
    }

    /// Whoever has changed something may have mended what was wrong.
    fn hurry(&self, now: Instant) {
        for known in self.lock().values_mut().filter(|known| known.is_unanswered) {
            known.due = now;
        }
    }

    fn next(&self) -> Option<Instant> {
        self.lock().values().map(|known| known.due).min()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Kept>> {
        // Every entry is valid by itself.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for as long as the supervisor runs.
pub(crate) async fn tend(supervisor: Arc<Supervisor>) {
    let mut replaced = supervisor.replaced();
    loop {
        replaced.mark_unchanged();
        let wanted = supervisor.in_force().map(|it| wanted(&it.gateway)).unwrap_or_default();
        // Cancel-safe: processes that fetch are killed.
        tokio::select! {
            () = ask(&supervisor, &wanted) => {}
            () = supervisor.stopped() => return,
        }
        let next = async {
            match supervisor.staples.next() {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        // Cancel-safe, all three: they only wait.
        tokio::select! {
            () = next => {}
            changed = replaced.changed() => match changed {
                Ok(()) => supervisor.staples.hurry(Instant::now()),
                Err(_) => return,
            },
            () = supervisor.stopped() => return,
        }
    }
}

fn wanted(gateway: &Gateway) -> HashMap<Vec<u8>, Question> {
    let stapled = gateway.certificates.iter().filter(|it| it.ocsp_stapling);
    let asked = stapled.filter_map(|it| {
        // Why nobody can be asked was told when the document was read.
        Some((it.chain_der.first()?.clone(), Question::about(&it.chain_der).ok()?))
    });
    asked.collect()
}

async fn ask(supervisor: &Supervisor, wanted: &HashMap<Vec<u8>, Question>) {
    let due = supervisor.staples.due(wanted, Instant::now());
    let asking = due.into_iter().map(|(own, question)| learn(supervisor, own, question));
    // Workers hear of what has come, and need not wait for responders that say nothing.
    let mut news = stream::iter(asking).buffer_unordered(AT_ONCE).ready_chunks(AT_ONCE);
    while let Some(news) = news.next().await {
        if news.contains(&true) {
            supervisor.publish_again().await;
        }
    }
}

/// Asks about one certificate. Whether there is something new.
async fn learn(supervisor: &Supervisor, own: Vec<u8>, question: Question) -> bool {
    let Question { url, request } = &question;
    let environment =
        [("HOLDFAST_PAGE_URL", url.as_str()), ("HOLDFAST_PAGE_QUESTION", request.as_str())];
    let deadline = Instant::now() + PATIENCE;
    let answer = fetch(&supervisor.spawner, &environment, LONGEST, deadline).await;
    let answer = answer.and_then(answer::looked_at);
    if let Err(why) = &answer {
        tracing::warn!(responder = url, why, "nothing new can be stapled to a certificate");
    }
    supervisor.staples.keep(own, answer.ok(), Instant::now())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use holdfast_proto::control::Certificate;

    use super::*;

    fn wanted(names: &[&str]) -> HashMap<Vec<u8>, Question> {
        let question = Question { url: "http://o/".to_owned(), request: "30".to_owned() };
        names.iter().map(|name| (name.as_bytes().to_vec(), question.clone())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_asked_for_again_after_an_hour_and_sooner_where_there_was_none() {
        let (staples, now) = (Staples::default(), Instant::now());
        let due = |wanted: &_, at| staples.due(wanted, at).len();
        let both = wanted(&["a", "b"]);
        assert_eq!(due(&both, now), 2);
        assert!(staples.keep(b"a".to_vec(), Some(vec![1]), now));
        assert!(!staples.keep(b"b".to_vec(), None, now));
        assert_eq!((due(&both, now), staples.next()), (0, Some(now + UNANSWERED)));
        assert_eq!(due(&both, now + UNANSWERED), 1);
        assert_eq!(due(&both, now + ANSWERED), 2);
        staples.hurry(now);
        assert_eq!(due(&both, now), 1, "the one that was not answered");
        // Nobody wants it any more, and then again.
        assert!(!staples.keep(b"b".to_vec(), None, now));
        assert_eq!((due(&wanted(&["b"]), now), due(&both, now)), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_goes_to_the_certificates_that_want_it() {
        let staples = Staples::default();
        staples.keep(b"a".to_vec(), Some(vec![1]), Instant::now());
        let certificate = |own: &str, wants_staple| Certificate {
            chain_der: vec![own.into()],
            wants_staple,
            ..Certificate::default()
        };
        let certificates =
            vec![certificate("a", true), certificate("a", false), certificate("b", true)];
        let mut snapshot = ListenerSnapshot { certificates, ..ListenerSnapshot::default() };
        staples.add_to(&mut snapshot);
        let added: Vec<_> = snapshot.certificates.into_iter().map(|it| it.staple).collect();
        assert_eq!(added, [vec![1], Vec::new(), Vec::new()]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_last_is_kept_while_nobody_answers() {
        let (staples, now) = (Staples::default(), Instant::now());
        assert!(staples.keep(b"a".to_vec(), Some(vec![1]), now));
        assert!(!staples.keep(b"a".to_vec(), Some(vec![1]), now), "the same is no news");
        assert!(!staples.keep(b"a".to_vec(), None, now));
        assert_eq!(staples.lock().get(&b"a"[..]).unwrap().answer, [1]);
        assert!(staples.keep(b"a".to_vec(), Some(vec![2]), now));
    }
}
