//! What a command prints: JSON in the shapes that scripts rely on, text that a person can read.
//!
//! Everything here is pure but `print*` and `complain`. Text that came from elsewhere (a backend's answer, a client's
//! address) never reaches the terminal with control characters in it.

mod colour;
mod explain;
mod table;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_proto::admin::{
    ChangeResponse, Diagnostic, HealthResponse, Replacement, RestartResponse, RevisionsResponse,
    Severity, SilentWorker, StatusResponse, TunnelInfo, TunnelsResponse, WorkerStatus,
};
use holdfast_proto::backend_name::endpoint;
use holdfast_supervisor::facts::silent_words;
pub(crate) use holdfast_supervisor::facts::{
    health_json, revisions_json, status_json, tunnels_json,
};
use serde_json::{Value, json};

pub(crate) use self::explain::{explain_json, explain_text};
pub(crate) use self::table::printable;
use self::table::{Table, look};

/// Prints facts for people.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints facts for programs.
pub(crate) fn print_json(value: &Value) -> io::Result<()> {
    print(&format!("{value:#}\n"))
}

/// Whether a line of progress stands on standard error that the next text must not be appended to.
static IN_PROGRESS: AtomicBool = AtomicBool::new(false);

/// Back to the line's beginning, and nothing in it.
const WIPE: &str = "\r\u{1b}[K";

/// Writes a line of progress over the last one, cut to the terminal. Only where standard error is one.
pub(crate) fn progress(text: &str) {
    let width = terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| width.0);
    let shown: String =
        printable(text).chars().take(usize::from(width).saturating_sub(1)).collect();
    IN_PROGRESS.store(true, Ordering::Relaxed);
    drop(write!(io::stderr().lock(), "{WIPE}{shown}"));
}

/// Takes the line of progress away.
pub(crate) fn end_progress() {
    if IN_PROGRESS.swap(false, Ordering::Relaxed) {
        drop(write!(io::stderr().lock(), "{WIPE}"));
    }
}

