//! What changes for one listener, in words: sites by name, and what they lean on. Pure.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::backend_name::endpoint;
use holdfast_proto::control::{
    Backend, Certificate, Distribution, ListenerSnapshot, PoolBinding, Redirect, RewriteSet, Site,
    TlsProfile, action,
};
use holdfast_proto::error_page::carrier;

/// Where a request goes, by name: a binding's index means something only in its own snapshot.
#[derive(PartialEq)]
enum Destination<'a> {
    Nowhere,
    Pool(&'a str, &'a str),
    /// By a policy: its algorithm, its pools with their weights, the settings.
    Shared(i32, Vec<(&'a str, u32)>, &'a str),
    Elsewhere(&'a Redirect),
}

/// The difference between two snapshots of a listener; one that has no sites is one that is not there.
pub(super) fn detail(before: &ListenerSnapshot, after: &ListenerSnapshot) -> String {
    let mut parts = Vec::new();
    let find = |snapshot: &'_ ListenerSnapshot, name: &str| {
        snapshot.sites.iter().position(|site| site.name == name)
    };
    for site in &after.sites {
        let was = find(before, &site.name).and_then(|at| before.sites.get(at));
        match was.map(|was| site_changes((before, was), (after, site))) {
            None => parts.push(format!("site {} added", site.name)),
            Some(changes) if changes.is_empty() => {}
            Some(changes) => parts.push(format!("site {}: {}", site.name, changes.join(", "))),
        }
    }
    let gone = before.sites.iter().filter(|site| find(after, &site.name).is_none());
    parts.extend(gone.map(|site| format!("site {} removed", site.name)));
    if !before.sites.is_empty() && !after.sites.is_empty() {
        parts.extend(shared_changes(before, after));
    }
    parts.join("; ")
}

type Of<'a> = (&'a ListenerSnapshot, &'a Site);

fn site_changes(before: Of<'_>, after: Of<'_>) -> Vec<&'static str> {
    let ((_, was), (_, is)) = (before, after);
    let changes = [
        ("protocol", was.tls != is.tls),
        ("host names", was.hosts != is.hosts),
        ("certificate", certificate(before) != certificate(after)),
        ("TLS profile", tls_profile(before) != tls_profile(after)),
        ("routes", routes(before) != routes(after)),
        ("error pages", pages(before) != pages(after)),
        ("rewrites", rewrites(before) != rewrites(after)),
        ("rule", (&was.rule, was.priority) != (&is.rule, is.priority)),
    ];
    changes.into_iter().filter_map(|(what, changed)| changed.then_some(what)).collect()
}

fn certificate((snapshot, site): Of<'_>) -> Option<&Certificate> {
    let index = usize::try_from(site.certificate).ok()?;
    snapshot.certificates.get(index).filter(|_| site.tls)
}

/// What is answered, by status.
fn pages((snapshot, site): Of<'_>) -> BTreeMap<u32, &[u8]> {
    let indices = site.error_pages.iter().filter_map(|index| usize::try_from(*index).ok());
    indices.filter_map(|index| page(snapshot, index)).collect()
}

/// The same where the site is not known.
fn pages_of_nobody(snapshot: &ListenerSnapshot) -> BTreeMap<u32, &[u8]> {
    let listed = snapshot.error_pages.iter().enumerate().filter(|(_, page)| page.before_site);
    listed.filter_map(|(index, _)| page(snapshot, index)).collect()
}

fn page(snapshot: &ListenerSnapshot, index: usize) -> Option<(u32, &[u8])> {
    let pages = &snapshot.error_pages;
    let body = pages.get(carrier(pages, index)?)?.body.as_ref();
    Some((pages.get(index)?.status, body))
}

fn tls_profile((snapshot, site): Of<'_>) -> Option<&TlsProfile> {
    let index = usize::try_from(site.tls_profile).ok()?;
    snapshot.tls_profiles.get(index).filter(|_| site.tls)
}

fn routes<'a>((snapshot, site): Of<'a>) -> Vec<(&'a [String], Destination<'a>)> {
    let to = |action: &'a Option<holdfast_proto::control::Action>| match action
        .as_ref()
        .and_then(|action| action.kind.as_ref())
    {
        None => Destination::Nowhere,
        Some(action::Kind::Redirect(redirect)) => Destination::Elsewhere(redirect),
        Some(action::Kind::Forward(forward)) => {
            let index = usize::try_from(forward.binding).unwrap_or(usize::MAX);
            let binding = snapshot.bindings.get(index);
            binding.map_or(Destination::Nowhere, |it| match &it.distribution {
                None => Destination::Pool(&it.pool, &it.settings),
                Some(shares) => shared(snapshot, shares, &it.settings),
            })
        }
    };
    let paths = site.paths.iter().map(|path| (path.patterns.as_slice(), to(&path.action)));
    paths.chain([(&[][..], to(&site.default_action))]).collect()
}

