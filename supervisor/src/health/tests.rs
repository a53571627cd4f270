//! The health table, by table.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;

const NOW: u64 = 1_700_000_000_000;

fn key(pool: &str, address: &str) -> TargetKey {
    TargetKey { pool: pool.into(), settings: "s".into(), address: address.into(), port: 80 }
}

fn target(pool: &str, address: &str) -> Target {
    Target { key: Some(key(pool, address)), probe: None, known: 0 }
}

fn verdict(pool: &str, address: &str, state: HealthState, last: &str) -> Verdict {
    Verdict {
        key: Some(key(pool, address)),
        state: state.into(),
        last: last.into(),
        since_unix_ms: NOW + 5_000,
    }
}

fn table(addresses: &[&str], min_servers: u32) -> HealthTable {
    let mut table = HealthTable::with_clock(|| NOW);
    let targets = addresses.iter().map(|address| target("Pool", address)).collect();
    table.set_targets(targets, vec![("Pool".into(), "s".into(), min_servers)]);
    table
}

fn drained(pool: &str, backend: &str) -> DrainedBackend {
    DrainedBackend { pool: pool.into(), backend: backend.into() }
}

#[test]
fn what_a_worker_was_told_stands_only_where_nothing_is_known() {
    use HealthState::{Healthy, Unhealthy};
    let mut before = table(&["a", "b", "c"], 0);
    before.verdict(verdict("Pool", "a", Healthy, "x"));
    before.verdict(verdict("Pool", "b", Unhealthy, "x"));
    let told = before.snapshot();
    let mut after = table(&["a", "b", "d"], 0);
    after.verdict(verdict("Pool", "b", Healthy, "now"));
    assert!(after.recall(&told));
    assert!(!after.recall(&told));
    let rotation: Vec<bool> = after.snapshot().targets.iter().map(|it| it.in_rotation).collect();
    assert_eq!(rotation, [true, true, false]);
    assert!(!after.missing(&[key("Pool", "a"), key("Pool", "b")]));
    after.verdict(verdict("Pool", "a", Healthy, "200"));
    assert_eq!(after.report()[0].backends[0].last, "200");
}

/// Who has turned, and whether they are well now.
fn turns(table: &mut HealthTable) -> Vec<(String, bool, String)> {
    let told = |turn: Turn| (turn.key.address, turn.is_healthy, turn.reason);
    table.take_turns().into_iter().map(told).collect()
}

#[test]
fn each_turn_is_told_once_with_its_reason() {
    use HealthState::{Healthy, Unhealthy};
    let turned = |address: &str, is_healthy, reason: &str| {
        vec![(address.to_owned(), is_healthy, reason.to_owned())]
    };
    let mut table = table(&["a", "b"], 0);
    for (address, state, last, expected) in [
        ("a", Healthy, "200", vec![]),
        ("b", Unhealthy, "refused", turned("b", false, "refused")),
        ("b", Unhealthy, "refused", vec![]),
        ("b", Unhealthy, "503", vec![]),
        ("b", Healthy, "200", turned("b", true, "200")),
        ("b", Healthy, "204", vec![]),
        ("a", Unhealthy, "503", turned("a", false, "503")),
        ("gone", Unhealthy, "503", vec![]),
    ] {
        table.verdict(verdict("Pool", address, state, last));
        assert_eq!(turns(&mut table), expected, "{address} {last}");
    }
    // Neither another revision nor an operator's drain is a turn.
    table.set_targets(vec![target("Pool", "a")], Vec::new());
    table.set_drained(&[drained("pool", "a")]);
    assert_eq!(turns(&mut table), []);
}

#[test]
fn what_an_earlier_supervisor_knew_is_no_turn_whoever_is_heard_first() {
    use HealthState::{Healthy, Unhealthy};
    let all = ["still ill", "fell ill", "got well", "new and ill", "new and well"];
    let mut before = table(&all[..3], 0);
    for (address, state) in all.iter().zip([Unhealthy, Healthy, Unhealthy]) {
        before.verdict(verdict("Pool", address, state, "x"));
    }
    let told = before.snapshot();
    let now = || all.iter().zip([Unhealthy, Unhealthy, Healthy, Unhealthy, Healthy]);
    for prober_first in [true, false] {
        let mut after = table(&all, 0);
        after.begin_recalling();
        if !prober_first {
            after.recall(&told);
        }
        for (address, state) in now() {
            after.verdict(verdict("Pool", address, state, "now"));
        }
        after.recall(&told);
        after.end_recalling();
        let mut turned = turns(&mut after);
        turned.sort_unstable();
        let turn = |address: &str, is_healthy| (address.to_owned(), is_healthy, "now".to_owned());
        let expected =
            [turn("fell ill", false), turn("got well", true), turn("new and ill", false)];
        assert_eq!(turned, expected, "the prober first: {prober_first}");
        after.verdict(verdict("Pool", "new and ill", Healthy, "200"));
        assert_eq!(turns(&mut after).len(), 1);
    }
}

