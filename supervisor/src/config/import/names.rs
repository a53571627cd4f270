//! Azure's names: in which order they are written, in which collection a reference ends, and what has no meaning outside of
//! Azure. How each is spelled is `spelling`'s, and what it means is decided where documents are read.

use crate::config::spelling;

/// Collections and settings of a gateway in the order in which they are written.
pub(super) const ORDER: &[&str] = &[
    "frontendIPConfigurations",
    "frontendPorts",
    "sslCertificates",
    "trustedRootCertificates",
    "trustedClientCertificates",
    "authenticationCertificates",
    "sslPolicy",
    "sslProfiles",
    "httpListeners",
    "backendAddressPools",
    "backendHttpSettingsCollection",
    "probes",
    "rewriteRuleSets",
    "redirectConfigurations",
    "urlPathMaps",
    "requestRoutingRules",
    "loadDistributionPolicies",
    "customErrorConfigurations",
    "globalConfiguration",
    "enableHttp2",
];

/// Lists whose entries are `{name, properties}`.
const WRAPPED: &[&str] = &[
    "frontendIPConfigurations",
    "frontendPorts",
    "sslCertificates",
    "trustedRootCertificates",
    "trustedClientCertificates",
    "authenticationCertificates",
    "sslProfiles",
    "httpListeners",
    "backendAddressPools",
    "backendHttpSettingsCollection",
    "probes",
    "rewriteRuleSets",
    "redirectConfigurations",
    "urlPathMaps",
    "pathRules",
    "requestRoutingRules",
    "loadDistributionPolicies",
    "loadDistributionTargets",
    "backendSettingsCollection",
    "listeners",
    "routingRules",
];

/// What Azure or its tools write beside everything; nobody misses it.
const ENVELOPE: &[&str] = &[
    "id",
    "etag",
    "type",
    "resourceGroup",
    "provisioningState",
    "operationalState",
    "resourceGuid",
    "apiVersion",
    "subscriptionId",
    "systemData",
    "comments",
    "metadata",
    "$schema",
    "$comment",
    "kind",
    "scope",
    "defaultPredefinedSslPolicy",
    "privateEndpointConnections",
    "forceFirewallPolicyAssociation",
    "privateIPAllocationMethod",
    "publicCertData",
];

/// Who refers to an entry; the references themselves stand there.
const BACK_REFERENCES: &[&str] = &[
    "requestRoutingRules",
    "httpListeners",
    "backendHttpSettings",
    "backendHttpSettingsCollection",
    "urlPathMaps",
    "pathRules",
    "redirectConfigurations",
    "sslProfiles",
    "sslCertificates",
    "loadBalancingRules",
];

/// What has an effect in Azure only, and what to know about that.
const LEFT_OUT: &[(&str, &str)] = &[
    ("sku", "it is the size of Azure's machines; here, one machine serves"),
    ("autoscaleConfiguration", "one machine serves"),
    ("reservedCapacity", "one machine serves"),
    ("gatewayIPConfigurations", "it is the gateway's subnet in Azure"),
    ("zones", "they are where Azure's machines stand"),
    ("identity", "it is an identity in Azure, for reading Key Vaults"),
    ("tags", "they describe the resource in Azure"),
    ("location", "it is where Azure's machines stand"),
    ("extendedLocation", "it is where Azure's machines stand"),
    ("managedBy", "it describes the resource in Azure"),
    ("enableFips", "a FIPS mode is not offered"),
    ("webApplicationFirewallConfiguration", "requests are NOT inspected by a WAF"),
    ("firewallPolicy", "requests are NOT inspected by a WAF"),
    ("privateLinkConfigurations", "Azure's private links do not lead here"),
    ("privateLinkConfiguration", "Azure's private links do not lead here"),
    (
        "backendIPConfigurations",
        "they are network interfaces in Azure, whose addresses are not in the document: add them as backendAddresses",
    ),
];

/// Where a reference by that name ends.
const REFERENCES: &[(&str, &str)] = &[
    ("frontendIPConfiguration", "frontendIPConfigurations"),
    ("frontendPort", "frontendPorts"),
    ("sslCertificate", "sslCertificates"),
    ("sslProfile", "sslProfiles"),
    ("probe", "probes"),
    ("backendAddressPool", "backendAddressPools"),
    ("defaultBackendAddressPool", "backendAddressPools"),
    ("backendHttpSettings", "backendHttpSettingsCollection"),
    ("defaultBackendHttpSettings", "backendHttpSettingsCollection"),
    ("httpListener", "httpListeners"),
    ("targetListener", "httpListeners"),
    ("urlPathMap", "urlPathMaps"),
    ("redirectConfiguration", "redirectConfigurations"),
    ("defaultRedirectConfiguration", "redirectConfigurations"),
    ("rewriteRuleSet", "rewriteRuleSets"),
    ("defaultRewriteRuleSet", "rewriteRuleSets"),
    ("loadDistributionPolicy", "loadDistributionPolicies"),
    ("defaultLoadDistributionPolicy", "loadDistributionPolicies"),
    ("trustedRootCertificates", "trustedRootCertificates"),
    ("trustedClientCertificates", "trustedClientCertificates"),
    ("authenticationCertificates", "authenticationCertificates"),
];

fn listed(list: &[&'static str], name: &str) -> Option<&'static str> {
    list.iter().copied().find(|known| known.eq_ignore_ascii_case(name))
}

/// A name as Azure spells it, or as it stands.
pub(super) fn spelled(name: &str) -> &str {
    if name.eq_ignore_ascii_case("backendHttpSettingsList") {
        return "backendHttpSettingsCollection";
    }
    spelling::spelled(name).unwrap_or(name)
}

/// Whether a list by that name has entries with `properties`.
pub(super) fn is_wrapped(name: &str) -> bool {
    listed(WRAPPED, name).is_some()
}

pub(super) fn is_envelope(name: &str) -> bool {
    listed(ENVELOPE, name).is_some()
}

pub(super) fn is_back_reference(name: &str) -> bool {
    listed(BACK_REFERENCES, name).is_some()
}

/// How something is spelled that has no effect here, and why it has none.
pub(super) fn left_out(name: &str) -> Option<(&'static str, &'static str)> {
    LEFT_OUT.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).copied()
}

/// The collection that a reference leads into.
pub(super) fn target(name: &str) -> Option<&'static str> {
    REFERENCES.iter().find(|(known, _)| *known == name).map(|(_, collection)| *collection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_written_down_is_known_by_the_same_spelling() {
        let references = REFERENCES.iter().flat_map(|(name, collection)| [name, collection]);
        for name in ORDER.iter().chain(WRAPPED).chain(references) {
            assert_eq!(spelling::spelled(name), Some(*name));
        }
    }
}
