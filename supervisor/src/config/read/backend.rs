//! Pools, probes and backend settings. Which of them are joined is the rules' business.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::identity::{Held, ROOT_MEND};
use super::layer_4;
use super::network::{port, protocol};
use crate::config::gateway::{HostChoice, Pool, Probe, ProbeHost, Protocol, Settings, TrustedRoot};
use crate::config::reference::Table;
use crate::config::report::Report;
use crate::config::shape::{Placed, Shape};

/// Azure's range for every timer of a backend.
const SECONDS: RangeInclusive<u64> = 1..=86_400;
/// What tooling fills in; documents disagree, users see 30 s.
const REQUEST_TIMEOUT: u64 = 30;
/// Azure's limit for the text that a probe looks for.
const BODY_LIMIT: usize = 4090;

pub(super) fn pools(root: &Shape<'_>, report: &mut Report) -> Table<Pool> {
    super::collection(root, "backendAddressPools", &[], report, |shape, name, report| {
        shape.pass_over(&["backendIPConfigurations"]);
        let mut backends: Vec<String> = Vec::new();
        let mut known = HashSet::new();
        let mut sound = true;
        for entry in shape.shapes("backendAddresses", report) {
            let Some(found) = backend(&entry, report) else {
                sound = false;
                continue;
            };
            if known.insert(found.to_ascii_lowercase()) {
                backends.push(found);
            } else {
                report.warn(
                    &entry.place,
                    format!("{found:?} is in the pool twice"),
                    "keep one of them",
                );
            }
        }
        if backends.is_empty() && sound {
            report.warn(
                &shape.place,
                format!("the pool {name:?} is empty: requests to it are answered 502"),
                "add backendAddresses: [{\"ipAddress\": …} or {\"fqdn\": …}]",
            );
        }
        sound.then_some(Pool { name, backends })
    })
}

fn backend(entry: &Shape<'_>, report: &mut Report) -> Option<String> {
    let ip = entry.text("ipAddress", report);
    let fqdn = entry.text("fqdn", report);
    entry.finish(report);
    let Placed { value, place } = match (ip, fqdn) {
        (Some(ip), Some(fqdn)) if ip.value != fqdn.value => {
            report.error(&fqdn.place, "ipAddress and fqdn are both given", "keep one of them");
            return None;
        }
        (Some(ip), _) => {
            let bare = ip.value.trim().trim_start_matches('[').trim_end_matches(']');
            if bare.parse::<IpAddr>().is_err() && !is_host(bare) {
                report.error(
                    &ip.place,
                    format!("{:?} is not an IP address", ip.value),
                    "write one, without a port",
                );
                return None;
            }
            return Some(bare.to_owned());
        }
        (None, Some(fqdn)) => fqdn,
        (None, None) => {
            report.error(&entry.place, "the backend has no address", "write ipAddress or fqdn");
            return None;
        }
    };
    let bare = value.trim();
    if bare.parse::<IpAddr>().is_ok() || is_host(bare) {
        return Some(bare.to_owned());
    }
    report.error(
        &place,
        format!("{value:?} is not a host name"),
        "write one, without scheme, port or path",
    );
    None
}

fn is_host(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !name.is_empty()
        && name.len() <= 253
        && name.chars().all(letters)
        && !name.split('.').any(|label| label.is_empty() || label.len() > 63)
}

/// A Host header, port allowed.
fn is_authority(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok()) {
        return true;
    }
    match text.rsplit_once(':') {
        Some((host, port)) => is_host(host) && port.parse::<u16>().is_ok(),
        None => is_host(text),
    }
}

/// A host name that will stand in a header or in SNI. `Err`: wrong, and reported.
fn host(shape: &Shape<'_>, name: &str, report: &mut Report) -> Result<Option<Placed<String>>, ()> {
    let Some(mut text) = shape.text(name, report) else { return Ok(None) };
    text.value = text.value.trim().to_owned();
    if text.value.parse::<Ipv6Addr>().is_ok() {
        // As it stands in a header (RFC 3986, section 3.2.2).
        text.value = format!("[{}]", text.value);
    }
    if is_authority(&text.value) {
        return Ok(Some(text));
    }
    report.error(
        &text.place,
        format!("{:?} is not a host name", text.value),
        "write one, without scheme or path",
    );
    Err(())
}

