//! No record is given to two.

use super::*;

/// Claims, marks and frees at random; `taken` knows of every record whether somebody has it.
fn quarrel(arena: &Arena, generation: u64, seed: u64, rounds: usize, taken: &[AtomicBool]) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut mine: Vec<u32> = Vec::new();
    for _ in 0..rounds {
        if random.random_bool(0.55) {
            let index = arena.claim(generation).unwrap();
            assert!(!taken[index as usize].swap(true, AcqRel), "{index} was given twice");
            let cell = arena.cell(index).unwrap();
            assert_eq!(cell.owner(), Some(Owner::opening(generation)));
            assert!(bytes_of(arena, index).iter().all(|byte| *byte == 0), "{index} is not clean");
            cell.id.store(u64::from(index) << 32 | generation, Relaxed);
            cell.frozen_at_us.store(u64::MAX, Relaxed);
            let owned = Owner::owned(generation);
            assert!(cell.swap_owner(Owner::opening(generation), owned));
            assert!(!cell.swap_owner(Owner::opening(generation), owned));
            mine.push(index);
        } else if !mine.is_empty() {
            let index = mine.swap_remove(random.random_range(0..mine.len()));
            let cell = arena.cell(index).unwrap();
            assert_eq!(cell.id.load(Relaxed), u64::from(index) << 32 | generation);
            assert_eq!(cell.owner(), Some(Owner::owned(generation)));
            taken[index as usize].store(false, Release);
            assert!(arena.free(index));
        }
    }
    for index in mine {
        taken[index as usize].store(false, Release);
        assert!(arena.free(index));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn threads_and_processes_never_get_the_same_record(seed: u64, rounds in 10..3000_usize) {
        let first = Arena::create().unwrap();
        let arenas = [&first, &second(&first), &second(&first)];
        let taken: Vec<_> = (0..4 * rounds + 1000).map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                // Two threads share the first.
                let (arena, taken) = (arenas[usize::try_from(thread).unwrap() % 3], &taken);
                scope.spawn(move || quarrel(arena, thread + 1, seed ^ thread, rounds, taken));
            }
        });
        prop_assert_eq!(first.occupied().count(), 0);
        prop_assert!(taken.iter().all(|taken| !taken.load(Relaxed)));
        prop_assert_eq!(second(&first).claim(9), Some(0));
    }
}

#[test]
fn low_records_come_first_and_what_another_process_frees_comes_back() {
    let arena = Arena::create().unwrap();
    let other = second(&arena);
    let claimed: Vec<_> = (0..200).map(|_| arena.claim(1).unwrap()).collect();
    assert_eq!(claimed, (0..200).collect::<Vec<_>>());
    assert_eq!(other.occupied().count(), 200);
    for index in [150, 3, 77] {
        assert!(arena.free(index));
    }
    assert_eq!([arena.claim(1), arena.claim(1)], [Some(3), Some(77)]);
    assert!(other.free(9), "an heir may free");
    assert_eq!(other.claim(2), Some(9));
    // The mark stands above 200, and what lies between belongs to whoever is first.
    let both: BTreeSet<_> = (0..500).flat_map(|_| [arena.claim(1), other.claim(2)]).collect();
    assert!(both.len() == 1000 && !both.contains(&None));
}

#[test]
fn a_full_arena_says_so_and_recovers() {
    let arena = Arena::create().unwrap();
    let other = second(&arena);
    // Only the mark and the owner words matter here.
    for index in 0..CAPACITY - 3 {
        arena.cell(index).unwrap().owner.store(Owner::owned(1).word(), Relaxed);
    }
    arena.map.header.high_water.store(CAPACITY - 70, Relaxed);
    let last: Vec<_> = (0..3).map(|_| arena.claim(1)).collect();
    assert_eq!(last, [CAPACITY - 3, CAPACITY - 2, CAPACITY - 1].map(Some));
    assert_eq!((arena.claim(1), other.claim(2)), (None, None));
    assert!(arena.free(77_777));
    assert_eq!((other.claim(2), arena.claim(1)), (Some(77_777), None));
    assert_eq!(arena.occupied().count(), CAPACITY as usize);
}
