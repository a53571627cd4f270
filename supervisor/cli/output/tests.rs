//! The JSON that scripts rely on, field by field.

use holdfast_proto::admin::{
    BackendHealth, Change, ListenerStatus, PoolHealth, ProberStatus, Refusal, Replacement,
    RevisionInfo, TunnelInfo,
};

use super::*;

fn status() -> StatusResponse {
    StatusResponse {
        revision: 4,
        version: "0.1.0".into(),
        supervisor_pid: 10,
        prober: Some(ProberStatus { pid: 11, state: "serving".into(), version: "0.1.0".into() }),
        listeners: vec![ListenerStatus {
            name: "127.0.0.1:80".into(),
            address: "127.0.0.1:80".into(),
            sites: vec!["a".into(), "b".into()],
            workers: vec![WorkerStatus {
                pid: 12,
                generation: 2,
                version: "0.1.0".into(),
                state: "serving".into(),
                revision: 4,
                tunnels: 9,
                protected: 7,
                reason: "it gets old".to_owned(),
                pinned: 1,
            }],
        }],
        ready: true,
        problems: vec!["the file was refused".into()],
        log_filter: "debug".into(),
        tunnels_ended: [("client", 3), ("admin", 5), ("idle", 0)]
            .map(|(cause, count)| (cause.to_owned(), count))
            .into(),
    }
}

#[test]
fn status_has_its_contracted_shape() {
    let worker = json!({
        "pid": 12, "generation": 2, "version": "0.1.0", "state": "serving", "revision": 4,
        "tunnels": 9, "protected": 7, "reason": "it gets old", "pinned": 1,
    });
    let expected = json!({
        "revision": 4,
        "version": "0.1.0",
        "ready": true,
        "supervisor": {"pid": 10},
        "prober": {"pid": 11, "state": "serving", "version": "0.1.0"},
        "listeners": [{
            "name": "127.0.0.1:80",
            "address": "127.0.0.1:80",
            "sites": ["a", "b"],
            "workers": [worker],
        }],
        "problems": ["the file was refused"],
        "log_filter": "debug",
        "tunnels_ended": {"admin": 5, "client": 3, "idle": 0},
    });
    assert_eq!(status_json(&status()), expected);
}

