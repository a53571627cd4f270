//! `holdfast import`: an ARM template, or what Azure prints of a gateway, becomes a document that can be run. A reader of
//! other people's documents: bounded in time, memory and stack, and it never guesses what only Azure knows.
//!
//! In the order of the work: `parser` and `evaluate` (with `call`, `functions`, `scope`, `loops`) make values of
//! expressions, `template` finds the gateways, in what `linked` reads, too, `canonical` writes each in one way, `references`, `frontends` and
//! `certificates` fit it to this host, `checked` lets nothing open or invalid pass in silence.

use std::path::Path;

use super::json::{self, Node, Value as Json};

mod call;
mod canonical;
mod certificates;
mod checked;
mod context;
mod evaluate;
mod findings;
mod frontends;
mod functions;
mod given;
mod item;
mod linked;
mod loops;
mod names;
mod parser;
mod references;
mod scope;
mod template;

#[cfg(test)]
mod tests;

use context::Context;
use evaluate::Env;
use findings::Findings;
pub use findings::{Finding, FindingKind};
pub use given::Given;
use item::{Item, Value};
use linked::Home;
use scope::{Argument, Scope, member, members, text};
use template::Found;

/// For the deepest nesting that [`context`] lets through, in a build without optimizations.
const STACK: usize = 64 * 1024 * 1024;

/// The name of a gateway that has none of its own.
const NAMELESS: &str = "gateway";

/// One gateway of a document.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Its name.
    pub name: String,
    /// The document: valid if it is complete; otherwise with `<NAME>` where a value is missing.
    pub document: String,
    /// Whether `holdfast validate` takes it.
    pub is_complete: bool,
    /// Whether a private key or a password stands in it.
    pub has_secret: bool,
    /// What there is to tell, the gravest first.
    pub findings: Vec<Finding>,
}

/// Which of several gateways are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Exactly one; [`Given::gateway`] says which, if there are more.
    One,
    /// All that [`Given::gateway`] does not rule out.
    All,
}

/// Imports a document; relative paths in the result start at `base_dir`.
///
/// # Errors
/// Why there is no result at all.
pub fn import(
    document: &str,
    given: &Given,
    wanted: Wanted,
    base_dir: &Path,
) -> Result<Vec<Imported>, Vec<Finding>> {
    let root = json::parse(document).map_err(|e| {
        let mut findings = Findings::default();
        findings.add(FindingKind::Error, "", (e.line, e.column), e.reason, e.mend);
        findings.into_sorted()
    })?;
    // On a stack of its own: a template may nest deeper than the caller's would bear.
    let given = given.clone();
    std::thread::scope(|threads| {
        let work = move || gateways(&root, &given, wanted, base_dir);
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(threads, work);
        let outcome = thread
            .map_err(|e| e.to_string())
            .and_then(|thread| thread.join().map_err(|_| "it ended without a result".to_owned()));
        outcome.unwrap_or_else(|e| refuse((0, 0), format!("the import cannot be run: {e}"), ""))
    })
}

fn refuse<T>(
    place: (u32, u32),
    reason: impl Into<String>,
    mend: impl Into<String>,
) -> Result<T, Vec<Finding>> {
    let mut findings = Findings::default();
    findings.add(FindingKind::Error, "", place, reason, mend);
    Err(findings.into_sorted())
}

fn gateways(
    root: &Node,
    given: &Given,
    wanted: Wanted,
    base_dir: &Path,
) -> Result<Vec<Imported>, Vec<Finding>> {
    let context = Context::new(given);
    let found = find(root, &context)?;
    let mut kept: Vec<(String, &Item)> =
        found.gateways.iter().map(|item| (name_of(item, &context), item)).collect();
    let all: Vec<String> = kept.iter().map(|(name, _)| format!("{name:?}")).collect();
    let all = all.join(", ");
    if let Some(one) = &given.gateway {
        kept.retain(|(name, _)| name.eq_ignore_ascii_case(one));
        if kept.is_empty() {
            return refuse(
                (0, 0),
                format!("there is no gateway {one:?}, only {all}"),
                "correct the name",
            );
        }
    }
    if wanted == Wanted::One && kept.len() > 1 {
        return refuse(
            (0, 0),
            format!("the document has {} gateways: {all}", kept.len()),
            "choose one with --gateway NAME, or write each to a file of its own with --output-dir DIR",
        );
    }
    let mut imported: Vec<Imported> = kept
        .into_iter()
        .map(|(name, item)| finish(name, item, &found, &context, base_dir))
        .collect();
    let unused = given.unused();
    if let (Some(first), false) = (imported.first_mut(), unused.is_empty()) {
        for (option, name) in unused {
            first.findings.push(Finding {
                kind: FindingKind::Warning,
                path: String::new(),
                line: 0,
                column: 0,
                reason: format!("nothing asks for {name:?}, as {option} has it"),
                mend: "correct the name, or leave it out".to_owned(),
            });
        }
    }
    Ok(imported)
}

