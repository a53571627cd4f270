//! What concerns the gateway as a whole: Azure's globalConfiguration, our own `holdfast` object, and the things
//! that Azure has words for and this version does not do.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::config::gateway::Global;
use crate::config::report::Report;
use crate::config::shape::Shape;

/// A day; no timer of a gateway needs more.
const SECONDS: RangeInclusive<u64> = 1..=86_400;

/// `again`: the document has been in force already.
pub(super) fn read(root: &Shape<'_>, base: &Path, again: bool, report: &mut Report) -> Global {
    let mut global = Global { http2: root.flag("enableHttp2", false, report), ..Global::default() };
    if let Some(azure) = root.inner("globalConfiguration", report) {
        for (name, whose) in [
            ("enableRequestBuffering", "a slow upload keeps its backend connection busy"),
            ("enableResponseBuffering", "a slow reader slows its backend"),
        ] {
            if azure.flag(name, false, report) {
                report.warn(
                    azure.place_of(name),
                    format!("{name} has no effect: bodies are passed on as they come, so {whose}"),
                    format!("write \"{name}\": false, which is what happens"),
                );
            }
        }
        global.hide_server_header =
            azure.flag("disableDefaultServerHeaderInResponse", false, report);
        azure.finish(report);
    }
    let Some(own) = root.inner("holdfast", report) else { return global };
    let mut seconds = |names: &[&str], range: RangeInclusive<u64>, into: &mut Duration| {
        for name in names {
            if let Ok(Some(value)) = own.number(name, range.clone(), report) {
                *into = Duration::from_secs(value);
            }
        }
    };
    seconds(&["drainTimeoutInSec", "drainTimeout"], 0..=604_800, &mut global.drain_timeout);
    seconds(&["connectTimeoutInSec", "connectTimeout"], SECONDS, &mut global.connect_timeout);
    seconds(&["handshakeTimeoutInSec", "handshakeTimeout"], SECONDS, &mut global.handshake_timeout);
    seconds(
        &["clientHeaderTimeoutInSec", "clientHeaderTimeout"],
        SECONDS,
        &mut global.header_timeout,
    );
    seconds(
        &["keepAliveTimeoutInSec", "keepAliveTimeout"],
        SECONDS,
        &mut global.keep_alive_timeout,
    );
    let mut figure = |name: &str, range: RangeInclusive<u64>| {
        own.number(name, range, report).ok().flatten().and_then(|value| u32::try_from(value).ok())
    };
    global.threads = figure("threads", 1..=256);
    if let Some(value) = figure("maxConnections", 0..=10_000_000) {
        global.max_connections = value;
    }
    if let Some(value) = figure("maxHeaderBytes", 8192..=1_048_576) {
        global.max_header_bytes = value;
    }
    if let Ok(Some(value)) = own.number("maxBodyBytes", 0..=u64::MAX / 2, report) {
        global.max_body_bytes = value;
    }
    global.websockets_over_http2 = own.flag("webSocketsOverHttp2", false, report);
    global.access_log = super::logging::access_log(&own, base, report);
    global.admin = super::admin::read(&own, base, again, report);
    global.watch_certificate_files = own.flag("watchCertificateFiles", true, report);
    own.finish(report);
    global
}

/// Words of Azure at the top that nobody else asked for. Call it after every collection was read.
pub(super) fn finish(root: &Shape<'_>, report: &mut Report) {
    root.pass_over(&[
        "sku",
        "gatewayIPConfigurations",
        "autoscaleConfiguration",
        "forceFirewallPolicyAssociation",
        "privateEndpointConnections",
        "defaultPredefinedSslPolicy",
        "reservedCapacity",
    ]);
    root.no_effect(
        "enableFips",
        "the TLS library is not one that was validated for FIPS 140",
        report,
    );
    for name in ["backendSettingsCollection", "listeners", "routingRules"] {
        root.no_effect(name, "TCP and TLS proxying is not offered; use httpListeners", report);
    }
    root.no_effect("firewallPolicy", "requests are NOT inspected by a WAF", report);
    root.no_effect("authenticationCertificates", "use trustedRootCertificates", report);
    root.no_effect("privateLinkConfigurations", "bind an address with holdfast.address", report);
    root.no_effect("entraJWTValidationConfigs", "requests are NOT checked by it", report);
    for name in ["advancedRoutingMaps", "advancedRoutingConditionSets"] {
        root.no_effect(name, "no rule can route by it here; use urlPathMaps", report);
    }
    if let Some(waf) = root.inner("webApplicationFirewallConfiguration", report)
        && waf.flag("enabled", true, report)
    {
        let prevents = waf.text("firewallMode", report);
        let reason = match prevents {
            Some(mode) if mode.value.eq_ignore_ascii_case("Prevention") => {
                "the WAF is set to Prevention, but this version has none: NOTHING IS BLOCKED"
            }
            _ => "webApplicationFirewallConfiguration has no effect yet in this version",
        };
        report.warn(&waf.place, reason, "put a WAF in front, or take the setting out");
    }
    root.finish(report);
}
