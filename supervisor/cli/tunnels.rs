//! `holdfast tunnels`: which of the live tunnels are meant.
//!
//! The gateway tells all of them; narrowing them down is this command's, so that it works with gateways of any version.

use std::net::SocketAddr;

use holdfast_proto::admin::{TunnelInfo, TunnelsRequest};

use crate::args::{TunnelFilter, TunnelsArgs};
use crate::dial::Client;
use crate::{output, watch};

/// Lists tunnels.
pub(crate) async fn tunnels(args: &TunnelsArgs) -> anyhow::Result<()> {
    watch::ask(
        &args.watch,
        async |client: &mut Client| {
            let mut answer = client.tunnels(TunnelsRequest {}).await?.into_inner();
            answer.tunnels.retain(|tunnel| fits(&args.filter, tunnel));
            Ok(answer)
        },
        output::tunnels_json,
        output::tunnels_text,
    )
    .await
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
    fn a_client_without_an_address_is_in_no_network() {
        let odd = TunnelInfo { client: "unknown".into(), ..tunnel() };
        assert!(!fits(&filter("--client 0.0.0.0/0"), &odd));
        assert!(fits(&filter(""), &odd));
    }
}
