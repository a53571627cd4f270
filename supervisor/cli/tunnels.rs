//! `holdfast tunnels`: which of the live tunnels are meant.
//!
//! The gateway tells all of them; narrowing them down is this command's, so that it works with gateways of any version.

use std::cell::Cell;
use std::net::SocketAddr;

use holdfast_proto::admin::{HealthRequest, StatusRequest, TunnelInfo, TunnelsRequest};
use holdfast_proto::backend_name::endpoint;
use holdfast_supervisor::config::nearest;

use crate::args::{TunnelFilter, TunnelsArgs};
use crate::dial::{Client, connect};
use crate::{output, watch};

/// Names that are looked through for the one that was meant.
const MOST_LOOKED_THROUGH: usize = 1000;
/// More names than this help nobody.
const MOST_TOLD: usize = 20;

/// Lists tunnels.
pub(crate) async fn tunnels(args: &TunnelsArgs) -> anyhow::Result<()> {
    let (found, silent) = (Cell::new(0), Cell::default());
    watch::ask(
        &args.watch,
        async |client: &mut Client| {
            let mut answer = client.tunnels(TunnelsRequest {}).await?.into_inner();
            answer.tunnels.retain(|tunnel| fits(&args.filter, tunnel));
            found.set(answer.tunnels.len());
            silent.set(output::silent_text(&answer.silent));
            Ok(answer)
        },
        output::tunnels_json,
        output::tunnels_text,
    )
    .await?;
    if args.watch.admin.json {
        // The list has no place for it.
        output::complain(&silent.take());
    }
    if found.get() == 0 {
        output::complain(&doubts(args).await);
    }
    Ok(())
}

/// Names in the filter that nobody has: none of their tunnels is no news. Empty where it cannot be told.
async fn doubts(args: &TunnelsArgs) -> String {
    let filter = &args.filter;
    if filter.site.is_none() && filter.pool.is_none() && filter.backend.is_none() {
        return String::new();
    }
    let Ok(mut client) = connect(&args.watch.admin).await else { return String::new() };
    let (Ok(status), Ok(health)) =
        (client.status(StatusRequest {}).await, client.health(HealthRequest {}).await)
    else {
        return String::new();
    };
    let (status, pools) = (status.into_inner(), health.into_inner().pools);
    let sites = status.listeners.into_iter().flat_map(|listener| listener.sites).collect();
    let backends = pools.iter().flat_map(|pool| &pool.backends);
    let backends = backends.map(|it| endpoint(&it.address, it.port)).collect();
    let pools = pools.iter().map(|pool| pool.pool.clone()).collect();
    let same: fn(&str, &str) -> bool = |wanted, name| wanted.eq_ignore_ascii_case(name);
    [
        doubt("site", filter.site.as_ref(), sites, same),
        doubt("pool that is routed to", filter.pool.as_ref(), pools, same),
        doubt("backend", filter.backend.as_ref(), backends, is_backend),
    ]
    .concat()
}

/// A note where nothing is called `wanted`.
fn doubt(
    what: &str,
    wanted: Option<&String>,
    mut known: Vec<String>,
    is_it: fn(&str, &str) -> bool,
) -> String {
    let Some(wanted) = wanted.filter(|wanted| !known.iter().any(|name| is_it(wanted, name))) else {
        return String::new();
    };
    known.sort_unstable();
    known.dedup();
    let meant = nearest(wanted, known.iter().map(String::as_str).take(MOST_LOOKED_THROUGH));
    let meant = meant.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
    let names = known.iter().take(MOST_TOLD).cloned().collect::<Vec<_>>().join(", ");
    let note = format!("note: there is no {what} {wanted:?}{meant}; there are: {names}");
    format!("{}\n", output::printable(&note))
}

/// Whether a tunnel is meant.
pub(crate) fn fits(filter: &TunnelFilter, tunnel: &TunnelInfo) -> bool {
    let named = |wanted: &Option<String>, name: &str| {
        wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    let from = || tunnel.client.parse::<SocketAddr>().map(|client| client.ip());
    let age = u128::from(tunnel.age_ms);
    named(&filter.site, &tunnel.site)
        && named(&filter.pool, &tunnel.pool)
        && filter.backend.as_ref().is_none_or(|wanted| is_backend(wanted, &tunnel.backend))
        && filter.client.is_none_or(|network| from().is_ok_and(|client| network.contains(client)))
        && filter.min_age.is_none_or(|least| age >= least.as_millis())
        && filter.max_age.is_none_or(|most| age <= most.as_millis())
}

/// Whether `wanted`, with or without a port, an IPv6 address with or without brackets, names a backend.
pub(crate) fn is_backend(wanted: &str, backend: &str) -> bool {
    let address = backend.rsplit_once(':').map_or(backend, |(address, _)| address);
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    [Some(backend), Some(address), bare]
        .into_iter()
        .flatten()
        .any(|name| name.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn filter(options: &str) -> TunnelFilter {
        let line = format!("holdfast tunnels {options}");
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Tunnels(args) => args.filter,
            other => panic!("{other:?}"),
        }
    }

    fn tunnel() -> TunnelInfo {
        TunnelInfo {
            site: "Web".into(),
            pool: "chat".into(),
            backend: "[2001:db8::1]:8080".into(),
            client: "203.0.113.9:50000".into(),
            age_ms: 90_000,
            ..TunnelInfo::default()
        }
    }

    #[test]
    fn a_tunnel_is_meant_if_every_option_fits_it() {
        for (options, is_meant) in [
            ("", true),
            ("--site web --pool CHAT", true),
            ("--site web --pool other", false),
            ("--backend [2001:db8::1]:8080", true),
            ("--backend 2001:DB8::1", true),
            ("--backend [2001:db8::1]", true),
            ("--backend 2001:db8::2", false),
            ("--backend 8080", false),
            ("--client 203.0.113.0/24", true),
            ("--client 203.0.113.9", true),
            ("--client 203.0.114.0/24", false),
            ("--client ::/0", false),
            ("--min-age 90s", true),
            ("--min-age 91s", false),
            ("--max-age 1m", false),
            ("--min-age 1m --max-age 2m", true),
        ] {
            assert_eq!(fits(&filter(options), &tunnel()), is_meant, "{options}");
        }
    }

    #[test]
    fn a_name_that_nobody_has_is_doubted_and_one_that_somebody_has_is_not() {
        let known = || vec!["web".to_owned(), "more".to_owned(), "web".to_owned()];
        let same: fn(&str, &str) -> bool = |wanted, name| wanted.eq_ignore_ascii_case(name);
        let doubted = |wanted: &str| doubt("site", Some(&wanted.to_owned()), known(), same);
        assert_eq!(doubted("WEB"), "");
        assert_eq!(doubt("site", None, known(), same), "");
        let told = "note: there is no site \"wbe\" (did you mean \"web\"?); there are: more, web\n";
        assert_eq!(doubted("wbe"), told);
        let backends = || vec!["10.0.0.4:80".to_owned()];
        assert_eq!(doubt("backend", Some(&"10.0.0.4".to_owned()), backends(), is_backend), "");
        assert!(
            doubt("backend", Some(&"10.0.0.5".to_owned()), backends(), is_backend)
                .contains("no backend")
        );
    }

    #[test]
    fn a_client_without_an_address_is_in_no_network() {
        let odd = TunnelInfo { client: "unknown".into(), ..tunnel() };
        assert!(!fits(&filter("--client 0.0.0.0/0"), &odd));
        assert!(fits(&filter(""), &odd));
    }
}
