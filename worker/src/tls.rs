//! TLS: what clients are offered and asked for, and once rustls has done the handshake, a session that belongs to no process.
//!
//! What a handshake takes is in `profile`, `client_auth` judges what a client shows, `ocsp` what others say of it, and `tickets` let it
//! come back; `staple` is what is shown to it. rustls shakes hands and speaks HTTP; a tunnel's session then leaves it for good (`session`). What is left of it are
//! keys and numbers (`keys`) and the framing of records (`record`), which is all that a successor
//! needs to go on. So that it can leave, `bounded` keeps rustls from reading further than the record that it is at,
//! and `capture` keeps the secrets that rustls itself does not give out. `names` is for people, and `fingerprint` tells backends
//! what kind of client it is.
//!
//! Nothing here reads a socket but through `bounded`. Secrets never reach a log.

pub(crate) mod bounded;
pub(crate) mod capture;
pub(crate) mod client_auth;
pub(crate) mod fingerprint;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod ocsp;
pub(crate) mod profile;
pub(crate) mod record;
pub(crate) mod session;
pub(crate) mod staple;
pub(crate) mod tickets;
#[cfg(test)]
mod trusting;
