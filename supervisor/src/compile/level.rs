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
        // HTTP/2 and keys of tickets are offers: whoever does not know them makes none.
    ];
    u32::from(one.contains(&true))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use holdfast_proto::control::{ClientSource, Http2, RewriteSet, TicketKey};

    use super::*;

    #[test]
    fn only_what_must_not_be_passed_over_needs_a_worker_that_knows_it() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let text = std::fs::read_to_string(dir.join("gateway.resource.json")).unwrap();
        let gateway = crate::config::load(&text, &dir).unwrap().gateway;
        let compiled = crate::compile::compile(&gateway).unwrap();
        let levels = compiled.listeners.values().map(|it| (it.tls_profiles.len(), needed(it)));
        assert_eq!(levels.collect::<Vec<_>>(), [(0, 0), (1, 1)]);
        let plain = compiled.listeners.values().next().unwrap();
        let change = |change: fn(&mut ListenerSnapshot)| {
            let mut changed = plain.clone();
            change(&mut changed);
            needed(&changed)
        };
        assert_eq!(change(|it| it.client_source = Some(ClientSource::default())), 1);
        assert_eq!(change(|it| it.rewrite_sets.push(RewriteSet::default())), 1);
        assert_eq!(change(|it| it.http2 = Some(Http2::default())), 0);
        assert_eq!(change(|it| it.ticket_keys.push(TicketKey::default())), 0);
        let dedicated = change(|it| {
            it.bindings.first_mut().unwrap().backend_settings.as_mut().unwrap().dedicated = true;
        });
        assert_eq!(dedicated, 1);
        assert!(dedicated <= holdfast_proto::level::LEVEL);
    }
}
