//! What the prober is told about each backend: a custom probe, or Azure's default one. Pure, and silent about
//! verdicts: what is known already is filled in by the caller.

use std::net::IpAddr;
use std::time::Duration;

use holdfast_proto::control;

use super::{backend_tls, backends, millis, scheme};
use crate::config::gateway::{HostChoice, Pool, Probe, ProbeHost, Protocol, Settings};

/// Azure's default probe asks for this host; only the header, the connection goes to the backend.
const DEFAULT_HOST: &str = "127.0.0.1";
/// Azure's default probe: every 30 s, 30 s for an answer, down after three failures.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_THRESHOLD: u32 = 3;
/// Azure's default match.
const DEFAULT_STATUSES: [(u16, u16); 1] = [(200, 399)];

/// The checks of one pool under one set of settings.
pub(super) fn targets(pool: &Pool, settings: &Settings) -> Vec<control::Target> {
    backends(&pool.backends, settings.port)
        .into_iter()
        .map(|backend| control::Target {
            probe: Some(probe(settings, &backend.address)),
            key: Some(control::TargetKey {
                pool: pool.name.clone(),
                settings: settings.name.clone(),
                address: backend.address,
                port: backend.port,
            }),
            known: control::HealthState::Unknown.into(),
        })
        .collect()
}

/// By what targets are sorted.
pub(super) fn order(target: &control::Target) -> Option<(&str, &str, &str, u32)> {
    let key = target.key.as_ref()?;
    Some((&key.pool, &key.settings, &key.address, key.port))
}

fn probe(settings: &Settings, backend: &str) -> control::Probe {
    match settings.probe.as_deref() {
        Some(custom) => custom_probe(custom, settings, backend),
        None => control::Probe {
            name: String::new(),
            scheme: scheme(settings.protocol).into(),
            port: settings.port.into(),
            path: "/".to_owned(),
            host: DEFAULT_HOST.to_owned(),
            sni: sni(settings.protocol, None, settings, backend),
            interval_ms: millis(DEFAULT_INTERVAL),
            timeout_ms: millis(DEFAULT_TIMEOUT),
            unhealthy_threshold: DEFAULT_THRESHOLD,
            statuses: ranges(&DEFAULT_STATUSES),
            body: String::new(),
            tls: (settings.protocol == Protocol::Https).then(|| backend_tls(settings)),
        },
    }
}

fn custom_probe(probe: &Probe, settings: &Settings, backend: &str) -> control::Probe {
    let host = match &probe.host {
        ProbeHost::Named(name) => name.clone(),
        ProbeHost::FromSettings => match &settings.host {
            HostChoice::Named(name) => name.clone(),
            HostChoice::Backend => in_header(backend),
            HostChoice::Client => DEFAULT_HOST.to_owned(),
        },
    };
    let named = match &probe.host {
        ProbeHost::Named(name) => Some(name.as_str()),
        ProbeHost::FromSettings => None,
    };
    control::Probe {
        name: probe.name.clone(),
        scheme: scheme(probe.protocol).into(),
        port: probe.port.unwrap_or(settings.port).into(),
        path: probe.path.clone(),
        sni: sni(probe.protocol, named, settings, backend),
        host,
        interval_ms: millis(probe.interval),
        timeout_ms: millis(probe.timeout),
        unhealthy_threshold: probe.unhealthy_threshold,
        statuses: ranges(&probe.statuses),
        body: probe.body.clone(),
        tls: (probe.protocol == Protocol::Https).then(|| backend_tls(settings)),
    }
}

/// A forced name, else the probe's host, else the settings' host name, else the backend's name; never an IP
/// literal (RFC 6066 section 3).
fn sni(protocol: Protocol, probe_host: Option<&str>, settings: &Settings, backend: &str) -> String {
    if protocol == Protocol::Http {
        return String::new();
    }
    let forced = Some(settings.sni_name.as_str()).filter(|name| !name.is_empty());
    let named = match &settings.host {
        HostChoice::Named(name) => Some(name.as_str()),
        HostChoice::Client | HostChoice::Backend => None,
    };
    [forced, probe_host, named, Some(backend)]
        .into_iter()
        .flatten()
        .map(without_port)
        .find(|name| !name.is_empty() && name.parse::<IpAddr>().is_err())
        .unwrap_or_default()
        .to_owned()
}

/// A backend's address as a Host header has it (RFC 3986, section 3.2.2).
fn in_header(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => address.to_owned(),
    }
}

/// The name in a Host header: without port and brackets.
pub(super) fn without_port(host: &str) -> &str {
    if let Some(inside) = host.strip_prefix('[') {
        return inside.split_once(']').map_or(inside, |(address, _)| address);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => {
            name
        }
        _ => host,
    }
}

fn ranges(statuses: &[(u16, u16)]) -> Vec<control::StatusRange> {
    statuses
        .iter()
        .map(|&(first, last)| control::StatusRange { first: first.into(), last: last.into() })
        .collect()
}
