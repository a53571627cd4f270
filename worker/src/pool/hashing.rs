//! Which backend an address belongs to: rendezvous hashing with weights.
//!
//! Every pair of an address and a backend has a score, and the highest wins. So a backend that comes or goes moves only
//! the addresses that it wins or has won. Every worker on every machine comes to the same scores: nothing here may
//! depend on the process, on the order of a pool or on how a name is spelled.

use std::net::IpAddr;

/// FNV-1a's offset and prime for 64 bits.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// What a backend brings to its scores.
pub(super) fn backend(address: &str, port: u16) -> u64 {
    let name = address.bytes().map(|byte| byte.to_ascii_lowercase());
    // No name holds the byte between them.
    mix(fold(name.chain([b':']).chain(port.to_be_bytes())))
}

/// What a client brings to them. One that came as an IPv4-mapped IPv6 address is an IPv4 client.
pub(super) fn client(client: IpAddr) -> u64 {
    mix(match client.to_canonical() {
        IpAddr::V4(address) => fold(address.octets().into_iter()),
        IpAddr::V6(address) => fold(address.octets().into_iter()),
    })
}

/// The score of a pair, greater than zero. Of two backends the one of double weight wins twice as many clients.
pub(super) fn score(client: u64, backend: u64, weight: f64) -> f64 {
    let drawn = u32::try_from(mix(client ^ backend) >> 32).unwrap_or(0);
    // Uniform, and between 0 and 1 without touching either.
    let drawn = (f64::from(drawn) + 0.5) / (f64::from(u32::MAX) + 1.0);
    -weight / drawn.ln()
}

fn fold(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The finish of `splitmix64`: every bit of the argument turns about half of the result's.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
