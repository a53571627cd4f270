//! The end of an import: nothing open may be left in the result, and the reader of gateway documents must take it. What
//! that one says has no effect is left out, so that this list is never behind what Holdfast can do.

use std::collections::BTreeMap;
use std::path::Path;

use super::context::Context;
use super::findings::{FindingKind, Findings};
use super::item::{Item, Value, holes};
use crate::config;
use crate::config::diagnostic::{Diagnostic, Severity};

/// Taking something out can make something else useless; real documents need two rounds.
const ROUNDS: usize = 4;

/// A result, ready to be written.
pub(super) struct Checked {
    pub(super) document: String,
    pub(super) is_complete: bool,
    pub(super) has_secret: bool,
}

/// Reports what is open, or else what the reader says.
pub(super) fn check(
    mut gateway: Item,
    context: &Context<'_>,
    base_dir: &Path,
    findings: &mut Findings,
) -> Checked {
    report_open(&gateway, context, findings);
    let blocking = [FindingKind::Error, FindingKind::Missing];
    let is_open = findings.has(&blocking);
    for _ in 0..ROUNDS {
        if is_open {
            break;
        }
        let loaded = config::load(&written(&gateway, context), base_dir);
        let (found, is_valid) = match loaded {
            Ok(loaded) => (loaded.warnings, true),
            Err(found) => (found, false),
        };
        let (idle, told): (Vec<_>, Vec<_>) = found.into_iter().partition(is_idle);
        let left: Vec<bool> = idle.iter().map(|it| leave_out(&mut gateway, it, findings)).collect();
        if is_valid && left.contains(&true) {
            continue;
        }
        let kept = idle.into_iter().zip(left).filter(|(_, left)| !left).map(|(it, _)| it);
        for diagnostic in told.into_iter().chain(kept) {
            tell(&gateway, diagnostic, findings);
        }
        break;
    }
    let is_complete = !findings.has(&blocking);
    let certificates = gateway.get("properties").and_then(|it| it.get("sslCertificates"));
    let mut certificates = certificates.map_or(&[][..], Item::entries).iter();
    let has_secret =
        certificates.any(|it| it.get("properties").is_some_and(|it| it.get("data").is_some()));
    Checked { document: written(&gateway, context), is_complete, has_secret }
}

fn written(gateway: &Item, context: &Context<'_>) -> String {
    format!("{:#}\n", gateway.to_json(&|text| context.shown(text)))
}

/// Whether the reader means that something does nothing.
fn is_idle(diagnostic: &Diagnostic) -> bool {
    diagnostic.severity == Severity::Warning && diagnostic.reason.contains("has no effect")
}

/// Takes out what does nothing. `false`: it is not found where the reader says.
fn leave_out(gateway: &mut Item, idle: &Diagnostic, findings: &mut Findings) -> bool {
    // A reference without its id would be an error.
    let path = idle.path.strip_suffix(".id").unwrap_or(&idle.path);
    let place = place_of(gateway, path);
    let Some((parent, name)) = path.rsplit_once('.') else { return false };
    let Some(parent) = steps(parent).and_then(|steps| find_mut(gateway, &steps)) else {
        return false;
    };
    let is_taken = parent.remove(name).is_some();
    if is_taken {
        findings.add(FindingKind::LeftOut, path, place, idle.reason.clone(), idle.mend.clone());
    }
    is_taken
}

fn tell(gateway: &Item, diagnostic: Diagnostic, findings: &mut Findings) {
    let kind = match diagnostic.severity {
        Severity::Error => FindingKind::Error,
        Severity::Warning => FindingKind::Warning,
    };
    let Diagnostic { path, reason, mend, .. } = diagnostic;
    findings.add(kind, &path, place_of(gateway, &path), reason, mend);
}

/// One step of a path: a member's name or an entry's number.
enum Step<'p> {
    Member(&'p str),
    Entry(usize),
}

fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, entries) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Member(name));
        for entry in entries.split('[').filter(|entry| !entry.is_empty()) {
            steps.push(Step::Entry(entry.strip_suffix(']')?.parse().ok()?));
        }
    }
    Some(steps)
}