/// What is rewritten, route by route.
fn rewrites((snapshot, site): Of<'_>) -> Vec<Option<&RewriteSet>> {
    let actions = site.paths.iter().map(|path| &path.action).chain([&site.default_action]);
    let set = |index: u32| snapshot.rewrite_sets.get(usize::try_from(index).ok()?);
    actions.map(|action| action.as_ref()?.rewrite_set.and_then(set)).collect()
}

fn shared<'a>(
    snapshot: &'a ListenerSnapshot,
    shares: &Distribution,
    settings: &'a str,
) -> Destination<'a> {
    let pool = |share: &holdfast_proto::control::Share| {
        let index = usize::try_from(share.binding).unwrap_or(usize::MAX);
        (snapshot.bindings.get(index).map_or("", |it| it.pool.as_str()), share.weight)
    };
    Destination::Shared(shares.algorithm, shares.shares.iter().map(pool).collect(), settings)
}

/// What all sites of a listener share. Pools have rows of their own.
fn shared_changes(before: &ListenerSnapshot, after: &ListenerSnapshot) -> Vec<String> {
    let settings = |binding: &PoolBinding| binding.settings.clone();
    let changed = |was: &&PoolBinding| {
        let mut now = after.bindings.iter().filter(|is| is.settings == was.settings);
        now.any(|is| is.backend_settings != was.backend_settings)
    };
    let changed: BTreeSet<_> = before.bindings.iter().filter(changed).map(settings).collect();
    let mut parts: Vec<_> = changed.iter().map(|name| format!("backend settings {name}")).collect();
    let backends = |snapshot: &ListenerSnapshot| -> BTreeSet<(String, String, String)> {
        let all = snapshot.bindings.iter().flat_map(|it| it.backends.iter().map(move |b| (it, b)));
        all.map(|(it, b)| (it.pool.clone(), b.address.clone(), b.port.to_string())).collect()
    };
    let (was, is) = (backends(before), backends(after));
    let known =
        |pool: &String, of: &BTreeSet<(String, String, String)>| of.iter().any(|it| it.0 == *pool);
    let pools: BTreeSet<_> = was.symmetric_difference(&is).map(|it| &it.0).collect();
    // A pool that comes or goes whole is told by the routes of its sites.
    let pools = pools.into_iter().filter(|pool| known(pool, &was) && known(pool, &is));
    parts.extend(pools.map(|pool| format!("backends of pool {pool}")));
    let threads = |it: &ListenerSnapshot| it.limits.as_ref().map(|limits| limits.threads);
    if threads(before) != threads(after) {
        parts.push("threads (from the next restart on)".to_owned());
    }
    let limits = |it: &ListenerSnapshot| {
        it.limits.map(|limits| holdfast_proto::control::Limits { threads: 0, ..limits })
    };
    if limits(before) != limits(after) {
        parts.push("limits".to_owned());
    }
    let several = before.sites.len().max(after.sites.len()) > 1;
    if several && pages_of_nobody(before) != pages_of_nobody(after) {
        parts.push("error pages of requests for no site".to_owned());
    }
    if before.hide_server_header != after.hide_server_header {
        parts.push("server header".to_owned());
    }
    if before.http2 != after.http2 {
        parts.push("HTTP/2".to_owned());
    }
    if before.access_log != after.access_log {
        parts.push("access log".to_owned());
    }
    if before.client_source != after.client_source {
        parts.push("who clients are (of new connections)".to_owned());
    }
    parts
}

