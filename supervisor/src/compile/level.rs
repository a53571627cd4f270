//! What a worker must know of a snapshot to serve it as it is meant, as a number (`holdfast_proto::level`).

use holdfast_proto::control::{BackendSettings, ListenerSnapshot};

/// The lowest level that knows everything of a snapshot that must not be passed over.
pub fn needed(snapshot: &ListenerSnapshot) -> u32 {
    let settings = |it: &BackendSettings| it.dedicated || it.affinity.is_some();
    let one = [
        // Client certificates, and versions and suites that are not to be offered.
        !snapshot.tls_profiles.is_empty(),
        // Who may say who a client is.
        snapshot.client_source.is_some(),
        // Headers that are to be taken out, or put in.
        !snapshot.rewrite_sets.is_empty(),
        // A connection to a backend that somebody has signed in on is nobody else's.
        snapshot.bindings.iter().filter_map(|it| it.backend_settings.as_ref()).any(settings),
        snapshot.bindings.iter().any(|it| it.distribution.is_some()),
        snapshot.access_log.is_some(),
        !snapshot.error_pages.is_empty(),
        // HTTP/2 and keys of tickets are offers: whoever does not know them makes none. What stands is told to everybody: by no
        // worker of a build that was ever released is it not known.
    ];
    u32::from(one.contains(&true))
}

#[cfg(test)]
mod tests;
