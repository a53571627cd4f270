//! Texts and preludes of every length.

use super::*;
use layout::{INLINE, OVERFLOW_HEAP};

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn texts(texts: [&str; 5]) -> Texts {
    let [site, pool, settings, backend, trace_id] = texts.map(Into::into);
    Texts { site, pool, settings, backend, trace_id }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![6 => "\\PC{0,40}", 1 => "[a-zé]{100,2000}"]
}

fn any_length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..200_usize, 3 => 150..400_usize, 2 => 0..20_000_usize, 1 => 0..400_000_usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn a_heap_reads_as_it_was_written(
        words in prop::array::uniform5(any_text()),
        lengths in (any_length(), any_length(), any_length()),
        index in prop_oneof![0..10_u32, Just(CAPACITY - 1)],
        seed: u64,
    ) {
        let arena = Arena::create().unwrap();
        arena.cell(index).unwrap().owner.store(Owner::opening(1).word(), Relaxed);
        arena.map.header.high_water.store(index + 1, Relaxed);
        arena.cell(index).unwrap().wipe();
        let before = memory(&arena);
        let texts = texts(words.each_ref().map(String::as_str));
        let (head, to_client) = (noise(seed, lengths.0), noise(seed + 1, lengths.1));
        let to_backend = noise(seed + 2, lengths.2);
        arena.write_heap(index, &texts, &[&head, &to_client], &to_backend).unwrap();

        let other = second(&arena);
        prop_assert_eq!(&other.read_texts(index), &texts);
        prop_assert!(other.read_prelude(index, Towards::Client) == [head, to_client].concat());
        prop_assert!(other.read_prelude(index, Towards::Backend) == to_backend);
        let cell = other.cell(index).unwrap();
        prop_assert_eq!(cell.prelude_len(Towards::Client), (lengths.0 + lengths.1) as u64);
        prop_assert_eq!(cell.prelude_len(Towards::Backend), lengths.2 as u64);
        let words: usize = words.iter().map(String::len).sum();
        let fits = words + lengths.0 + lengths.1 + lengths.2 <= INLINE;
        prop_assert_eq!(memory(&arena) == before, fits, "overflow only where it is needed");

        // Each is there until both are through.
        let both = memory(&arena);
        cell.set_ends(ends::TO_BACKEND_PRELUDE_DONE);
        other.drop_preludes(index);
        if lengths.0 + lengths.1 > 0 {
            prop_assert_eq!(memory(&arena), both);
            let left = other.read_prelude(index, Towards::Client);
            prop_assert!(left == [noise(seed, lengths.0), noise(seed + 1, lengths.1)].concat());
        }
        cell.set_ends(ends::TO_CLIENT_PRELUDE_DONE);
        other.drop_preludes(index);
        prop_assert_eq!(&arena.read_texts(index), &texts);
        let kept = if words <= INLINE { 0 } else { words as u64 + 4096 };
        prop_assert!(memory(&arena) <= before + kept);
        prop_assert_eq!(cell.prelude_len(Towards::Backend), lengths.2 as u64, "progress needs it");
        prop_assert!(other.free(index));
        prop_assert!(bytes_of(&arena, index).iter().all(|byte| *byte == 0));
        prop_assert_eq!(memory(&arena), before, "all memory came back");
    }
}

#[test]
fn a_heap_has_exactly_the_room_that_the_layout_says() {
    let arena = Arena::create().unwrap();
    let index = arena.claim(1).unwrap();
    let none = texts([""; 5]);
    for (length, fits) in
        [(INLINE, true), (INLINE + 1, true), (OVERFLOW_HEAP, true), (OVERFLOW_HEAP + 1, false)]
    {
        let bytes = noise(1, length);
        let outcome = arena.write_heap(index, &none, &[&bytes[..100]], &bytes[100..]);
        match outcome {
            Ok(()) => {
                assert!(fits && arena.read_prelude(index, Towards::Backend) == bytes[100..]);
            }
            Err(ArenaError::TooLong { bytes }) => assert!(!fits && bytes == length),
            Err(error) => panic!("{error:?}"),
        }
    }
    // The carry slots behind it are never touched.
    let carry = OVERFLOW + u64::from(index) * OVERFLOW_EACH + OVERFLOW_HEAP as u64;
    let mut bytes = vec![1; 128 << 10];
    memfd::read_at(&arena.fd, &mut bytes, carry).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    let long = "x".repeat(usize::from(u16::MAX));
    let longest = texts([&long; 5]);
    arena.write_heap(index, &longest, &[], b"early").unwrap();
    assert_eq!(arena.read_texts(index), longest);
    assert_eq!(arena.read_prelude(index, Towards::Backend), b"early");
    let longer = texts([&format!("{long}x"), "", "", "", ""]);
    let refused = arena.write_heap(index, &longer, &[], &[]).unwrap_err();
    assert!(matches!(refused, ArenaError::TooLong { .. }), "{refused:?}");
    assert_eq!(arena.read_texts(index), longest, "what is refused changes nothing");
    let refused = arena.write_heap(CAPACITY, &none, &[], &[]).unwrap_err();
    assert!(matches!(refused, ArenaError::Foreign), "{refused:?}");
}

#[test]
fn a_second_heap_leaves_nothing_of_the_first() {
    let arena = Arena::create().unwrap();
    let index = arena.claim(1).unwrap();
    let before = memory(&arena);
    let long = texts([&"x".repeat(1000), "", "", "", ""]);
    arena.write_heap(index, &long, &[&noise(1, 50_000)], &[]).unwrap();
    assert!(memory(&arena) > before);
    let short = texts(["site", "pool", "settings", "backend", "trace"]);
    arena.write_heap(index, &short, &[b"head"], b"early").unwrap();
    assert_eq!(memory(&arena), before);
    assert_eq!(arena.read_texts(index), short);
}

#[test]
fn lengths_that_cannot_be_show_as_a_prelude_that_is_too_short() {
    let arena = Arena::create().unwrap();
    let index = arena.claim(1).unwrap();
    let cell = arena.cell(index).unwrap();
    for heap in [0, 1, 2, 3, u32::MAX] {
        cell.heap.store(heap, Relaxed);
        for length in [1_000_000, u32::MAX] {
            cell.prelude_to_client.store(length, Relaxed);
            cell.prelude_to_backend.store(length, Relaxed);
            for towards in [Towards::Client, Towards::Backend] {
                let read = arena.read_prelude(index, towards).len() as u64;
                assert!(read < cell.prelude_len(towards));
            }
        }
    }
}
