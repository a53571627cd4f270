//! What two Holdfast processes must agree on, and nothing else.
//!
//! The supervisor serves gRPC on `RUNTIME/control.sock`; workers and the prober dial it and open one stream each
//! ([`control`]). Descriptors travel on `RUNTIME/fd.sock` ([`fd_channel`],
//! [`vault`]). Operators call [`admin`]. What a rewrite may hold is in [`rewrite`], what a process logs in [`log_filter`]. What only one
//! process uses does not belong here.

pub mod backend_name;
pub mod bootstrap;
pub mod error_page;
#[cfg(any(test, feature = "failpoints"))]
pub mod failpoint;
pub mod fd_channel;
pub mod level;
pub mod log_filter;
pub mod process;
pub mod rewrite;
pub mod uds;
pub mod usage;
pub mod vault;

/// Messages between the supervisor and its children.
pub mod control {
    #![allow(missing_docs, unreachable_pub, reason = "generated code")]
    #![allow(clippy::all, clippy::pedantic, reason = "generated code")]
    #![allow(clippy::allow_attributes_without_reason, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("holdfast.control.v1");
    }
    pub use v1::*;

    impl std::fmt::Debug for TicketKey {
        /// Leaves the secret out.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("TicketKey").field("until", &self.until).finish_non_exhaustive()
        }
    }
}

/// Messages and service of the operator API.
pub mod admin {
    #![allow(missing_docs, unreachable_pub, reason = "generated code")]
    #![allow(clippy::all, clippy::pedantic, reason = "generated code")]
    #![allow(clippy::allow_attributes_without_reason, reason = "generated code")]
    pub mod v1 {
        tonic::include_proto!("holdfast.admin.v1");
    }
    pub use v1::*;
}

/// The admin API's file descriptors, for the reflection service (all packages).
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/holdfast.binpb"));

/// Version of the control protocol. What two processes of different ones still say to one another is in
/// `supervisor/src/grpc/foreign.rs`.
pub const PROTOCOL: u32 = 1;

/// Longest message on `control.sock`, bytes: a table with thousands of sites and their certificates. A child takes no longer
/// one, and its supervisor sends none: a configuration that would need one is refused.
pub const LONGEST_MESSAGE: usize = 256 * 1024 * 1024;

/// The protocol that this process speaks: [`PROTOCOL`], unless a test says otherwise.
pub fn protocol() -> u32 {
    static SPOKEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *SPOKEN.get_or_init(|| planted_number!("protocol").unwrap_or(PROTOCOL))
}

/// What `strings` finds in an executable. [`VERSION`] is a part of it, so that a test can make an executable of another
/// version from a copy.
const STAMP: &str = concat!("holdfast version ", env!("CARGO_PKG_VERSION"));

/// Version of this executable.
pub const VERSION: &str = STAMP.split_at("holdfast version ".len()).1;

/// Passes the failpoint of that name; `failpoint!("name", return Err(…))` can also be told to fail there. Nothing without
/// the feature `failpoints`.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoint::pass($name);
    };
    ($name:literal, $error:expr) => {
        if $crate::failpoint::pass($name) {
            $error
        }
    };
}

/// Nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {};
    ($name:literal, $error:expr) => {};
}

/// The number that a test has planted under that name; `None` without the feature `failpoints`.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! planted_number {
    ($name:literal) => {
        $crate::failpoint::number($name)
    };
}

/// Nobody plants numbers in this build.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! planted_number {
    ($name:literal) => {
        None::<u32>
    };
}

/// Whether the planted fault of that name is real; `false` without the feature `failpoints`.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::failpoint::is_planted($name)
    };
}

/// No fault is real: this build has none.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        false
    };
}