#[test]
fn rotation_is_healthy_or_kept_and_not_drained() {
    use HealthState::{Healthy, Unhealthy, Unknown};
    // (states of a, b, c; minServers; drained; in rotation)
    let cases: &[([HealthState; 3], u32, &str, [bool; 3])] = &[
        ([Unknown, Unknown, Unknown], 0, "", [false, false, false]),
        ([Healthy, Unhealthy, Unknown], 0, "", [true, false, false]),
        ([Unhealthy, Unhealthy, Healthy], 1, "", [true, false, true]),
        ([Unknown, Unhealthy, Unhealthy], 2, "", [true, true, false]),
        ([Unhealthy, Unhealthy, Unhealthy], 9, "", [true, true, true]),
        ([Healthy, Healthy, Healthy], 0, "b", [true, false, true]),
        ([Healthy, Healthy, Healthy], 3, "B:80", [true, false, true]),
        ([Healthy, Healthy, Healthy], 0, "b:81", [true, true, true]),
        ([Healthy, Healthy, Healthy], 0, "[b]:80", [true, false, true]),
    ];
    for (states, min_servers, out, expected) in cases {
        let mut table = table(&["a", "b", "c"], *min_servers);
        for (address, state) in ["a", "b", "c"].iter().zip(states) {
            table.verdict(verdict("Pool", address, *state, "x"));
        }
        if !out.is_empty() {
            table.set_drained(&[drained("pOOL", out)]);
        }
        let rotation: Vec<bool> = table.snapshot().targets.iter().map(|t| t.in_rotation).collect();
        assert_eq!(rotation, expected, "{states:?} {min_servers} {out}");
    }
}

#[test]
fn the_version_rises_with_a_change_and_only_then() {
    let mut table = table(&["a"], 0);
    let first = table.snapshot().version;
    assert!(table.verdict(verdict("Pool", "a", HealthState::Healthy, "200")));
    assert_eq!(table.snapshot().version, first + 1);
    assert!(!table.verdict(verdict("Pool", "a", HealthState::Healthy, "200")));
    assert!(table.verdict(verdict("Pool", "a", HealthState::Healthy, "204")));
    assert!(!table.verdict(verdict("Pool", "gone", HealthState::Healthy, "200")));
    assert!(!table.verdict(verdict("Pool", "a", HealthState::Unknown, "")));
    assert!(!table.verdict(Verdict { key: None, state: 1, ..Verdict::default() }));
    assert!(
        !table.verdict(Verdict { state: 77, ..verdict("Pool", "a", HealthState::Healthy, "") })
    );
    assert_eq!(table.snapshot().version, first + 1);
    // Of one that nobody is routed to workers are told, too.
    table.set_drained(&[drained("other", "a")]);
    assert_eq!(table.snapshot().version, first + 2);
    table.set_drained(&[drained("pool", "a")]);
    assert_eq!(table.snapshot().version, first + 3);
    table.set_drained(&[drained("pool", "a")]);
    assert_eq!(table.snapshot().version, first + 3);
    table.set_drained(&[]);
    assert_eq!(table.snapshot().version, first + 4);
}

#[test]
fn what_stays_keeps_its_health_through_a_revision() {
    let mut table = table(&["a", "b"], 0);
    table.verdict(verdict("Pool", "a", HealthState::Healthy, "200"));
    table.verdict(verdict("Pool", "b", HealthState::Unhealthy, "refused"));
    table.set_drained(&[drained("pool", "new")]);
    assert!(table.complete());
    let targets = vec![target("Pool", "new"), target("Pool", "a"), target("Pool", "a")];
    table.set_targets(targets, Vec::new());
    let states: Vec<_> = table.snapshot().targets.iter().map(|t| (t.state(), t.drained)).collect();
    assert_eq!(states, [(HealthState::Unknown, true), (HealthState::Healthy, false)]);
    assert!(!table.complete());
    assert!(!table.missing(&[key("Pool", "a")]));
    assert!(table.missing(&[key("Pool", "a"), key("Pool", "new")]));
    assert!(table.missing(&[key("Pool", "b")]));
    let known: Vec<_> = table.targets_with_known().iter().map(Target::known).collect();
    assert_eq!(known, [HealthState::Unknown, HealthState::Healthy]);
}

#[test]
fn an_empty_table_is_complete() {
    assert!(HealthTable::new().complete());
    assert!(HealthTable::new().report().is_empty());
}

#[test]
fn the_report_groups_by_pool_and_settings_in_order() {
    let mut table = HealthTable::with_clock(|| NOW);
    let targets = vec![target("p", "a"), target("q", "a"), target("p", "b")];
    table.set_targets(targets, Vec::new());
    table.verdict(verdict("p", "b", HealthState::Unhealthy, "connection refused"));
    table.set_drained(&[drained("q", "a:80")]);
    let report = table.report();
    let names: Vec<_> = report.iter().map(|pool| pool.pool.as_str()).collect();
    assert_eq!(names, ["p", "q"]);
    let rows: Vec<_> = report
        .iter()
        .flat_map(|pool| &pool.backends)
        .map(|b| (b.address.as_str(), b.state.as_str(), b.since.as_str(), b.last.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("a", "Unknown", "2023-11-14T22:13:20Z", ""),
            ("b", "Unhealthy", "2023-11-14T22:13:25Z", "connection refused"),
            ("a", "Draining", "2023-11-14T22:13:20Z", ""),
        ]
    );
}

#[test]
fn a_new_prober_does_not_reset_the_beginning_of_a_state() {
    let mut table = table(&["a"], 0);
    table.verdict(verdict("Pool", "a", HealthState::Healthy, "200"));
    let again =
        Verdict { since_unix_ms: NOW + 99_000, ..verdict("Pool", "a", HealthState::Healthy, "ok") };
    assert!(table.verdict(again));
    assert_eq!(table.report()[0].backends[0].since, "2023-11-14T22:13:25Z");
    let broken =
        Verdict { since_unix_ms: u64::MAX, ..verdict("Pool", "a", HealthState::Unhealthy, "no") };
    assert!(table.verdict(broken));
    assert_eq!(table.report()[0].backends[0].since, "1970-01-01T00:00:00Z");
}