/// A backend as people and tunnels name it.
pub(super) fn text(Backend { address, port }: &Backend) -> String {
    endpoint(address, *port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::control::{Action, BackendSettings, ErrorPage, Forward, Limits, PathRoute};

    fn binding(pool: &str, backend: &str) -> PoolBinding {
        PoolBinding {
            pool: pool.into(),
            settings: "plain".into(),
            backends: vec![Backend { address: backend.into(), port: 80 }],
            backend_settings: Some(BackendSettings::default()),
            distribution: None,
        }
    }

    fn site(name: &str, binding: u32) -> Site {
        let kind = Some(action::Kind::Forward(Forward { binding }));
        Site {
            name: name.into(),
            default_action: Some(Action { kind, rewrite_set: None }),
            ..Site::default()
        }
    }

    fn snapshot(sites: Vec<Site>, bindings: Vec<PoolBinding>) -> ListenerSnapshot {
        ListenerSnapshot { sites, bindings, ..ListenerSnapshot::default() }
    }

    #[test]
    fn sites_are_told_by_name() {
        let nothing = ListenerSnapshot::default();
        let before = snapshot(vec![site("a", 0), site("b", 0)], vec![binding("p", "one")]);
        let mut after = snapshot(vec![site("b", 0), site("c", 0)], vec![binding("p", "one")]);
        after.sites[0].hosts.push("b.test".into());
        assert_eq!(detail(&before, &after), "site b: host names; site c added; site a removed");
        assert_eq!(detail(&nothing, &before), "site a added; site b added");
        assert_eq!(detail(&before, &nothing), "site a removed; site b removed");
        assert_eq!(detail(&before, &before), "");
    }

    #[test]
    fn routes_and_certificates_are_compared_by_what_they_mean() {
        let (p, q) = (binding("p", "one"), binding("q", "two"));
        let before = snapshot(vec![site("a", 0), site("b", 1)], vec![p.clone(), q.clone()]);
        let renumbered = snapshot(vec![site("a", 1), site("b", 0)], vec![q.clone(), p.clone()]);
        assert_eq!(detail(&before, &renumbered), "");
        let rerouted = snapshot(vec![site("a", 1), site("b", 1)], vec![p, q]);
        assert_eq!(detail(&before, &rerouted), "site a: routes");

        let secure = |key: &str| {
            let certificate = Certificate { key_der: key.into(), ..Certificate::default() };
            let mut snapshot = snapshot(vec![site("a", 0)], vec![binding("p", "one")]);
            snapshot.sites[0].tls = true;
            snapshot.certificates.push(certificate);
            snapshot
        };
        assert_eq!(detail(&secure("old"), &secure("new")), "site a: certificate");
    }

    #[test]
    fn rewrites_are_compared_by_what_they_do_and_where() {
        let rewritten = |at: usize, name: &str| {
            let mut snapshot = snapshot(vec![site("a", 0)], vec![binding("p", "one")]);
            let site = &mut snapshot.sites[0];
            site.paths
                .push(PathRoute { action: site.default_action.clone(), ..Default::default() });
            snapshot.rewrite_sets.push(RewriteSet { name: name.into(), rules: Vec::new() });
            let action = if at == 0 { &mut site.paths[0].action } else { &mut site.default_action };
            action.as_mut().unwrap().rewrite_set = Some(0);
            snapshot
        };
        assert_eq!(detail(&rewritten(0, "s"), &rewritten(0, "s")), "");
        assert_eq!(detail(&rewritten(0, "s"), &rewritten(0, "t")), "site a: rewrites");
        assert_eq!(detail(&rewritten(0, "s"), &rewritten(1, "s")), "site a: rewrites");
    }

    #[test]
    fn a_policy_is_compared_by_its_pools_and_weights() {
        use holdfast_proto::control::Share;
        let policy = |weights: &[(u32, u32)]| {
            let share = |&(binding, weight): &(u32, u32)| Share { binding, weight };
            let shares = weights.iter().map(share).collect();
            let distribution = Some(Distribution { algorithm: 1, shares });
            PoolBinding { backends: Vec::new(), distribution, ..binding("policy", "none") }
        };
        let (p, q) = (binding("p", "one"), binding("q", "two"));
        let site = || vec![site("a", 2)];
        let before = snapshot(site(), vec![p.clone(), q.clone(), policy(&[(0, 3), (1, 1)])]);
        let renumbered = snapshot(site(), vec![q.clone(), p.clone(), policy(&[(1, 3), (0, 1)])]);
        assert_eq!(detail(&before, &renumbered), "");
        let reweighted = snapshot(site(), vec![p, q, policy(&[(0, 3), (1, 2)])]);
        assert_eq!(detail(&before, &reweighted), "site a: routes");
    }

    #[test]
    fn what_sites_share_is_told_once() {
        let before = snapshot(vec![site("a", 0)], vec![binding("p", "one")]);
        let mut after = snapshot(vec![site("a", 0)], vec![binding("p", "two")]);
        after.bindings[0].backend_settings = None;
        after.limits = Some(Limits { threads: 2, ..Limits::default() });
        after.hide_server_header = true;
        after.sites[0].error_pages.push(0);
        after.error_pages.push(ErrorPage { status: 502, ..ErrorPage::default() });
        let told = "site a: error pages; backend settings plain; backends of pool p; \
            threads (from the next restart on); limits; server header";
        assert_eq!(detail(&before, &after), told);
    }

    #[test]
    fn pages_are_compared_by_what_they_say_wherever_it_stands() {
        let page = |status, body: &'static str, body_of| ErrorPage {
            status,
            body: body.into(),
            body_of,
            before_site: true,
        };
        let with = |pages: Vec<ErrorPage>, of_site: &[u32]| {
            let sites = vec![site("a", 0), site("b", 0)];
            let mut snapshot = snapshot(sites, vec![binding("p", "one")]);
            snapshot.error_pages = pages;
            snapshot.sites[0].error_pages = of_site.to_vec();
            snapshot
        };
        let before = with(vec![page(502, "x", None), page(503, "", Some(0))], &[0, 1]);
        let renumbered = with(vec![page(503, "x", None), page(502, "", Some(0))], &[1, 0]);
        assert_eq!(detail(&before, &renumbered), "");
        let other = with(vec![page(502, "y", None), page(503, "", Some(0))], &[0, 1]);
        let told = "site a: error pages; error pages of requests for no site";
        assert_eq!(detail(&before, &other), told);
    }
}
