//! What a worker knows of a snapshot, as one number. It says so in its Hello, and is never sent a snapshot that needs a
//! higher one: what it does not know it would pass over, and serve a site without its client certificates, say.
//!
//! Not the protocol's version: workers of another level speak on, are protected, and hand their tunnels over.
//!
//! | level | knows |
//! | --- | --- |
//! | 0 | sites, routes, redirects, pools, settings, limits; whatever else a build from before levels knows is not relied on |
//! | 1 | every field that a snapshot had when levels came, up to `check_revocation`, `standing` and `body_of` |
//!
//! Whoever adds a field that must not be passed over adds a level here, and to what needs it
//! (`supervisor/src/compile/level.rs`).

/// The level of this build.
pub const LEVEL: u32 = 1;

/// The level of this process: [`LEVEL`], unless a test says otherwise.
pub fn level() -> u32 {
    static KNOWN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(|| crate::planted_number!("level").unwrap_or(LEVEL))
}
