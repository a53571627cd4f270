//! What a thread has left, as its heir finds it.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::tunnel::arena::CARRY;
use holdfast_proto::process::ProcessId;

const ID: TunnelId = 7 << 40 | 3;

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: 1 }
}

/// An arena with a thread of generation 1 that has just received these.
fn received(bytes: &[u8], from: u64) -> (Arc<Arena>, Intake) {
    let arena = Arc::new(Arena::create().unwrap());
    assert!(arena.enrol(1, process(1)));
    let mut intake = arena.seat(1, 2).unwrap().intake(1 << 20).unwrap();
    let room = intake.begin(ID, Towards::Backend, from);
    room.get_mut(..bytes.len()).unwrap().copy_from_slice(bytes);
    (arena, intake)
}

#[test]
fn what_a_thread_has_left_is_found_once() {
    let (arena, intake) = received(b"half a message", 1000);
    drop(intake);
    assert_eq!(arena.left_in_intakes(1), [], "that is the process itself");
    let left = arena.left_in_intakes(2);
    assert_eq!(left, [Left { id: ID, entry: 0, thread: 2, towards: Towards::Backend, from: 1000 }]);
    // Its heir dies before it has taken it, and so may the table's entry be another one's by then.
    arena.leave(1);
    assert!(arena.enrol(2, process(2)));
    assert_eq!(arena.left_in_intakes(3), left);

    let index = arena.claim(3).unwrap();
    // What a place in the table says by now is what counts.
    let earlier = Left { from: 999, ..left[0] };
    arena.salvage(index, &earlier).unwrap();
    let cell = arena.cell(index).unwrap();
    assert!(!cell.has_kept());
    arena.salvage(index, &left[0]).unwrap();
    assert_eq!((cell.kept(Towards::Backend), cell.kept(Towards::Client)), (Some(1000), None));
    let mut bytes = [0; 9];
    assert_eq!(arena.read_carry(index, Towards::Backend, 5, &mut bytes), 9);
    assert_eq!(&bytes, b"a message");
    assert_eq!(arena.left_in_intakes(3), []);
}

#[test]
fn what_was_left_of_a_tunnel_that_is_over_is_forgotten() {
    let (arena, _intake) = received(b"first", 0);
    let index = arena.claim(1).unwrap();
    arena.cell(index).unwrap().id.store(ID, Relaxed);
    arena.tidy_intakes(1);
    assert_eq!(arena.left_in_intakes(2).len(), 1, "it is not over");
    assert!(arena.free(index));
    arena.tidy_intakes(1);
    assert_eq!(arena.left_in_intakes(2), []);
}

#[test]
fn what_was_sent_is_not_left() {
    let (arena, mut intake) = received(b"first", 0);
    intake.end();
    assert_eq!(arena.left_in_intakes(2), []);
    intake.begin(ID + 1, Towards::Client, 5);
    assert_eq!(arena.left_in_intakes(2).iter().map(|it| it.id).collect::<Vec<_>>(), [ID + 1]);
}

#[test]
fn a_place_that_somebody_has_left_bytes_in_is_taken_last() {
    let (arena, _intake) = received(b"", 0);
    arena.leave(1);
    for generation in 2..=64 {
        assert!(arena.enrol(generation, process(2)));
    }
    assert_eq!(arena.left_in_intakes(99).len(), 1);
    assert!(arena.enrol(65, process(2)), "and then it is");
    assert_eq!(arena.left_in_intakes(99), []);
}

#[test]
fn an_intake_is_as_large_as_its_carry_slot_and_every_thread_has_its_own() {
    let arena = Arc::new(Arena::create().unwrap());
    assert!(arena.enrol(1, process(1)) && arena.enrol(2, process(2)));
    let mut intakes: Vec<Intake> = Vec::new();
    for (generation, thread) in [(1, 0), (1, 31), (2, 0), (2, 31)] {
        intakes.push(arena.seat(generation, thread).unwrap().intake(usize::MAX).unwrap());
    }
    for (mark, intake) in (1..).zip(&mut intakes) {
        let room = intake.begin(ID, Towards::Client, 0);
        assert_eq!(room.len(), CARRY);
        room.fill(mark);
    }
    for (mark, intake) in (1..).zip(&mut intakes) {
        assert!(intake.begin(ID, Towards::Client, 0).iter().all(|byte| *byte == mark));
    }
    assert!(
        arena.seat(1, 32).is_none() && arena.seat(3, 0).is_none() && arena.seat(0, 0).is_none()
    );
}
