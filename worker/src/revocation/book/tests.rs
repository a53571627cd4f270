//! Who is asked, how often, and for how long it is believed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio::time::advance;

use super::*;

const GOOD: Verdict = Verdict::Success;
const HOLDS: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(5);
const NOTHING: Looked = Err(PAUSE);

type Looked = Result<Finding, Duration>;

fn subject(number: usize) -> Subject {
    let mut subject = Subject::default();
    for (place, byte) in subject.iter_mut().zip(number.to_be_bytes()) {
        *place = byte;
    }
    subject
}

/// A responder that says the same each time, when it is let, and counts.
#[derive(Default)]
struct Oracle {
    asked: AtomicUsize,
    gate: Notify,
}

impl Oracle {
    async fn say(self: Arc<Self>, finding: Looked) -> Looked {
        self.asked.fetch_add(1, SeqCst);
        self.gate.notified().await;
        finding
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

#[allow(clippy::unnecessary_wraps, reason = "as a lookup has it")]
fn found(verdict: Verdict, holds: Duration) -> Looked {
    Ok(Finding { verdict, holds })
}

/// Asks about one certificate; a responder would be at hand at once.
async fn ask(book: &Arc<Book>, verdict: Verdict, holds: Duration) -> Verdict {
    book.verdict(subject(1), || async move { found(verdict, holds) }).await
}

#[tokio::test(start_paused = true)]
async fn one_lookup_serves_all_who_wait() {
    let (book, oracle) = (Arc::new(Book::default()), Arc::new(Oracle::default()));
    let mut waiting = JoinSet::new();
    for _ in 0..100 {
        let (book, oracle) = (book.clone(), oracle.clone());
        waiting.spawn(
            async move { book.verdict(subject(1), || oracle.say(found(GOOD, HOLDS))).await },
        );
    }
    while oracle.asked() == 0 {
        yield_now().await;
    }
    oracle.gate.notify_one();
    let verdicts = waiting.join_all().await;
    assert!(verdicts.len() == 100 && verdicts.iter().all(|it| *it == GOOD));
    assert_eq!(oracle.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_believed_until_it_ends() {
    let book = Arc::new(Book::default());
    let revoked = Verdict::Failed("revoked");
    assert_eq!(ask(&book, GOOD, HOLDS).await, GOOD);
    advance(HOLDS.checked_sub(Duration::from_millis(1)).unwrap()).await;
    assert_eq!(ask(&book, revoked, HOLDS).await, GOOD);
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&book, revoked, HOLDS).await, revoked);
    assert_eq!(ask(&book, GOOD, HOLDS).await, revoked);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_believed_for_a_moment() {
    let book = Arc::new(Book::default());
    let failing = || book.verdict(subject(1), || async { NOTHING });
    assert_eq!(failing().await, FAILED);
    assert_eq!(ask(&book, GOOD, HOLDS).await, FAILED);
    advance(PAUSE).await;
    assert_eq!(ask(&book, GOOD, HOLDS).await, GOOD);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_goes_on_when_whoever_wanted_it_leaves() {
    let (book, oracle) = (Arc::new(Book::default()), Arc::new(Oracle::default()));
    let mut left = JoinSet::new();
    let (first, teller) = (book.clone(), oracle.clone());
    left.spawn(async move { first.verdict(subject(1), || teller.say(found(GOOD, HOLDS))).await });
    while oracle.asked() == 0 {
        yield_now().await;
    }
    left.shutdown().await;
    oracle.gate.notify_one();
    let second = book.verdict(subject(1), || oracle.clone().say(NOTHING)).await;
    assert_eq!((second, oracle.asked()), (GOOD, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_dies_lets_nobody_in_and_the_next_one_asks_again() {
    let book = Arc::new(Book::default());
    #[allow(clippy::panic, reason = "it is to die")]
    let died = book.verdict(subject(1), || async { panic!("a test's own") }).await;
    assert_eq!(died, FAILED);
    assert_eq!(ask(&book, GOOD, HOLDS).await, GOOD);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_holds_for_long_is_asked_for_anew_and_kept_while_nobody_answers() {
    let book = Arc::new(Book::default());
    let (long, revoked) = (3 * RENEWED, Verdict::Failed("revoked"));
    assert_eq!(ask(&book, GOOD, long).await, GOOD);
    advance(RENEWED).await;
    // Nobody answers: it stays, and is not asked for by every request.
    let failing = || book.verdict(subject(1), || async { NOTHING });
    assert_eq!(failing().await, GOOD);
    assert_eq!(ask(&book, revoked, long).await, GOOD);
    advance(RENEWED_AGAIN).await;
    assert_eq!(ask(&book, revoked, long).await, revoked);
    // And until its own end only.
    advance(long.checked_sub(Duration::from_millis(1)).unwrap()).await;
    assert_eq!(failing().await, revoked);
    advance(Duration::from_millis(1)).await;
    assert_eq!(failing().await, FAILED);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_wait_hears_what_is_known_and_has_the_rest_found_out() {
    let (book, oracle) = (Arc::new(Book::default()), Arc::new(Oracle::default()));
    let known = |finding| book.known(subject(1), || oracle.clone().say(finding));
    for _ in 0..3 {
        assert_eq!(known(found(GOOD, 2 * RENEWED)), None);
        yield_now().await;
    }
    oracle.gate.notify_one();
    assert_eq!(ask(&book, Verdict::None, HOLDS).await, GOOD, "who waits for the same lookup");
    assert_eq!((known(NOTHING), oracle.asked()), (Some(GOOD), 1));
    // While it is asked for anew, it is still true.
    advance(RENEWED).await;
    assert_eq!(known(NOTHING), Some(GOOD));
    yield_now().await;
    assert_eq!((known(NOTHING), oracle.asked()), (Some(GOOD), 2));
    advance(RENEWED).await;
    assert_eq!(known(NOTHING), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_has_a_bound() {
    let book = Arc::new(Book::default());
    let until = Instant::now() + HOLDS;
    for number in 2..MOST_ENTRIES + 2 {
        let known = Known { verdict: GOOD, until, due: until };
        book.lock().insert(subject(number), Entry::Known(known));
    }
    assert_eq!(ask(&book, GOOD, HOLDS).await, GOOD);
    assert_eq!(book.lock().len(), MOST_ENTRIES);
    // Nobody who waits is forgotten: then the newest is not let in.
    let (_tell, answer) = watch::channel(None);
    for entry in book.lock().values_mut() {
        *entry = Entry::Asked { answer: answer.clone(), before: None };
    }
    let refused = book.verdict(subject(0), || async { found(GOOD, HOLDS) }).await;
    assert_eq!(refused, FAILED);
    assert_eq!(book.lock().len(), MOST_ENTRIES);
}
