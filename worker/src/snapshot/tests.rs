//! Refusals, the join with health, what a new revision keeps.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::pool::rotation::Preference;

const BACKENDS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];

fn snapshot(revision: u64) -> wire::ListenerSnapshot {
    let backends = BACKENDS
        .iter()
        .map(|&address| wire::Backend { address: address.to_owned(), port: 80 })
        .collect();
    let kind = Some(wire::action::Kind::Forward(wire::Forward { binding: 0 }));
    wire::ListenerSnapshot {
        revision,
        listener: "127.0.0.1:80".to_owned(),
        sites: vec![wire::Site {
            name: "site".to_owned(),
            default_action: Some(wire::Action { kind, ..Default::default() }),
            ..Default::default()
        }],
        bindings: vec![wire::PoolBinding {
            pool: "pool".to_owned(),
            settings: "settings".to_owned(),
            backends,
            backend_settings: Some(wire::BackendSettings {
                scheme: wire::Scheme::Http.into(),
                host: wire::HostChoice::Client.into(),
                ..Default::default()
            }),
            distribution: None,
        }],
        limits: Some(wire::Limits { header_timeout_ms: 60_000, ..Default::default() }),
        ..Default::default()
    }
}

fn health(version: u64, in_rotation: &[&str]) -> wire::HealthSnapshot {
    let targets = BACKENDS
        .iter()
        .map(|&address| wire::TargetHealth {
            key: Some(wire::TargetKey {
                pool: "pool".to_owned(),
                settings: "settings".to_owned(),
                address: address.to_owned(),
                port: 80,
            }),
            in_rotation: in_rotation.contains(&address),
            ..Default::default()
        })
        .collect();
    wire::HealthSnapshot { version, targets, drained: None }
}

fn order(current: &Current) -> Vec<String> {
    candidates(&current.load(), 0)
}

fn candidates(serving: &Serving, binding: usize) -> Vec<String> {
    let client = [127, 0, 0, 1].into();
    let preference = Preference { client, cookie: None, own: None };
    let picks = serving.candidates(binding, &preference);
    picks.map(|backend| backend.address.to_string()).collect()
}

#[test]
fn nothing_is_served_before_the_first_table() {
    let current = Current::new();
    assert_eq!(current.load().table.revision, 0);
    assert!(current.load().table.router.route(false, Some("h"), "/").is_none());
    assert!(order(&current).is_empty());
}

#[test]
fn only_backends_in_rotation_get_work_and_turns_outlive_revisions() {
    let current = Current::new();
    current.install_table(Table::compile(snapshot(1), None).unwrap());
    assert!(order(&current).is_empty(), "an absent target is out of rotation");
    current.install_health(health(1, &["10.0.0.1", "10.0.0.3"]));
    assert_eq!(order(&current), ["10.0.0.1", "10.0.0.3"]);
    assert_eq!(order(&current), ["10.0.0.3", "10.0.0.1"]);
    assert_eq!(order(&current), ["10.0.0.1", "10.0.0.3"]);
    let before = current.load();
    let table = Table::compile(snapshot(2), Some(&before.table)).unwrap();
    current.install_table(table);
    assert_eq!(current.load().table.revision, 2);
    assert_eq!(order(&current), ["10.0.0.3", "10.0.0.1"]);
    current.install_health(health(2, &[]));
    assert!(order(&current).is_empty());
    assert_eq!(before.table.revision, 1, "a request keeps what it began with");
    assert_eq!(candidates(&before, 0).len(), 2);
    assert_eq!(candidates(&before, 7).len(), 0);
}

#[test]
fn health_that_came_first_is_joined_with_a_later_table() {
    let current = Current::new();
    current.install_health(health(5, &["10.0.0.2"]));
    current.install_table(Table::compile(snapshot(1), None).unwrap());
    assert_eq!(order(&current), ["10.0.0.2"]);
    assert_eq!(current.load().health_version, 5);
}

#[test]
fn no_limit_is_for_ever() {
    let limits = Table::compile(snapshot(1), None).unwrap().limits;
    assert_eq!(limits.header_timeout, Duration::from_secs(60));
    assert_eq!(limits.connect_timeout, FOREVER);
    assert_eq!(limits.max_body_bytes, u64::MAX);
    assert_eq!(limits.max_connections, usize::MAX);
}

#[test]
fn refusals_name_the_place_and_the_cause() {
    let refusal = |change: fn(&mut wire::ListenerSnapshot)| {
        let mut snapshot = snapshot(1);
        change(&mut snapshot);
        Table::compile(snapshot, None).unwrap_err().text()
    };
    assert_eq!(refusal(|s| s.limits = None), "no limits");
    assert_eq!(refusal(|s| s.bindings.clear()), "routing: site site: binding 0 does not exist");
    assert_eq!(
        refusal(|s| s.bindings[0].backend_settings = None),
        "pool pool under settings settings: no backend settings"
    );
    assert_eq!(
        refusal(|s| {
            s.sites[0].default_action.as_mut().unwrap().rewrite_set = Some(0);
        }),
        "site site: rewrite set 0 does not exist"
    );
    let broken = refusal(|s| {
        let condition = wire::RewriteCondition::default();
        let rule = wire::RewriteRule {
            name: "r".to_owned(),
            conditions: vec![condition],
            ..Default::default()
        };
        s.rewrite_sets = vec![wire::RewriteSet { name: "w".to_owned(), rules: vec![rule] }];
    });
    assert_eq!(broken, "rewrite set w: rule r: a condition has no source or no pattern");
    let text = refusal(|s| {
        s.certificates = vec![wire::Certificate { name: "c".to_owned(), ..Default::default() }];
    });
    assert!(text.starts_with("certificate c: "), "{text}");
}