#[test]
fn status_text_names_problems_and_unprotected_tunnels() {
    let text = status_text(&status());
    for part in [
        "revision 4, ready, logging debug",
        "problem: the file was refused",
        "9 (2 unprotected, 1 pinned)",
        "tunnels ended: admin 5, client 3\n",
        "a b",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn health_has_its_contracted_shape() {
    let health = HealthResponse {
        pools: vec![PoolHealth {
            pool: "chat".into(),
            settings: "plain".into(),
            backends: vec![BackendHealth {
                address: "::1".into(),
                port: 8080,
                state: "Healthy".into(),
                since: "2026-01-01T00:00:00Z".into(),
                last: "200".into(),
            }],
        }],
    };
    let backend = json!({
        "address": "::1", "port": 8080, "state": "Healthy", "since": "2026-01-01T00:00:00Z",
        "last": "200",
    });
    let expected = json!([{"pool": "chat", "settings": "plain", "backends": [backend]}]);
    assert_eq!(health_json(&health), expected);
    assert!(health_text(&health).contains("[::1]:8080"));
    assert_eq!(health_json(&HealthResponse::default()), json!([]));
}

#[test]
fn tunnels_have_their_contracted_shape() {
    let mut tunnels = TunnelsResponse {
        tunnels: vec![TunnelInfo {
            id: "t1".into(),
            listener: "127.0.0.1:80".into(),
            site: "a".into(),
            pool: "chat".into(),
            settings: "plain".into(),
            backend: "10.0.0.4:80".into(),
            client: "10.0.0.9:5000".into(),
            opened: "2026-01-01T00:00:00Z".into(),
            bytes_in: 1,
            bytes_out: 2048,
            idle_ms: 250,
            age_ms: 61_500,
            trace_id: String::new(),
            pinned: String::new(),
            client_end: "open".into(),
            backend_end: String::new(),
        }],
        ..TunnelsResponse::default()
    };
    let expected = json!([{
        "id": "t1", "listener": "127.0.0.1:80", "site": "a", "pool": "chat", "settings": "plain",
        "backend": "10.0.0.4:80", "client": "10.0.0.9:5000", "opened": "2026-01-01T00:00:00Z",
        "age_seconds": 61.5, "idle_seconds": 0.25, "bytes_in": 1, "bytes_out": 2048, "trace_id": "",
        "pinned": null, "client_end": "open", "backend_end": null,
    }]);
    assert_eq!(tunnels_json(&tunnels), expected);
    assert!(!tunnels_text(&tunnels).contains("PINNED"));
    assert!(tunnels_text(&tunnels).contains("2.0 KiB"));
    tunnels.tunnels[0].pinned = "tls".into();
    assert_eq!(tunnels_json(&tunnels)[0]["pinned"], "tls");
    let text = tunnels_text(&tunnels);
    assert!(text.contains("PINNED") && text.contains("tls") && !text.contains("ENDED"), "{text}");
    tunnels.tunnels[0].client_end = "fin".into();
    tunnels.tunnels[0].backend_end = "open".into();
    let text = tunnels_text(&tunnels);
    assert!(text.contains("ENDED") && text.contains("client fin  tls"), "{text}");
    assert_eq!(tunnels_text(&TunnelsResponse::default()), "no tunnels\n");
}

#[test]
fn a_refused_change_says_what_stays() {
    let change = ChangeResponse {
        accepted: false,
        revision: 3,
        diagnostics: vec![Diagnostic {
            severity: Severity::Error.into(),
            path: "properties.probes[0]".into(),
            line: 7,
            column: 3,
            reason: "no name".into(),
            mend: "give it one".into(),
        }],
        ..ChangeResponse::default()
    };
    assert!(change_text(&change, false).contains("refused; revision 3 stays in force"));
    assert_eq!(
        diagnostics_text("gateway.json", &change.diagnostics),
        "gateway.json:7:3: error: no name\n  at: properties.probes[0]\n  mend: give it one\n"
    );
    assert_eq!(change_json(&change)["diagnostics"][0]["line"], 7);
}

#[test]
fn a_change_tells_steps_and_refusals() {
    let change = ChangeResponse {
        accepted: true,
        revision: 5,
        changed: true,
        changes: vec![Change {
            what: "listener 0.0.0.0:80".into(),
            kind: "remove".into(),
            detail: String::new(),
            tunnels: 3,
        }],
        refusals: vec![Refusal { listener: "0.0.0.0:81".into(), pid: 9, reason: "old".into() }],
        silent: vec![SilentWorker { listener: "0.0.0.0:80".into(), pid: 8, tunnels: 2 }],
        ..ChangeResponse::default()
    };
    let value = change_json(&change);
    assert_eq!(value["changes"][0]["tunnels"], 3);
    assert_eq!(value["refusals"][0]["pid"], 9);
    assert_eq!(value["silent"][0]["tunnels"], 2);
    let note = "note: worker 8 of 0.0.0.0:80 has not answered, it is stopped or very busy: its 2 tunnels are not among these\n";
    assert!(change_text(&change, true).ends_with(note));
    assert_eq!(
        refusals_text(&change),
        "error: worker 9 of 0.0.0.0:81 does not serve revision 5, and serves on with the one before: old. `holdfast restart \
         0.0.0.0:81` replaces it\n"
    );
}

#[test]
fn a_place_without_a_line_is_null() {
    let diagnostic = Diagnostic {
        severity: Severity::Warning.into(),
        reason: "no effect here".into(),
        ..Diagnostic::default()
    };
    assert_eq!(
        diagnostics_json(std::slice::from_ref(&diagnostic))[0],
        json!({
            "severity": "warning", "path": "", "line": null, "column": null,
            "reason": "no effect here", "mend": "",
        })
    );
    assert_eq!(diagnostics_text("f", &[diagnostic]), "f: warning: no effect here\n");
}

#[test]
fn revisions_and_restarts_have_stable_shapes() {
    let revisions = RevisionsResponse {
        revisions: vec![RevisionInfo {
            revision: 1,
            applied_at: "2026-01-01T00:00:00Z".into(),
            source: "apply".into(),
            by: "uid 0 pid 1".into(),
            in_force: true,
        }],
    };
    assert_eq!(revisions_json(&revisions)[0]["in_force"], true);
    let mut restart = RestartResponse {
        replaced: vec![Replacement {
            listener: "0.0.0.0:80".into(),
            old_pid: 1,
            new_pid: 2,
            error: String::new(),
            pinned: 0,
        }],
    };
    assert_eq!(
        restart_json(&restart)[0],
        json!({"listener": "0.0.0.0:80", "old_pid": 1, "new_pid": 2, "error": null, "pinned": 0})
    );
    assert!(restart_text(&restart).ends_with("the successor serves\n"));
    assert_eq!(not_replaced_text(&restart.replaced), "");
    restart.replaced[0].pinned = 3;
    assert!(restart_text(&restart).contains("serves; 3 pinned tunnels drain with the old worker"));
    restart.replaced[0].error = "it did not start".into();
    let told = not_replaced_text(&restart.replaced);
    assert!(told.contains("0.0.0.0:80: it did not start. What served before serves on"), "{told}");
}

#[test]
fn one_tunnel_is_no_tunnels() {
    assert_eq!([0, 1, 2].map(tunnels_count), ["0 tunnels", "1 tunnel", "2 tunnels"]);
}