/// Finds a document's gateways, whichever shape it has.
fn find(root: &Node, context: &Context<'_>) -> Result<Found, Vec<Finding>> {
    let mut found = Found::default();
    let place = (root.line, root.column);
    if member(root, "resources").is_some() {
        for parameter in member(root, "parameters").map_or(&[][..], members) {
            // Declared is as good as used: most of a template is never looked at.
            context.given.text(&parameter.name);
        }
        let mut scope = Scope::new(root, String::new(), |name| {
            context.given.parameter(name).map(|given| Argument::read(&given))
        });
        scope.home = given_home(context);
        context.walk(Env::new(&scope), &scope.resources, &mut found);
        if let Some(limit) = context.limit() {
            // There may be gateways that were not come to.
            return refuse(place, limit.reason, limit.mend);
        }
        if let (true, Some((place, fault))) = (found.gateways.is_empty(), found.unread.first()) {
            return refuse(
                *place,
                format!(
                    "no gateway was found, and a linked template was not read: {}",
                    fault.reason
                ),
                fault.mend.clone(),
            );
        }
        if found.gateways.is_empty() {
            return refuse(
                place,
                "the template has no resource of type Microsoft.Network/applicationGateways",
                "give the template that has the gateway, or the parameters for its conditions",
            );
        }
        return Ok(found);
    }
    let listed = match &root.value {
        Json::List(entries) => entries.iter().collect(),
        _ => match member(root, "value").map(|value| &value.value) {
            Some(Json::List(entries)) => entries.iter().collect(),
            _ => vec![root],
        },
    };
    for node in listed {
        let kind = member(node, "type").and_then(text);
        let other = kind.filter(|kind| {
            !kind
                .trim_end_matches('/')
                .eq_ignore_ascii_case("Microsoft.Network/applicationGateways")
        });
        if other.is_none() && is_gateway(node) {
            // Of a document that Azure printed every string means itself; a template's resource has an apiVersion.
            found.gateways.push(match member(node, "apiVersion") {
                Some(_) => context.resource(Env::new(&Scope::loose()), node),
                None => Item::literal(node),
            });
        }
    }
    if found.gateways.is_empty() {
        let is_parameters = member(root, "parameters").is_some();
        let mend = if is_parameters {
            "this is a parameter file: give the template, and this one with --parameters"
        } else {
            "give a template, a gateway resource, or what az network application-gateway show prints"
        };
        return refuse(place, "the document has no application gateway", mend);
    }
    Ok(found)
}

/// Where the template is, if it is a file.
fn given_home(context: &Context<'_>) -> Option<Home> {
    context.given.template_dir.as_deref().map(Home::of)
}

/// Whether an object has what gateways are made of.
fn is_gateway(node: &Node) -> bool {
    let has = |node: &Node| {
        ["httpListeners", "requestRoutingRules", "backendAddressPools"]
            .iter()
            .any(|name| member(node, name).is_some())
    };
    has(node)
        || member(node, "properties").is_some_and(|it| has(it) || matches!(it.value, Json::Text(_)))
}

fn name_of(item: &Item, context: &Context<'_>) -> String {
    match item.word("name") {
        Some(name) => context.shown(name),
        None => NAMELESS.to_owned(),
    }
}

/// Makes one gateway's document.
fn finish(
    name: String,
    item: &Item,
    found: &Found,
    context: &Context<'_>,
    base_dir: &Path,
) -> Imported {
    let mut findings = Findings::default();
    for (line, column, what, why) in &found.beside {
        let reason = format!("{what} has no effect here");
        findings.add(FindingKind::LeftOut, "", (*line, *column), reason, why);
    }
    let mut gateway = match &item.value {
        Value::Object(_) => canonical::gateway(item, &mut findings),
        // Not even how many there are is known.
        _ => Item {
            value: Value::object(vec![item::Member::new("properties", item.clone())]),
            ..*item
        },
    };
    let mut name = name;
    if gateway.get("name").is_some_and(Item::has_hole) {
        // A label, which nothing depends on.
        gateway.set("name", Item::text(NAMELESS));
        NAMELESS.clone_into(&mut name);
        findings.add(
            FindingKind::LeftOut,
            "name",
            (item.line, item.column),
            format!("the gateway's name is not known, and {NAMELESS:?} is written"),
            "it is a label only",
        );
    }
    references::plain(&mut gateway);
    frontends::bind(&mut gateway, context.given, &found.six, &mut findings);
    certificates::complete(&mut gateway, context, &mut findings);
    let checked = checked::check(gateway, context, base_dir, &mut findings);
    Imported {
        name,
        has_secret: checked.has_secret,
        document: checked.document,
        is_complete: checked.is_complete,
        findings: findings.into_sorted(),
    }
}
