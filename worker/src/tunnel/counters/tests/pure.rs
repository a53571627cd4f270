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
        source in any_snapshot(), target in any_snapshot(), received: u64, accepted: u64, prelude: u64, reset: bool,
    ) {
        let bases = Bases { received, accepted };
        match progress(&source, &target, bases, prelude, reset) {
            Ok(Progress::Stream { moved, discard }) => prop_assert!(discard <= moved && discard <= source.in_queue),
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
        let found = progress(&source, &target, bases, prelude, false);
        prop_assert_eq!(found, Ok(Progress::Stream { moved, discard }));
        // One byte more consumed than sent, or fewer arrived than sent, cannot be.
        let ahead = Snapshot { in_queue: in_queue - in_queue.min(discard + 1), ..source };
        prop_assert!(fresh == 0 || progress(&ahead, &target, bases, prelude, false).is_err()
            || in_queue < discard + 1);
    }
}

#[test]
fn nothing_is_consumed_before_the_prelude_is_through() {
    let bases = Bases { received: 10, accepted: 20 };
    let target = socket(1, 0, 0, 25, 5);
    let untouched = socket(1, 40, 30, 0, 0);
    assert_eq!(progress(&untouched, &target, bases, 6, false), Ok(Progress::Prelude { sent: 5 }));
    let through = Ok(Progress::Stream { moved: 0, discard: 0 });
    assert_eq!(progress(&untouched, &target, bases, 5, false), through);
    let touched = socket(1, 40, 29, 0, 0);
    progress(&touched, &target, bases, 6, false).unwrap_err();
    progress(&touched, &target, bases, 5, false).unwrap_err();
    assert!(progress(&touched, &target, bases, 4, false).is_ok());
}