/// A path that begins with a slash and can stand in a request line. `Err`: wrong, and reported.
fn path(shape: &Shape<'_>, name: &str, report: &mut Report) -> Result<Option<String>, ()> {
    let Some(text) = shape.text(name, report) else { return Ok(None) };
    let sound = text.value.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if sound && text.value.starts_with('/') {
        return Ok(Some(text.value));
    }
    report.error(
        &text.place,
        format!("{:?} is not a path", text.value),
        "begin it with / and percent-encode spaces and other characters outside of ASCII",
    );
    Err(())
}

/// A number of seconds. `None`: wrong, and reported.
fn seconds(shape: &Shape<'_>, name: &str, default: u64, report: &mut Report) -> Option<Duration> {
    let value = shape.number(name, SECONDS, report).ok()?;
    Some(Duration::from_secs(value.unwrap_or(default)))
}

pub(super) fn probes(root: &Shape<'_>, report: &mut Report) -> Table<Probe> {
    super::collection(root, "probes", &[], report, |shape, name, report| {
        shape.pass_over(&["pickHostNameFromBackendSettings", "enableProbeProxyProtocolHeader"]);
        if layer_4::passes_over(shape, &name, report) {
            return None;
        }
        let protocol = protocol(shape, report);
        let port = port(shape, "port", report);
        let path = path(shape, "path", report);
        let host = host(shape, "host", report);
        let picks = shape.flag("pickHostNameFromBackendHttpSettings", false, report);
        let interval = seconds(shape, "interval", 30, report);
        let timeout = seconds(shape, "timeout", 30, report);
        let threshold = shape.number("unhealthyThreshold", 1..=20, report);
        let least = shape.number("minServers", 0..=1200, report);
        let (statuses, body) = matching(shape, report)?;
        let host = match (host.ok()?, picks) {
            (Some(host), true) => {
                report.error(
                    &host.place,
                    "host is given although pickHostNameFromBackendHttpSettings is true",
                    "keep one of them",
                );
                return None;
            }
            (None, true) => ProbeHost::FromSettings,
            (Some(host), false) => ProbeHost::Named(host.value),
            (None, false) => ProbeHost::Named("127.0.0.1".to_owned()),
        };
        Some(Probe {
            name,
            protocol: protocol?,
            port: port.ok()?,
            path: path.ok()?.unwrap_or_else(|| "/".to_owned()),
            host,
            interval: interval?,
            timeout: timeout?,
            unhealthy_threshold: u32::try_from(threshold.ok()?.unwrap_or(3)).ok()?,
            statuses,
            body,
            min_servers: u32::try_from(least.ok()?.unwrap_or(0)).ok()?,
        })
    })
}

type Matching = (Vec<(u16, u16)>, String);

/// What a healthy answer looks like. `None`: wrong, and reported.
fn matching(shape: &Shape<'_>, report: &mut Report) -> Option<Matching> {
    let default = vec![(200, 399)];
    let Some(shape) = shape.inner("match", report) else { return Some((default, String::new())) };
    let body = shape.text("body", report);
    if let Some(body) = body.as_ref().filter(|body| body.value.len() > BODY_LIMIT) {
        report.error(
            &body.place,
            format!("the text is longer than {BODY_LIMIT} bytes"),
            "look for less",
        );
        return None;
    }
    let mut statuses = Vec::new();
    let mut sound = true;
    for (node, place) in shape.list("statusCodes", report) {
        use crate::config::json::Value;
        let (Value::Text(text) | Value::Number(text)) = &node.value else {
            report.error(
                &place,
                format!("{} stands where a status should", node.value.kind()),
                "write \"200-399\"",
            );
            sound = false;
            continue;
        };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
                (Ok(first), Ok(last)) if 100 <= first && first <= last && last <= 599 => {
                    statuses.push((first, last));
                }
                _ => {
                    report.error(
                        &place,
                        format!("{part:.40?} is neither a status nor a range"),
                        "write \"200\" or \"200-399\", between 100 and 599",
                    );
                    sound = false;
                }
            }
        }
    }
    shape.finish(report);
    if statuses.is_empty() {
        statuses = default;
    }
    sound.then_some((statuses, body.map(|body| body.value).unwrap_or_default()))
}

