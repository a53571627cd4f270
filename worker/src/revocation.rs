//! Whether clients' certificates were revoked: responders are asked, and what they say is kept while it holds.
//!
//! ```text
//! question (tls::ocsp) → book: known? ──yes──> verdict
//!                              └─no: one lookup for all who wait: turns → exchange → judge (tls::ocsp) → book
//! ```
//!
//! Who cannot be asked has not said that a certificate is good: then it does not pass.
//!
//! # Invariants
//! - No handshake and no other request waits for a responder, only a request that needs its answer.
//! - An answer is believed until its own end, or for five seconds where that has come (clocks differ by minutes). After an
//!   hour it is asked for anew, and only if nothing is learnt of that is it believed on.
//! - None is carried from one process to another.

mod book;
mod exchange;
mod turns;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::UnixTime;

use crate::tls::client_auth::Verdict;
use crate::tls::ocsp::{Flaw, Judgement, Question, Status, judge};
use book::{Book, Finding};
use exchange::{ExchangeError, exchange};
use turns::{NoTurn, Turns};

/// Why a certificate does not pass, in nginx's words.
const REVOKED: &str = "certificate revoked";
const UNKNOWN: &str = "certificate status unknown";
const FAILED: Verdict = Verdict::Failed("certificate status request failed");
const OPEN: Verdict = Verdict::Failed("certificate status not known yet");

/// How long nobody asks again after nothing was learnt. A certificate that the responder does not know may be one that it
/// is about to hear of.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Between two words about that in the log: certificates are many, and a responder that is down is one matter.
const NEWS_EVERY: Duration = Duration::from_secs(60);

/// What this process knows of revoked certificates.
#[derive(Debug, Default)]
pub(crate) struct Revocation {
    book: Arc<Book>,
    means: Arc<Means>,
}

/// What lookups take.
#[derive(Debug, Default)]
struct Means {
    turns: Turns,
    news: News,
}

/// When the log was last told of a responder.
#[derive(Debug, Default)]
struct News(Mutex<Option<Instant>>);

/// Why nothing was learnt.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the question cannot be put")]
    Question(#[from] der::Error),
    #[error(transparent)]
    Turn(#[from] NoTurn),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error(transparent)]
    Flaw(#[from] Flaw),
}

// === impl Revocation ===

impl Revocation {
    /// Whether a certificate passes as far as its issuer's responder is concerned. Cancel-safe: what was begun goes on.
    pub(crate) async fn verdict(&self, question: &Arc<Question>) -> Verdict {
        let lookup = || look_up(question.clone(), self.means.clone());
        self.book.verdict(question.subject, lookup).await
    }

    /// What is known of that, for who waits for nothing. Where it is nothing, or old, the responder is asked now.
    pub(crate) fn known(&self, question: &Arc<Question>) -> Verdict {
        let lookup = || look_up(question.clone(), self.means.clone());
        self.book.known(question.subject, lookup).unwrap_or(OPEN)
    }
}

/// Asks one responder after the other until one has answered. `Err`: nothing was learnt, and for how long nobody tries
/// again.
async fn look_up(question: Arc<Question>, means: Arc<Means>) -> Result<Finding, Duration> {
    let mut pause = AFTER_FAILURE;
    for responder in &question.responders {
        let asked = async {
            let response = exchange(responder, question.request()?.into()).await?;
            Ok::<_, Trouble>(judge(&response, &question, now())?)
        };
        match means.turns.take(responder.place(), asked, Trouble::is_absence).await {
            Ok(judgement) => return Ok(judgement.into()),
            Err(trouble) => {
                // Nobody was asked: it is tried again as soon as somebody can be.
                if let Trouble::Turn(NoTurn::LeftAlone { remaining }) = &trouble {
                    pause = pause.min(*remaining);
                }
                means.news.tell(&responder.label(), &trouble);
            }
        }
    }
    Err(pause)
}

/// As the system's clock has it.
fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

// === impl Trouble ===

impl Trouble {
    /// Whether nobody was there to answer: about no other certificate either.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_absence())
    }
}

// === impl Finding ===

impl From<Judgement> for Finding {
    fn from(judgement: Judgement) -> Self {
        // One that ends now was good enough to be taken, and is good enough for those who wait for it.
        let holds = Duration::from_secs(judgement.holds).max(AFTER_FAILURE);
        match judgement.status {
            Status::Good => Self { verdict: Verdict::Success, holds },
            Status::Revoked => Self { verdict: Verdict::Failed(REVOKED), holds },
            Status::Unknown => Self { verdict: Verdict::Failed(UNKNOWN), holds: AFTER_FAILURE },
        }
    }
}

// === impl News ===

impl News {
    fn tell(&self, responder: &str, trouble: &Trouble) {
        let error: &dyn std::error::Error = trouble;
        if self.is_due() {
            tracing::warn!(
                responder,
                error,
                "whether a client's certificate was revoked cannot be learnt; more such within a minute are not told"
            );
        } else {
            tracing::debug!(responder, error, "nothing was learnt of a client's certificate");
        }
    }

    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = last.is_none_or(|last| now.duration_since(last) >= NEWS_EVERY);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}
