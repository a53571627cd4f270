//! That a responder that swallows questions costs nobody else anything.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::pending;

use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::advance;

use super::*;

#[derive(Debug)]
enum Trouble {
    NoTurn(NoTurn),
    Absent,
    Odd,
}

impl From<NoTurn> for Trouble {
    fn from(why: NoTurn) -> Self {
        Self::NoTurn(why)
    }
}

async fn ask(
    turns: &Turns,
    responder: &str,
    asking: impl Future<Output = Result<(), Trouble>>,
) -> Result<(), Trouble> {
    turns.take(responder.to_owned(), asking, |why| matches!(why, Trouble::Absent)).await
}

/// So many who wait for a responder until they are let; each tells when it has its turn.
fn crowd(
    turns: &Arc<Turns>,
    responder: &'static str,
    count: usize,
    asked: &watch::Sender<usize>,
) -> JoinSet<Result<(), Trouble>> {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        let (turns, asked) = (turns.clone(), asked.clone());
        crowd.spawn(async move {
            let swallowed = async {
                asked.send_modify(|asked| *asked += 1);
                pending().await
            };
            ask(&turns, responder, swallowed).await
        });
    }
    crowd
}

async fn until(asked: &watch::Sender<usize>, count: usize) {
    asked.subscribe().wait_for(|asked| *asked >= count).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_swallows_questions_has_only_its_own_places() {
    let (turns, asked) = (Arc::new(Turns::default()), watch::Sender::new(0));
    let _crowd = crowd(&turns, "hole:80", 2 * MOST, &asked);
    until(&asked, MOST_OF_ONE).await;
    for _ in 0..1000 {
        yield_now().await;
    }
    assert_eq!(*asked.borrow(), MOST_OF_ONE);
    let before = Instant::now();
    ask(&turns, "healthy:80", async { Ok(()) }).await.unwrap();
    ask(&turns, "hole:81", async { Ok(()) }).await.unwrap();
    assert_eq!(Instant::now(), before, "nobody has waited");
    let late = ask(&turns, "hole:80", async { Ok(()) }).await;
    assert!(matches!(late, Err(Trouble::NoTurn(NoTurn::Crowd))), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn all_together_have_a_bound() {
    let (turns, asked) = (Arc::new(Turns::default()), watch::Sender::new(0));
    let responders = ["a", "b", "c", "d", "e", "f"];
    let _crowds = responders.map(|it| crowd(&turns, it, MOST_OF_ONE, &asked));
    until(&asked, MOST).await;
    for _ in 0..1000 {
        yield_now().await;
    }
    assert_eq!(*asked.borrow(), MOST);
    let late = ask(&turns, "g", async { Ok(()) }).await;
    assert!(matches!(late, Err(Trouble::NoTurn(NoTurn::Crowd))), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn who_was_not_there_is_left_alone_for_a_moment_and_nobody_else_is() {
    let turns = Turns::default();
    let absent = ask(&turns, "gone:80", async { Err(Trouble::Absent) }).await;
    assert!(matches!(absent, Err(Trouble::Absent)));
    advance(AFTER_FAILURE / 2).await;
    let left = ask(&turns, "gone:80", async { Ok(()) }).await;
    assert!(
        matches!(left, Err(Trouble::NoTurn(NoTurn::LeftAlone { remaining })) if remaining == AFTER_FAILURE / 2),
        "{left:?}"
    );
    ask(&turns, "healthy:80", async { Ok(()) }).await.unwrap();
    advance(AFTER_FAILURE / 2).await;
    ask(&turns, "gone:80", async { Ok(()) }).await.unwrap();
    // One that answers oddly is there: it may know of others.
    assert!(matches!(ask(&turns, "odd:80", async { Err(Trouble::Odd) }).await, Err(Trouble::Odd)));
    ask(&turns, "odd:80", async { Ok(()) }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn those_in_the_queue_do_not_ask_who_has_just_been_found_gone() {
    let (turns, asked) = (Arc::new(Turns::default()), watch::Sender::new(0));
    let leave = Arc::new(tokio::sync::Notify::new());
    let mut asking = JoinSet::new();
    for _ in 0..2 * MOST_OF_ONE {
        let (turns, asked, leave) = (turns.clone(), asked.clone(), leave.clone());
        asking.spawn(async move {
            let absent = async {
                asked.send_modify(|asked| *asked += 1);
                leave.notified().await;
                Err(Trouble::Absent)
            };
            ask(&turns, "gone:80", absent).await
        });
    }
    until(&asked, MOST_OF_ONE).await;
    leave.notify_waiters();
    let results = asking.join_all().await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(*asked.borrow(), MOST_OF_ONE);
}

#[tokio::test(start_paused = true)]
async fn responders_that_nobody_waits_for_are_forgotten() {
    let turns = Turns::default();
    for number in 0..2 * KNOWN {
        ask(&turns, &number.to_string(), async { Ok(()) }).await.unwrap();
        assert!(turns.each.lock().unwrap().len() <= KNOWN);
    }
    let absent = ask(&turns, "gone", async { Err(Trouble::Absent) }).await;
    assert!(absent.is_err());
    for number in 0..KNOWN {
        ask(&turns, &number.to_string(), async { Ok(()) }).await.unwrap();
    }
    assert!(turns.each.lock().unwrap().contains_key("gone"), "it is left alone");
}