pub(super) fn settings(
    root: &Shape<'_>,
    probes: &Table<Probe>,
    roots: &Table<Held<TrustedRoot>>,
    report: &mut Report,
) -> Table<Settings> {
    const SYNONYMS: &[&str] = &["backendHttpSettingsList"];
    let of_layer_4 = layer_4::Probes::of(root);
    super::collection(
        root,
        "backendHttpSettingsCollection",
        SYNONYMS,
        report,
        |shape, name, report| {
            shape.pass_over(&["probeEnabled"]);
            let affinity = super::policy::affinity(shape, report);
            let dedicated = shape.flag("dedicatedBackendConnection", false, report);
            shape.no_effect("authenticationCertificates", "use trustedRootCertificates", report);
            let protocol = protocol(shape, report);
            let port = port(shape, "port", report);
            if port == Ok(None) {
                report.error(&shape.place, format!("{name:?} has no port"), "write \"port\": 80");
            }
            let request_timeout = seconds(shape, "requestTimeout", REQUEST_TIMEOUT, report);
            let host = host_choice(shape, report);
            let path = path(shape, "path", report);
            let probe = shape.reference("probe", report).map(|reference| {
                of_layer_4.refuse(&reference, report);
                probes.find(&reference, report)
            });
            let drain_timeout = draining(shape, report);
            let trusted = shape.references("trustedRootCertificates", report);
            let trusted: Vec<Option<Arc<TrustedRoot>>> = trusted
                .iter()
                .map(|reference| roots.find(reference, report)?.needed(ROOT_MEND, report))
                .collect();
            let validate_chain = shape.flag("validateCertChainAndExpiry", true, report);
            let validate_name = shape.flag("validateSNI", true, report);
            if protocol == Some(Protocol::Https) && !(validate_chain && validate_name) {
                report.warn(
                    &shape.place,
                    "the backends' certificates are not fully checked",
                    "leave the checks on",
                );
            }
            let sni = self::host(shape, "sniName", report);
            let probe = match probe {
                None => None,
                Some(found) => Some(found?),
            };
            Some(Settings {
                name,
                port: port.ok()??,
                protocol: protocol?,
                request_timeout: request_timeout?,
                host: host?,
                path: path.ok()?.unwrap_or_default(),
                probe,
                drain_timeout: drain_timeout.ok()?,
                trusted_roots: trusted.into_iter().collect::<Option<_>>()?,
                validate_chain,
                validate_name,
                sni_name: sni.ok()?.map(|sni| sni.value).unwrap_or_default(),
                affinity: affinity.ok()?,
                dedicated,
            })
        },
    )
}

fn host_choice(shape: &Shape<'_>, report: &mut Report) -> Option<HostChoice> {
    let named = host(shape, "hostName", report);
    let picks = shape.flag("pickHostNameFromBackendAddress", false, report);
    match (named.ok()?, picks) {
        (Some(name), true) => {
            report.error(
                &name.place,
                "hostName is given although pickHostNameFromBackendAddress is true",
                "keep one of them",
            );
            None
        }
        (Some(name), false) => Some(HostChoice::Named(name.value)),
        (None, true) => Some(HostChoice::Backend),
        (None, false) => Some(HostChoice::Client),
    }
}

/// `Err`: wrong, and reported.
fn draining(shape: &Shape<'_>, report: &mut Report) -> Result<Option<Duration>, ()> {
    let Some(shape) = shape.inner("connectionDraining", report) else { return Ok(None) };
    let enabled = shape.flag("enabled", false, report);
    let timeout = if enabled {
        shape.number("drainTimeoutInSec", 1..=3600, report)?
    } else {
        shape.pass_over(&["drainTimeoutInSec"]);
        None
    };
    shape.finish(report);
    if enabled && timeout.is_none() {
        report.error(&shape.place, "drainTimeoutInSec is missing", "write 1 to 3600 seconds");
        return Err(());
    }
    Ok(timeout.map(Duration::from_secs))
}