#[test]
fn a_certificate_must_belong_to_its_key() {
    let make = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (one, other) = (make("a.com"), make("b.com"));
    let certificate = |key: &rcgen::KeyPair| wire::Certificate {
        name: "c".to_owned(),
        chain_der: vec![one.cert.der().to_vec()],
        key_der: key.serialize_der(),
        ..Default::default()
    };
    let with = |certificate| {
        let mut snapshot = snapshot(1);
        snapshot.certificates = vec![certificate];
        snapshot.sites[0].tls = true;
        Table::compile(snapshot, None)
    };
    let table = with(certificate(&one.signing_key)).unwrap();
    assert!(table.certificate_for(Some("a.com")).is_some());
    let refused = with(certificate(&other.signing_key)).unwrap_err();
    assert!(matches!(refused, SnapshotRefusal::Certificate { .. }));
}

/// A snapshot whose second binding shares requests out to the first, under the first one's own name.
fn shared() -> wire::ListenerSnapshot {
    let mut snapshot = snapshot(1);
    let shares = vec![wire::Share { binding: 0, weight: 1 }];
    let algorithm = wire::DistributionAlgorithm::RoundRobin.into();
    let policy = wire::PoolBinding {
        backends: Vec::new(),
        distribution: Some(wire::Distribution { algorithm, shares }),
        ..snapshot.bindings[0].clone()
    };
    snapshot.bindings.push(policy);
    snapshot
}

#[test]
fn a_policy_goes_by_the_health_of_its_pools_and_is_no_pool_itself() {
    let current = Current::new();
    current.install_table(Table::compile(shared(), None).unwrap());
    current.install_health(health(1, &["10.0.0.2", "10.0.0.3"]));
    assert_eq!(candidates(&current.load(), 1), ["10.0.0.2", "10.0.0.3"]);
    let table = &current.load().table;
    assert!(table.binding("pool", "settings").unwrap().distribution.is_none());
    let again = Table::compile(shared(), Some(table)).unwrap();
    for (before, after) in table.bindings.iter().zip(&again.bindings) {
        assert!(Arc::ptr_eq(&before.cursor, &after.cursor), "turns go on");
        assert!(Arc::ptr_eq(&before.backends[0], &after.backends[0]));
    }
}

#[test]
fn only_drained_backends_that_are_well_are_where_cookies_lead() {
    let current = Current::new();
    current.install_table(Table::compile(snapshot(1), None).unwrap());
    let mut told = health(1, &["10.0.0.1"]);
    for target in &mut told.targets[1..] {
        target.drained = true;
    }
    told.targets[1].set_state(wire::HealthState::Healthy);
    told.targets[2].set_state(wire::HealthState::Unhealthy);
    current.install_health(told);
    let serving = current.load();
    let backends = &serving.table.bindings[0].backends;
    let led_to = |index: usize| {
        let (client, cookie) = ([127, 0, 0, 1].into(), backends.get(index));
        let preference = Preference { client, cookie, own: None };
        serving.candidates(0, &preference).next().unwrap().address.to_string()
    };
    assert_eq!([0, 1, 2].map(led_to), ["10.0.0.1", "10.0.0.2", "10.0.0.1"]);
    assert_eq!([0, 1, 2].map(|at| serving.is_in_rotation(0, &backends[at])), [true, false, false]);
}

#[test]
fn affinity_without_a_key_and_shares_that_lead_nowhere_are_refused() {
    let refusal = |change: fn(&mut wire::ListenerSnapshot)| {
        let mut snapshot = shared();
        change(&mut snapshot);
        Table::compile(snapshot, None).map(drop).map_err(|refusal| refusal.text())
    };
    let under = |cause: &str| Err(format!("pool pool under settings settings: {cause}"));
    let sticky = |snapshot: &mut wire::ListenerSnapshot| {
        let settings = snapshot.bindings[0].backend_settings.as_mut().unwrap();
        settings.affinity = Some(wire::Affinity { cookie_name: "Sticky".to_owned() });
    };
    assert_eq!(refusal(sticky), under("affinity: no key for affinity cookies"));
    let keyed = |snapshot: &mut wire::ListenerSnapshot| snapshot.affinity_key = vec![1; 32];
    assert_eq!(refusal(keyed), Ok(()));
    assert_eq!(
        refusal(|s| s.bindings.swap(0, 1)),
        under("share 0 does not lead to a pool under the same settings")
    );
    assert_eq!(
        refusal(|s| s.bindings[1].backends = s.bindings[0].backends.clone()),
        under("the distribution has backends of its own")
    );
}
