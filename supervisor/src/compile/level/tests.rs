//! What needs a worker that knows it, and what does not.
#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;

use holdfast_proto::control::{AccessLog, ClientSource, ErrorPage, Http2, RewriteSet, TicketKey};

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
    assert_eq!(change(|it| it.error_pages.push(ErrorPage::default())), 1);
    assert_eq!(change(|it| it.access_log = Some(AccessLog::default())), 1);
    assert_eq!(change(|it| it.http2 = Some(Http2::default())), 0);
    assert_eq!(change(|it| it.ticket_keys.push(TicketKey::default())), 0);
    let dedicated = change(|it| {
        it.bindings.first_mut().unwrap().backend_settings.as_mut().unwrap().dedicated = true;
    });
    assert_eq!(dedicated, 1);
    assert!(dedicated <= holdfast_proto::level::LEVEL);
}
