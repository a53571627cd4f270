//! How names of properties are spelled, Azure's and our own: the one list of them, for an import that writes them down and
//! for what a person may have meant by a name that nobody knows. It only suggests; nothing is ever read under another
//! name than its own.

/// Names that mean something in some object.
const NAMES: &[&str] = &[
    "httpListeners",
    "requestRoutingRules",
    "frontendIPConfigurations",
    "frontendPorts",
    "sslCertificates",
    "backendAddressPools",
    "backendAddresses",
    "backendHttpSettingsCollection",
    "probes",
    "urlPathMaps",
    "pathRules",
    "redirectConfigurations",
    "trustedRootCertificates",
    "frontendIPConfiguration",
    "frontendPort",
    "protocol",
    "hostName",
    "hostNames",
    "sslCertificate",
    "requireServerNameIndication",
    "ruleType",
    "priority",
    "httpListener",
    "backendAddressPool",
    "backendHttpSettings",
    "urlPathMap",
    "redirectConfiguration",
    "port",
    "requestTimeout",
    "cookieBasedAffinity",
    "affinityCookieName",
    "dedicatedBackendConnection",
    "loadDistributionPolicies",
    "loadDistributionPolicy",
    "loadDistributionTargets",
    "loadDistributionAlgorithm",
    "weightPerServer",
    "defaultLoadDistributionPolicy",
    "probe",
    "connectionDraining",
    "enabled",
    "drainTimeoutInSec",
    "pickHostNameFromBackendAddress",
    "path",
    "paths",
    "host",
    "interval",
    "timeout",
    "unhealthyThreshold",
    "pickHostNameFromBackendHttpSettings",
    "minServers",
    "match",
    "body",
    "statusCodes",
    "fqdn",
    "ipAddress",
    "redirectType",
    "targetListener",
    "targetUrl",
    "includePath",
    "includeQueryString",
    "data",
    "password",
    "accessLog",
    "destination",
    "sampleRate",
    "proxyProtocol",
    "trustedProxies",
    "trustForwardedHeaders",
    "address",
    "certificateFile",
    "privateKeyFile",
    "threads",
    "connectTimeoutInSec",
    "clientHeaderTimeoutInSec",
    "keepAliveTimeoutInSec",
    "handshakeTimeoutInSec",
    "maxConnections",
    "maxHeaderBytes",
    "maxBodyBytes",
    "defaultBackendAddressPool",
    "defaultBackendHttpSettings",
    "defaultRedirectConfiguration",
    "customErrorConfigurations",
    "customErrorPageUrl",
    "statusCode",
    "globalConfiguration",
    "rewriteRuleSets",
    "rewriteRuleSet",
    "defaultRewriteRuleSet",
    "rewriteRules",
    "ruleSequence",
    "conditions",
    "variable",
    "pattern",
    "ignoreCase",
    "negate",
    "actionSet",
    "requestHeaderConfigurations",
    "responseHeaderConfigurations",
    "headerName",
    "headerValue",
    "headerValueMatcher",
    "urlConfiguration",
    "modifiedPath",
    "modifiedQueryString",
    "reroute",
    "sslPolicy",
    "sslProfile",
    "sslProfiles",
    "policyType",
    "policyName",
    "minProtocolVersion",
    "cipherSuites",
    "disabledSslProtocols",
    "trustedClientCertificates",
    "clientAuthConfiguration",
    "verifyClientCertIssuerDN",
    "verifyClientRevocation",
    "ocspStapling",
    "verifyClientAuthMode",
    "watchCertificateFiles",
    "authenticationCertificates",
    "enableHttp2",
    "backendSettingsCollection",
    "listeners",
    "routingRules",
    "firewallPolicy",
    "backendIPConfigurations",
    "probeEnabled",
    "validateCertChainAndExpiry",
    "validateSNI",
    "sniName",
    "pickHostNameFromBackendSettings",
    "enableProbeProxyProtocolHeader",
    "publicCertData",
    "keyVaultSecretId",
    "hsm",
    "enableRequestBuffering",
    "enableResponseBuffering",
    "disableDefaultServerHeaderInResponse",
    "holdfast",
    "privateIPAddress",
    "privateIPAddressVersion",
    "privateIPAllocationMethod",
    "publicIPAddress",
    "subnet",
    "webSocketsOverHttp2",
    "file",
    "clientCertificateAuthorityFile",
    "admin",
    "listen",
    "clients",
    "role",
];

/// What every object may have, and nobody means by another name.
const OF_ALL: &[&str] = &["id", "name", "properties"];

/// A known name as it is spelled.
pub(super) fn spelled(name: &str) -> Option<&'static str> {
    NAMES.iter().chain(OF_ALL).copied().find(|known| known.eq_ignore_ascii_case(name))
}

/// The known name that is nearest, among those allowed.
pub(super) fn known(name: &str, allowed: impl Fn(&str) -> bool) -> Option<&'static str> {
    nearest(name, NAMES.iter().copied().filter(|hint| allowed(hint)))
}

/// The candidate that is nearest to a name, when it is near enough to be meant.
pub fn nearest<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name: Vec<char> = name.to_lowercase().chars().take(80).collect();
    let allowed = (name.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many edits lead from one to the other; two neighbours that have changed places are one (optimal string alignment).
fn distance(a: &[char], b: &str) -> usize {
    const FAR: usize = usize::MAX / 2;
    let at = |row: &[usize], place: usize| row.get(place).copied().unwrap_or(FAR);
    let b: Vec<char> = b.chars().take(80).collect();
    let mut before = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = at(&row, j) + usize::from(from != to);
            let mut least = replaced.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from) {
                least = least.min(at(&before, j - 1) + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    at(&row, b.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_spelled_in_one_way() {
        let mut seen = BTreeSet::new();
        for name in NAMES.iter().chain(OF_ALL) {
            assert!(seen.insert(name.to_ascii_lowercase()), "{name}");
            assert_eq!(spelled(&name.to_ascii_uppercase()), Some(*name));
        }
        assert_eq!(spelled("hostNam"), None);
        assert_eq!(known("hostNam", |_| true), Some("hostName"));
        assert_eq!(known("idd", |_| true), None);
    }

    #[test]
    fn near_is_what_a_few_edits_make() {
        for (a, b, edits) in [
            ("chat", "chat", 0),
            ("caht", "chat", 1),
            ("cht", "chat", 1),
            ("chatt", "chat", 1),
            ("", "chat", 4),
            ("chat", "", 4),
            ("hcta", "chat", 2),
            ("video", "chat", 5),
        ] {
            assert_eq!(distance(&a.chars().collect::<Vec<_>>(), b), edits, "{a} {b}");
        }
        assert_eq!(nearest("caht", ["files", "chat"].into_iter()), Some("chat"));
        assert_eq!(nearest("Video", ["files", "chat"].into_iter()), None);
    }
}