/// Prints what is wrong, on standard error.
pub(crate) fn complain(text: &str) {
    end_progress();
    // Nowhere to report that standard error is gone; the exit code still says it.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// The `status` command's text.
pub(crate) fn status_text(status: &StatusResponse) -> String {
    let ready = if status.ready { "ready" } else { "not ready yet" };
    let version = printable(&status.version);
    // What is logged is news only where it is not the usual.
    let log = match printable(&status.log_filter) {
        filter if filter.is_empty() || filter == "info" => String::new(),
        filter => format!(", logging {filter}"),
    };
    let revision = status.revision;
    let mut text = vec![format!("holdfast {version}, revision {revision}, {ready}{log}\n")];
    text.extend(status.problems.iter().map(|told| format!("problem: {}\n", printable(told))));
    text.extend(ends_text(status));
    let mut table = Table::new(&["PROCESS", "PID", "STATE", "GEN", "REVISION", "TUNNELS", "SITES"]);
    table.row(["supervisor", &status.supervisor_pid.to_string(), "", "", "", "", ""]);
    if let Some(prober) = &status.prober {
        table.row(["prober", &prober.pid.to_string(), &prober.state, "", "", "", ""]);
    }
    for listener in &status.listeners {
        let sites = listener.sites.join(" ");
        if listener.workers.is_empty() {
            table.row([listener.address.as_str(), "-", "no worker", "", "", "", &sites]);
        }
        for worker in &listener.workers {
            table.row([
                listener.address.as_str(),
                &worker.pid.to_string(),
                &worker.state,
                &worker.generation.to_string(),
                &worker.revision.to_string(),
                &tunnels_of(worker),
                &sites,
            ]);
        }
    }
    text.extend(["\n".to_owned(), table.render(look())]);
    text.concat()
}

/// How tunnels have ended, the commonest cause first; nothing where none has.
fn ends_text(status: &StatusResponse) -> Option<String> {
    let mut ends: Vec<_> = status.tunnels_ended.iter().filter(|(_, count)| **count > 0).collect();
    ends.sort_by_key(|(cause, count)| (std::cmp::Reverse(**count), cause.as_str()));
    let told: Vec<_> =
        ends.iter().map(|(cause, count)| format!("{} {count}", printable(cause))).collect();
    (!told.is_empty()).then(|| format!("tunnels ended: {}\n", told.join(", ")))
}

/// Unprotected tunnels are those that an operator must know of before killing something; the pinned ones among them will
/// be no better later.
fn tunnels_of(worker: &WorkerStatus) -> String {
    match (worker.tunnels.saturating_sub(worker.protected), worker.pinned) {
        (0, _) => worker.tunnels.to_string(),
        (unprotected, 0) => format!("{} ({unprotected} unprotected)", worker.tunnels),
        (unprotected, pinned) => {
            format!("{} ({unprotected} unprotected, {pinned} pinned)", worker.tunnels)
        }
    }
}

/// The `health` command's text.
pub(crate) fn health_text(health: &HealthResponse) -> String {
    let mut table = Table::new(&["POOL", "SETTINGS", "BACKEND", "STATE", "SINCE", "LAST CHECK"]);
    for pool in &health.pools {
        for backend in &pool.backends {
            table.row([
                pool.pool.as_str(),
                &pool.settings,
                &endpoint(&backend.address, backend.port),
                &backend.state,
                &backend.since,
                &backend.last,
            ]);
        }
    }
    table.render_or(look(), "no backends\n")
}

/// The `tunnels` command's text.
pub(crate) fn tunnels_text(tunnels: &TunnelsResponse) -> String {
    let mut heading =
        vec!["ID", "LISTENER", "SITE", "CLIENT", "POOL", "BACKEND", "AGE", "IDLE", "IN", "OUT"];
    let rows = &tunnels.tunnels;
    // Where none has ended on one side or is pinned, as almost everywhere, there are no columns for it.
    let ended = rows.iter().any(|tunnel| !ended_text(tunnel).is_empty());
    let pinned = rows.iter().any(|tunnel| !tunnel.pinned.is_empty());
    heading.extend(ended.then_some("ENDED"));
    heading.extend(pinned.then_some("PINNED"));
    let mut table = Table::new(&heading);
    for tunnel in rows {
        let mut cells = vec![
            tunnel.id.clone(),
            tunnel.listener.clone(),
            tunnel.site.clone(),
            tunnel.client.clone(),
            tunnel.pool.clone(),
            tunnel.backend.clone(),
            table::duration(tunnel.age_ms),
            table::duration(tunnel.idle_ms),
            table::bytes(tunnel.bytes_in),
            table::bytes(tunnel.bytes_out),
        ];
        cells.extend(ended.then(|| ended_text(tunnel)));
        cells.extend(pinned.then(|| tunnel.pinned.clone()));
        table.row(cells.iter().map(String::as_str));
    }
    table.render_or(look(), "no tunnels\n") + &silent_text(&tunnels.silent)
}

/// Which sides of an open tunnel have ended already, and how.
fn ended_text(tunnel: &TunnelInfo) -> String {
    let sides = [("client", &tunnel.client_end), ("backend", &tunnel.backend_end)];
    let ended = sides.into_iter().filter(|(_, end)| !end.is_empty() && *end != "open");
    ended.map(|(side, end)| format!("{side} {end}")).collect::<Vec<_>>().join(", ")
}

/// A note of workers whose tunnels nobody can tell.
pub(crate) fn silent_text(silent: &[SilentWorker]) -> String {
    let note = |it: &SilentWorker| format!("note: {}\n", printable(&silent_words(it)));
    silent.iter().map(note).collect()
}

/// A number of tunnels.
pub(crate) fn tunnels_count(count: u64) -> String {
    if count == 1 { "1 tunnel".to_owned() } else { format!("{count} tunnels") }
}

/// The `revisions` command's text.
pub(crate) fn revisions_text(revisions: &RevisionsResponse) -> String {
    let mut table = Table::new(&["REVISION", "APPLIED", "SOURCE", "BY", ""]);
    for revision in &revisions.revisions {
        table.row([
            revision.revision.to_string().as_str(),
            &revision.applied_at,
            &revision.source,
            &revision.by,
            if revision.in_force { "in force" } else { "" },
        ]);
    }
    table.render_or(look(), "no revisions\n")
}

/// The JSON of `apply`, `reload` and `rollback`.
pub(crate) fn change_json(change: &ChangeResponse) -> Value {
    let changes: Vec<_> = change
        .changes
        .iter()
        .map(|step| {
            json!({
                "what": step.what, "kind": step.kind, "detail": step.detail, "tunnels": step.tunnels,
            })
        })
        .collect();
    let refusals: Vec<_> = change
        .refusals
        .iter()
        .map(|refusal| {
            json!({"listener": refusal.listener, "pid": refusal.pid, "reason": refusal.reason})
        })
        .collect();
    let silent: Vec<_> = change
        .silent
        .iter()
        .map(|it| json!({"listener": it.listener, "pid": it.pid, "tunnels": it.tunnels}))
        .collect();
    json!({
        "accepted": change.accepted,
        "revision": change.revision,
        "changed": change.changed,
        "message": change.message,
        "diagnostics": diagnostics_json(&change.diagnostics),
        "changes": changes,
        "refusals": refusals,
        "silent": silent,
    })
}

/// What `apply`, `reload` and `rollback` did, or would do.
pub(crate) fn change_text(change: &ChangeResponse, dry_run: bool) -> String {
    let outcome = match (change.accepted, dry_run, change.changed) {
        (false, _, _) => {
            format!("refused; revision {} stays in force\n", change.revision)
        }
        (true, true, _) => format!("would be accepted; revision {} in force\n", change.revision),
        (true, false, true) => format!("revision {} is in force\n", change.revision),
        (true, false, false) => {
            format!("nothing to change; revision {} in force\n", change.revision)
        }
    };
    let adds = !change.message.is_empty() && change.message != outcome.trim_end();
    let mut text = vec![outcome];
    if adds {
        text.push(format!("{}\n", printable(&change.message)));
    }
    if !change.changes.is_empty() {
        let mut table = Table::new(&["CHANGE", "WHAT", "TUNNELS ENDED", "DETAIL"]);
        for step in &change.changes {
            table.row([step.kind.as_str(), &step.what, &step.tunnels.to_string(), &step.detail]);
        }
        text.push(table.render(look()));
    }
    text.push(silent_text(&change.silent));
    text.concat()
}

/// Workers that do not serve the revision, for standard error.
pub(crate) fn refusals_text(change: &ChangeResponse) -> String {
    change
        .refusals
        .iter()
        .map(|refusal| {
            let listener = printable(&refusal.listener);
            format!(
                "error: worker {} of {listener} does not serve revision {}, and serves on with the one before: {}. \
                 `holdfast restart {listener}` replaces it\n",
                refusal.pid,
                change.revision,
                printable(&refusal.reason)
            )
        })
        .collect::<Vec<_>>()
        .concat()
}

/// The `restart` command's JSON.
pub(crate) fn restart_json(restart: &RestartResponse) -> Value {
    replaced_json(&restart.replaced)
}

pub(crate) fn replaced_json(replaced: &[Replacement]) -> Value {
    replaced
        .iter()
        .map(|worker| {
            json!({
                "listener": worker.listener,
                "old_pid": worker.old_pid,
                "new_pid": worker.new_pid,
                "error": (!worker.error.is_empty()).then_some(&worker.error),
                "pinned": worker.pinned,
            })
        })
        .collect()
}

/// Workers that go on where their successors could not, for standard error.
pub(crate) fn not_replaced_text(replaced: &[Replacement]) -> String {
    let failed = replaced.iter().filter(|worker| !worker.error.is_empty());
    let line = |worker: &Replacement| {
        format!(
            "error: no successor serves {}: {}. What served before serves on; the gateway's log says more\n",
            printable(&worker.listener),
            printable(&worker.error)
        )
    };
    failed.map(line).collect()
}

/// The `restart` command's text.
pub(crate) fn restart_text(restart: &RestartResponse) -> String {
    replaced_text(&restart.replaced)
}

pub(crate) fn replaced_text(replaced: &[Replacement]) -> String {
    let mut table = Table::new(&["LISTENER", "OLD PID", "NEW PID", "OUTCOME"]);
    for worker in replaced {
        let outcome = match (worker.error.as_str(), worker.pinned) {
            ("", 0) => "the successor serves".to_owned(),
            ("", pinned) => {
                format!("the successor serves; {pinned} pinned tunnels drain with the old worker")
            }
            (error, _) => error.to_owned(),
        };
        table.row([
            worker.listener.as_str(),
            &worker.old_pid.to_string(),
            &worker.new_pid.to_string(),
            &outcome,
        ]);
    }
    table.render_or(look(), "no workers\n")
}

/// The `close` command's text.
pub(crate) fn closed_text(ids: &[String]) -> String {
    ids.iter().map(|id| format!("closed {}\n", printable(id))).collect::<Vec<_>>().concat()
}

/// Diagnostics as JSON.
pub(crate) fn diagnostics_json(diagnostics: &[Diagnostic]) -> Value {
    diagnostics
        .iter()
        .map(|diagnostic| {
            json!({
                "severity": severity(diagnostic),
                "path": diagnostic.path,
                "line": (diagnostic.line > 0).then_some(diagnostic.line),
                "column": (diagnostic.line > 0).then_some(diagnostic.column),
                "reason": diagnostic.reason,
                "mend": diagnostic.mend,
            })
        })
        .collect()
}

/// Diagnostics as compilers print them, so that editors can jump to them.
pub(crate) fn diagnostics_text(file: &str, diagnostics: &[Diagnostic]) -> String {
    let mut text = Vec::new();
    for diagnostic in diagnostics {
        let mut place = printable(file);
        if diagnostic.line > 0 {
            place = format!("{place}:{}:{}", diagnostic.line, diagnostic.column);
        }
        let reason = printable(&diagnostic.reason);
        text.push(format!("{place}: {}: {reason}\n", severity(diagnostic)));
        for (label, detail) in [("at", &diagnostic.path), ("mend", &diagnostic.mend)] {
            if !detail.is_empty() {
                text.push(format!("  {label}: {}\n", printable(detail)));
            }
        }
    }
    text.concat()
}

fn severity(diagnostic: &Diagnostic) -> &'static str {
    match diagnostic.severity() {
        Severity::Warning => "warning",
        Severity::Error | Severity::Unspecified => "error",
    }
}

#[cfg(test)]
mod tests;
