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
pub(super) fn nearest<'n>(
    name: &str,
    candidates: impl Iterator<Item = &'n str>,
) -> Option<&'n str> {
    let name: Vec<char> = name.to_lowercase().chars().take(80).collect();
    let allowed = (name.len() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().take(80).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for ((to, pair), left) in b.iter().zip(row.windows(2)).zip(0..) {
            let &[diagonal, above] = pair else { continue };
            let before: usize = next.get(left).copied().unwrap_or(usize::MAX - 1);
            next.push((diagonal + usize::from(from != to)).min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(a.len())
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
}
