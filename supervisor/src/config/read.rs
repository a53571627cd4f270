//! Reads a whole document into a [`Gateway`], collection by collection, each after those that it refers to. Every
//! error is reported and reading goes on; an entry with errors counts as present, so that one mistake is told once.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::Wanted;
use super::gateway::{Gateway, Listener};
use super::json::Node;
use super::reference::Table;
use super::report::{Place, Report};
use super::shape::Shape;
use super::validate;

mod admin;
mod backend;
mod client_source;
mod global;
mod identity;
mod layer_4;
mod logging;
pub(super) mod network;
mod pages;
mod policy;
mod rewrite;
pub(super) mod routing;
mod tls;

pub(super) use tls::{policy_names, suite_names, version_names};

/// Azure's limit for the name of any child.
const NAME_LIMIT: usize = 80;

/// Who refers to an entry, as Azure lists it in its own output; the references themselves stand elsewhere.
const BACK_REFERENCES: &[&str] = &[
    "requestRoutingRules",
    "httpListeners",
    "backendHttpSettings",
    "urlPathMaps",
    "pathRules",
    "redirectConfigurations",
    "sslProfiles",
];

/// A gateway and the pages that are still to be fetched for it, unless something essential is missing; errors are in
/// the report either way.
pub(super) fn gateway(
    root: &Node,
    base_dir: &Path,
    without_pages: bool,
    report: &mut Report,
) -> Option<(Gateway, Vec<Wanted>)> {
    let place = Place { path: String::new(), line: root.line, column: root.column };
    let root = Shape::open(root, place, report)?;
    if is_template(&root, report) {
        return None;
    }
    let name = root.text("name", report).map(|name| name.value).unwrap_or_default();
    let global = global::read(&root, base_dir, without_pages, report);
    let frontends = network::frontends(&root, report);
    let ports = network::ports(&root, report);
    let certificates = identity::certificates(&root, base_dir, report);
    let trusted_roots = identity::trusted_roots(&root, report);
    let pools = backend::pools(&root, report);
    let policies = policy::policies(&root, &pools, report);
    let probes = backend::probes(&root, report);
    let settings = backend::settings(&root, &probes, &trusted_roots, report);
    let mut pages = pages::Pages::new(base_dir, without_pages);
    let error_pages = pages.read(&root, report);
    let tls = tls::Tls::read(&root, base_dir, report);
    let sites = network::sites(&root, &frontends, &ports, &certificates, &tls, &mut pages, report);
    let redirects = routing::redirects(&root, &sites, report);
    let rewrites = rewrite::sets(&root, report);
    let targets = routing::Targets {
        pools: &pools,
        policies: &policies,
        settings: &settings,
        redirects: &redirects,
        rewrites: &rewrites,
    };
    let path_maps = routing::path_maps(&root, &targets, report);
    let rules = routing::rules(&root, &sites, &path_maps, &targets, report);
    let rewrite_sets = rewrites.finish(report);
    let certificates = identity::usable(&certificates, report);
    let trusted_roots = identity::usable(&trusted_roots, report);
    global::finish(&root, report);

    let rules = validate::priorities(rules, &sites, report);
    policy::shared_cookies(&rules, report);
    let listeners = validate::listeners(&sites, &rules, report);
    validate::redirect_loops(&listeners, &rules, report);
    validate::counts(&root, &listeners, report);
    admin::apart(&root, global.admin.as_deref(), &listeners, report);
    if report.has_errors() || serves_nothing(&root, &listeners, report) {
        return None;
    }
    let mut rules: Vec<_> = rules.into_iter().map(|rule| rule.value).collect();
    rules.sort_by_key(|rule| rule.priority);
    let gateway = Gateway {
        name,
        frontends: frontends.values(),
        ports: ports.values(),
        listeners,
        rules,
        path_maps: path_maps.values(),
        redirects: redirects.values(),
        rewrite_sets,
        pools: pools.values(),
        policies: policies.values(),
        settings: settings.values(),
        probes: probes.values(),
        certificates,
        trusted_roots,
        error_pages,
        tls_profiles: tls.profiles.values(),
        trusted_clients: tls.trusted.values(),
        tls_policy: tls.policy,
        global,
    };
    Some((gateway, pages.into_wanted()))
}

/// Where a document says on which address operators are served.
pub(super) fn admin_place(root: &Node) -> Option<Place> {
    let place = Place { path: String::new(), line: root.line, column: root.column };
    Some(admin::place(&Shape::open(root, place, &mut Report::default())?))
}

fn is_template(root: &Shape<'_>, report: &mut Report) -> bool {
    let is_template = root.get("resources").is_some();
    if is_template {
        report.error(
            root.place_of("resources"),
            "the document is a template, not a gateway",
            "run `holdfast import FILE`, which writes its gateway as a document",
        );
    }
    is_template
}

fn serves_nothing(root: &Shape<'_>, listeners: &[Listener], report: &mut Report) -> bool {
    let nothing = listeners.iter().flat_map(|it| &it.sites).all(|site| site.rule.is_none());
    if nothing {
        report.error(
            root.place_of("requestRoutingRules"),
            "no rule routes any listener, so nothing would be served",
            "add a request routing rule for each listener",
        );
    }
    nothing
}

/// Reads a collection; `entry` gets each object with its name.
fn collection<T>(
    root: &Shape<'_>,
    name: &'static str,
    synonyms: &'static [&'static str],
    report: &mut Report,
    mut entry: impl FnMut(&Shape<'_>, String, &mut Report) -> Option<T>,
) -> Table<T> {
    let mut shapes = root.shapes(name, report);
    for synonym in synonyms {
        shapes.extend(root.shapes(synonym, report));
    }
    let mut entries: Vec<(String, Option<Arc<T>>)> = Vec::new();
    let mut names = HashSet::new();
    for shape in shapes {
        let Some(child) = child_name(&shape, report) else { continue };
        if !names.insert(child.to_lowercase()) {
            report.error(
                shape.place_of("name"),
                format!("{name} has two entries named {child:?}"),
                "rename one of them; names differ in more than case",
            );
            continue;
        }
        let value = entry(&shape, child.clone(), report);
        shape.pass_over(BACK_REFERENCES);
        shape.finish(report);
        entries.push((child, value.map(Arc::new)));
    }
    Table::new(name, synonyms, entries)
}

fn child_name(shape: &Shape<'_>, report: &mut Report) -> Option<String> {
    let Some(name) = shape.text("name", report) else {
        report.error(shape.place_of("name"), "the entry has no name", "give it one");
        return None;
    };
    if name.value.chars().count() > NAME_LIMIT
        || name.value.chars().any(|c| c.is_control() || c == '/')
    {
        report.error(
            &name.place,
            format!("the name is longer than {NAME_LIMIT} characters, or holds a slash or a control character"),
            "use letters, digits, _ . and -",
        );
        return None;
    }
    Some(name.value)
}
