//! The seeds, and inputs by the thousand, without libFuzzer: the target stands by itself, and judges what it should.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;

use holdfast_fuzz::{judge, seeds};

/// How many inputs are made of the seeds.
const MADE: u64 = 3000;

#[test]
fn seeds_are_judged_and_meet_every_end() {
    let ends: BTreeSet<String> = seeds::all()
        .iter()
        .map(|(name, input)| {
            let end = format!("{:?}", judge(input));
            let is_data = name.ends_with("-data") || name.ends_with("-from-elsewhere");
            assert!(!is_data || end == "Waiting", "{name}: {end}");
            end.chars().take_while(|letter| !letter.is_ascii_digit()).collect()
        })
        .collect();
    let ends: Vec<_> = ends.iter().map(|end| end.trim_end_matches([')', '('])).collect();
    // All but `NotOne`, which is a breach of the caller's.
    assert_eq!(
        ends,
        [
            "Alert",
            "Closed",
            "Refused(AlertLevel",
            "Refused(BadRecordMac",
            "Refused(BehindKeyUpdate",
            "Refused(ChangeCipherSpec",
            "Refused(CutHeader",
            "Refused(Empty",
            "Refused(Handshake",
            "Refused(Interleaved",
            "Refused(MalformedAlert",
            "Refused(MalformedHandshake",
            "Refused(PaddingOnly",
            "Refused(RecordOverflow",
            "Refused(Renegotiation",
            "Refused(TooShort",
            "Refused(Type",
            "Refused(UpdateRequest",
            "Refused(Version",
            "Waiting",
        ]
    );
}

#[test]
fn inputs_of_two_seeds_and_a_changed_byte_are_judged() {
    let seeds = seeds::all();
    let mut chance = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |most: usize| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        usize::try_from(chance % u64::try_from(most).unwrap()).unwrap()
    };
    for _ in 0..MADE {
        let (_, first) = &seeds[below(seeds.len())];
        let (_, second) = &seeds[below(seeds.len())];
        let mut input = [first, &second[3..]].concat();
        let at = below(input.len());
        input[at] = u8::try_from(below(256)).unwrap();
        judge(&input);
    }
}

#[test]
fn no_input_is_too_short() {
    for length in 0..8 {
        judge(&vec![0; length]);
        judge(&vec![255; length]);
    }
}