fn find_mut<'i>(mut item: &'i mut Item, path: &[Step<'_>]) -> Option<&'i mut Item> {
    for step in path {
        item = match step {
            Step::Member(name) => item.get_mut(name)?,
            Step::Entry(at) => item.entries_mut().get_mut(*at)?,
        };
    }
    Some(item)
}

/// Where the imported document has what stands at a path of the result, or what is around it.
fn place_of(gateway: &Item, path: &str) -> (u32, u32) {
    let mut place = (gateway.line, gateway.column);
    let mut item = Some(gateway);
    for step in steps(path).unwrap_or_default() {
        item = item.and_then(|item| match step {
            Step::Member(name) => item.get(name),
            Step::Entry(at) => item.entries().get(at),
        });
        if let Some(item) = item.filter(|item| item.line > 0) {
            place = (item.line, item.column);
        }
    }
    place
}

/// Where a hole is open.
#[derive(Default)]
struct Open {
    places: BTreeMap<usize, Vec<Spot>>,
    cut: Vec<Spot>,
    made: Vec<Spot>,
}

/// A path in the result, and where the imported document has it.
type Spot = (String, (u32, u32));

/// The last name of a path.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn report_open(gateway: &Item, context: &Context<'_>, findings: &mut Findings) {
    let mut open = Open::default();
    collect(gateway, context, &mut String::new(), (gateway.line, gateway.column), &mut open);
    for (number, places) in open.places {
        let Some((path, place)) = places.first().cloned() else { continue };
        let Some(ask) = context.asked(number) else { continue };
        if let Some(fault) = ask.fault {
            let reason = format!("the expression cannot be evaluated: {}", fault.reason);
            findings.add(FindingKind::Error, &path, place, reason, fault.mend);
            continue;
        }
        let more = match places.len() {
            1 => String::new(),
            2 => " (and 1 more place)".to_owned(),
            more => format!(" (and {} more places)", more - 1),
        };
        findings.add(
            FindingKind::Missing,
            &path,
            place,
            format!("{}, {}{more}", ask.name, ask.why),
            mend(&ask.name, &path),
        );
    }
    for (path, place) in open.cut {
        findings.add(
            FindingKind::Error,
            &path,
            place,
            "the value is a piece of one that is not known, or is nested too deep or too large",
            "give what it is made from with --set, as the other findings name it, or write it out",
        );
    }
    for (path, place) in open.made {
        findings.add(
            FindingKind::Warning,
            &path,
            place,
            "the value holds the result of uniqueString or guid, which Azure makes otherwise",
            "correct it, or give that result with --set uniqueString=VALUE or --set guid=VALUE",
        );
    }
}

fn mend(name: &str, path: &str) -> String {
    if name.contains('<') {
        return "its name depends on what else is missing: give that first".to_owned();
    }
    // A shell would make something else of it.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let name = if name.chars().all(plain) { name.to_owned() } else { format!("'{name}'") };
    let is_identity = path.contains("sslCertificates[");
    if is_identity && path.contains(".holdfast.") {
        return format!("--set {name}=PATH, or --certificates-dir DIR for all certificates");
    }
    let more = if is_identity { ", or --certificates-dir DIR with PEM files instead" } else { "" };
    format!("--set {name}=VALUE, or --set-file {name}=FILE{more}")
}

fn collect(
    item: &Item,
    context: &Context<'_>,
    path: &mut String,
    around: (u32, u32),
    open: &mut Open,
) {
    let place = if item.line > 0 { (item.line, item.column) } else { around };
    let length = path.len();
    match &item.value {
        Value::Text(text) if item.has_hole() => {
            let (found, _) = holes(text);
            let mut numbers: Vec<usize> = found.iter().flatten().copied().collect();
            numbers.dedup();
            if numbers.is_empty() {
                open.cut.push((path.clone(), place));
            }
            for number in numbers {
                open.places.entry(number).or_default().push((path.clone(), place));
            }
        }
        // A child's name may be any, if only those who refer to it have the same.
        Value::Text(text) if context.is_made(text) && !["name", "id"].contains(&last(path)) => {
            open.made.push((path.clone(), place));
        }
        Value::List(entries) => {
            for (entry, at) in entries.iter().zip(0..) {
                path.extend(["[", &usize::to_string(&at), "]"]);
                collect(entry, context, path, place, open);
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for member in members.iter() {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(&member.name);
                collect(&member.item, context, path, place, open);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
