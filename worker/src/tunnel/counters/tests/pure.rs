//! The arithmetic alone.

use super::*;

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let figure = || prop_oneof![0..10_u64, any::<u64>(), Just(u64::MAX)];
    (figure(), figure(), figure(), figure(), 0..16_u8).prop_map(
        |(received, acked, in_queue, out_queue, state)| Snapshot {
            received,
            acked,
            in_queue,
            out_queue,
            state,
            last_data_recv_ms: 0,
        },
    )
}

/// A socket in a state, that has sent and received as told.
fn socket(state: u8, received: u64, in_queue: u64, accepted: u64, out_queue: u64) -> Snapshot {
    let fin_received = u64::from([6, 7, 8, 9, 11].contains(&state));
    Snapshot {
        received: received + fin_received,
        acked: accepted - out_queue,
        in_queue,
        out_queue,
        state,
        last_data_recv_ms: 0,
    }
}

proptest! {
    #[test]
    fn any_figures_get_an_answer(
        source in any_snapshot(), target in any_snapshot(), received: u64, accepted: u64, prelude: u64, kept: Option<u64>,
        reset: bool,
    ) {
        let bases = Bases { received, accepted };
        match progress(&source, &target, bases, prelude, kept, reset) {
            Ok(Progress::Stream { moved, discard, owed: 0 }) => {
                prop_assert!(discard <= moved && discard <= source.in_queue);
            }
            Ok(Progress::Stream { moved, discard, owed }) => {
                let from = kept.unwrap();
                prop_assert!(discard == 0 && from <= moved && moved - from + owed <= CARRY as u64);
            }
            Ok(Progress::Prelude { sent }) => prop_assert!(sent < prelude),
            Ok(Progress::Done) => prop_assert!(target.own_fin()),
            Err(impossible) => prop_assert!(!impossible.to_string().is_empty()),
        }
    }

    #[test]
    fn true_figures_are_told_exactly(
        source_state in prop::sample::select(vec![1_u8, 4, 5, 7, 8, 9, 11]),
        target_state in prop::sample::select(vec![1_u8, 8]),
        bases in (0..1_000_000_u64, 0..1_000_000_u64),
        prelude in 0..1000_u64,
        consumed in 0..1_000_000_u64,
        (discard, fresh) in (0..100_000_u64, 0..100_000_u64),
        unacked in 0..1000_u64,
    ) {
        let bases = Bases { received: bases.0, accepted: bases.1 };
        let moved = consumed + discard;
        let in_queue = discard + fresh;
        let accepted = bases.accepted + prelude + moved;
        let source = socket(source_state, bases.received + consumed + in_queue, in_queue, 9, 0);
        let target = socket(target_state, 5, 5, accepted, unacked.min(accepted));
        let found = progress(&source, &target, bases, prelude, None, false);
        prop_assert_eq!(found, Ok(Progress::Stream { moved, discard, owed: 0 }));
        // One byte more consumed than sent, or fewer arrived than sent, cannot be.
        let ahead = Snapshot { in_queue: in_queue - in_queue.min(discard + 1), ..source };
        prop_assert!(fresh == 0 || progress(&ahead, &target, bases, prelude, None, false).is_err()
            || in_queue < discard + 1);
    }
}

#[test]
fn nothing_is_consumed_before_the_prelude_is_through() {
    let bases = Bases { received: 10, accepted: 20 };
    let target = socket(1, 0, 0, 25, 5);
    let untouched = socket(1, 40, 30, 0, 0);
    assert_eq!(
        progress(&untouched, &target, bases, 6, None, false),
        Ok(Progress::Prelude { sent: 5 })
    );
    let through = Ok(Progress::Stream { moved: 0, discard: 0, owed: 0 });
    assert_eq!(progress(&untouched, &target, bases, 5, None, false), through);
    let touched = socket(1, 40, 29, 0, 0);
    progress(&touched, &target, bases, 6, None, false).unwrap_err();
    progress(&touched, &target, bases, 5, None, false).unwrap_err();
    assert!(progress(&touched, &target, bases, 4, None, false).is_ok());
}

#[test]
fn bytes_that_were_taken_and_not_sent_are_owed_where_they_are_kept() {
    let (source, bases) = (socket(1, 110, 10, 0, 0), Bases { received: 0, accepted: 20 });
    let found =
        |accepted, kept| progress(&source, &socket(1, 0, 0, accepted, 5), bases, 0, kept, false);
    let owed = |moved, owed| Ok(Progress::Stream { moved, discard: 0, owed });
    assert_eq!(found(120, Some(40)), owed(100, 0), "the target has them all");
    assert_eq!(found(100, Some(40)), owed(80, 20));
    assert_eq!(found(60, Some(40)), owed(40, 60), "all that is kept");
    found(59, Some(40)).unwrap_err();
    found(100, None).unwrap_err();
    let far = socket(1, CARRY as u64 + 50, 9, 0, 0);
    let found = |from| progress(&far, &socket(1, 0, 0, 70, 0), bases, 0, Some(from), false);
    found(40).unwrap_err();
    assert_eq!(found(41), owed(50, CARRY as u64 - 9));
}
