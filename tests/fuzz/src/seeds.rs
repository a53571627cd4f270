//! The inputs that every campaign begins with: each act of a script, for each protocol and role.
//!
//! Written as acts and not kept as files, so that a new number for an act changes them all.

use crate::script::play;
use crate::theirs::kits;

/// Bytes of an input behind its setting, by name: what befalls one session.
const STORIES: &[(&str, &[u8])] = &[
    ("data", &[0, 5, b'h', b'e', b'l', b'l', b'o', 0, 1, b'!', 0, 0]),
    ("long", &[5, 4, 4, 23, 0x40, 0x00, 5, 5]),
    ("too-long", &[4, 23, 0x40, 0xff, 4, 23, 0x44, 0x00]),
    ("longest-fragment", &[13, 0, 0, 0, 12, 0, 9, 0, 1, 7, 13, 16, 0, 0]),
    ("padded", &[12, 0, 99, 0, 2, 1, 2, 12, 0, 1, 2, 2, 1, 0]),
    ("padded-to-the-end", &[12, 0x3f, 0xff, 0, 1, 7, 12, 0x40, 0x00, 0, 1, 7]),
    ("nothing-but-padding", &[6, 0, 9]),
    ("nothing-at-all", &[6, 0, 0]),
    ("noise", &[11, 39, 0, 1, 7, 11, 31]),
    ("wrong-kind", &[3, 24, 3, 1, 2, 3]),
    ("change-cipher-spec-inside", &[3, 20, 1, 1]),
    ("change-cipher-spec-plain", &[18, 6, 20, 3, 3, 0, 1, 1]),
    ("empty-handshake", &[1, 0]),
    ("empty-alert", &[2, 0]),
    ("close", &[0, 1, 1, 10, 1, 0, 0, 1, 2]),
    ("canceled", &[10, 1, 90, 0, 1, 1, 10, 1, 0]),
    ("fatal", &[0, 1, 1, 10, 2, 20, 0, 1, 2]),
    ("no-level", &[10, 9, 10]),
    ("closed-at-no-level", &[10, 9, 0]),
    ("warnings", &[10, 1, 100, 10, 1, 100, 10, 1, 100, 10, 1, 100, 10, 1, 100, 0, 1, 1]),
    ("odd-alert", &[2, 1, 1]),
    ("long-alert", &[2, 3, 1, 0, 0]),
    ("two-alerts", &[2, 4, 1, 90, 1, 0]),
    ("update", &[0, 1, 1, 7, 0, 0, 1, 2, 7, 1, 0, 1, 3]),
    ("bad-update", &[7, 4, 0, 1, 1]),
    ("update-without-a-new-key", &[7, 8, 0, 1, 1]),
    ("new-key-without-a-word", &[16, 0, 1, 1]),
    ("data-behind-update", &[1, 6, 24, 0, 0, 1, 0, 0]),
    ("long-update", &[1, 6, 24, 0, 0, 2, 0, 0]),
    ("cut-update", &[9, 4, 5, 24, 0, 0, 1, 0]),
    ("update-in-two-records", &[9, 4, 5, 24, 0, 0, 1, 0, 16, 0, 1, 1]),
    ("update-of-no-length", &[1, 4, 24, 0, 0, 0]),
    ("ticket", &[8, 0, 1, 0, 99, 0, 1, 1]),
    ("tickets-in-pieces", &[8, 2, 0, 50, 99, 98, 97, 0, 1, 1]),
    ("ticket-that-lies", &[8, 0x10, 1, 0, 99, 0, 1, 1]),
    ("longest-ticket", &[8, 8, 0x40, 0, 0xff, 0xff, 0, 1, 1]),
    ("longest-ticket-of-rustls", &[8, 8, 0x3f, 0xff, 0xff, 0xe0, 0, 1, 1]),
    ("ticket-too-long", &[8, 0xf8, 0x40, 0, 0xff, 0xff]),
    ("ticket-too-short", &[1, 6, 4, 0, 0, 2, 0, 0]),
    ("ticket-a-byte-too-short", &[1, 4, 4, 0, 0, 13]),
    ("shortest-ticket", &[1, 4, 4, 0, 0, 14]),
    ("longest-ticket-of-all", &[1, 4, 4, 2, 1, 9]),
    ("ticket-a-byte-too-long", &[1, 4, 4, 2, 1, 10]),
    ("data-within-ticket", &[1, 6, 4, 0, 0, 99, 0, 0, 0, 1, 1]),
    ("ticket-and-update", &[8, 0, 1, 0, 9, 1, 5, 24, 0, 0, 1, 1, 16, 0, 1, 1]),
    ("header-in-pieces", &[9, 1, 5, 24, 0, 0, 1, 0]),
    ("hello-request", &[1, 4, 0, 0, 0, 0, 0, 1, 1]),
    ("hello-requests", &[1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]),
    ("long-hello-request", &[1, 5, 0, 0, 0, 1, 0]),
    ("client-hello", &[1, 4, 1, 0, 0, 0, 0, 1, 1]),
    ("unknown-message", &[1, 4, 99, 0, 0, 0]),
    ("sealed-as-plain-kind", &[14, 22, 3, 3, 0, 1, 1]),
    ("sealed-as-unknown", &[14, 99, 3, 3, 0, 1, 1]),
    ("sealed-as-old", &[14, 23, 3, 1, 0, 1, 1]),
    ("own-nonce", &[15, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 1, 0, 1, 2]),
    ("number-skipped", &[0, 1, 1, 17, 1, 0, 1, 2]),
    ("tag-hurt", &[0, 1, 1, 0, 1, 2, 19, 0, 0, 1]),
    ("text-hurt", &[0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 19, 0, 20, 128]),
    ("kind-lies", &[0, 1, 1, 20, 0, 21]),
    ("version-lies", &[0, 1, 1, 20, 2, 1]),
    ("longer-than-it-is", &[0, 1, 1, 20, 4, 99]),
    ("shorter-than-it-is", &[0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 4, 20]),
    ("shorter-than-a-tag", &[0, 1, 1, 20, 4, 1]),
    ("longer-than-allowed", &[0, 1, 1, 20, 3, 0xff]),
    ("cut-off", &[0, 1, 1, 0, 1, 2, 21, 0, 3]),
    ("one-inside-another", &[0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 21, 0, 3, 0, 1, 1]),
    ("again", &[0, 1, 1, 22, 0]),
    ("in-another-order", &[0, 1, 1, 0, 1, 2, 23]),
    ("one-lost", &[0, 1, 1, 24, 0, 1, 2]),
    ("never-sealed", &[25, 23, 0, 99]),
];

/// Name and bytes of each.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (who, kit) in (0..).zip(kits()) {
        let of_kit =
            |name| format!("{:02x}-{:?}-{name}", kit.protocol.code(), kit.role).to_lowercase();
        for (at, (name, acts)) in (0u8..).zip(STORIES) {
            // In pieces of some length, and now and then under other numbers.
            let number = if at % 5 == 4 { 224 + at % 32 } else { 0 };
            let setting = [who, number, at];
            seeds.push((of_kit(*name), [&setting, *acts].concat()));
        }
        seeds.push((of_kit("from-elsewhere"), from_elsewhere(who)));
    }
    seeds
}

/// Bytes that no act seals, and that are a record of the peer's all the same.
fn from_elsewhere(who: u8) -> Vec<u8> {
    let sealed = play(&[who, 0, 0, 0, 1, 7]).wire;
    let length = u8::try_from(sealed.len()).unwrap();
    [&[who, 0, 0, 18, length], sealed.as_slice()].concat()
}
