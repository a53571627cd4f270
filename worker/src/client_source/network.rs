//! A block of addresses.

use std::net::IpAddr;

/// The addresses that share some bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    V4 { first: u32, mask: u32 },
    V6 { first: u128, mask: u128 },
}

// === impl Network ===

impl Network {
    /// `None`: it is none.
    pub(super) fn new(address: &[u8], prefix: u32) -> Option<Self> {
        if let Ok(octets) = <[u8; 4]>::try_from(address) {
            // A shift by all bits is none that the type knows.
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(Self::V4 { first: u32::from_be_bytes(octets) & mask, mask })
        } else {
            let octets = <[u8; 16]>::try_from(address).ok()?;
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix)?).unwrap_or(0);
            Some(Self::V6 { first: u128::from_be_bytes(octets) & mask, mask })
        }
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::V4 { first, mask }, IpAddr::V4(address)) => address.to_bits() & mask == first,
            (Self::V6 { first, mask }, IpAddr::V6(address)) => address.to_bits() & mask == first,
            _ => false,
        }
    }
}
