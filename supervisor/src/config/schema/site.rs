//! What faces clients: frontends, ports, certificates, sites, and the rules that route them.

use super::property::{
    Kind, Object, Property, flag, list, number, object, reference, text, texts, word,
};
use crate::config::read::{policy_names, suite_names, version_names};

pub(super) static FRONTEND: Object = Object {
    title: "frontendIPConfiguration",
    about: "An address that is listened on.",
    named: true,
    properties: &[
        text("privateIPAddress", "An address of Azure's; write holdfast.address instead."),
        text("privateIPAddressVersion", "IPv6: binds [::] where holdfast.address is absent."),
        text("publicIPAddressVersion", "IPv6: binds [::] where holdfast.address is absent."),
    ],
    own: &[text(
        "address",
        "An IP address of this host, without a port; 0.0.0.0 where it is absent.",
    )],
    passed: &["privateIPAllocationMethod", "subnet", "publicIPAddress", "privateLinkConfiguration"],
};

pub(super) static PORT: Object = Object {
    title: "frontendPort",
    about: "A port that is listened on.",
    named: true,
    properties: &[number("port", [1, 65_535], None, "The port.")],
    own: &[],
    passed: &[],
};

pub(super) static CERTIFICATE: Object = Object {
    title: "sslCertificate",
    about: "A certificate with its key: two PEM files under holdfast, or PFX data.",
    named: true,
    properties: &[
        text("data", "PFX in base64; better, give files under holdfast."),
        text("password", "Of the PFX."),
        text("keyVaultSecretId", "A Key Vault cannot be read here: give files under holdfast."),
    ],
    own: &[
        text("certificateFile", "PEM file of the chain; read again when it changes."),
        text("privateKeyFile", "PEM file of the key, without a passphrase."),
        flag("ocspStapling", false, "The responder's answer is shown with the certificate."),
    ],
    passed: &["publicCertData", "hsm"],
};

pub(super) static TLS_POLICY: Object = Object {
    title: "sslPolicy",
    about: "Versions and cipher suites of TLS; TLS 1.2 and 1.3 are what can be offered.",
    named: false,
    properties: &[
        word(
            "policyType",
            &["Predefined", "Custom", "CustomV2"],
            None,
            "Predefined takes a policyName, the others cipherSuites.",
        ),
        Property {
            name: "policyName",
            about: "One of Azure's predefined policies.",
            kind: Kind::Name(policy_names),
        },
        word(
            "minProtocolVersion",
            &["TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"],
            None,
            "Of a custom policy; less than TLS 1.2 is never offered.",
        ),
        Property {
            name: "cipherSuites",
            about: "Of a custom policy, best first.",
            kind: Kind::Names(suite_names),
        },
        Property {
            name: "disabledSslProtocols",
            about: "Versions that are taken out of the policy.",
            kind: Kind::Names(version_names),
        },
    ],
    own: &[],
    passed: &[],
};

pub(super) static TLS_PROFILE: Object = Object {
    title: "sslProfile",
    about: "TLS with clients of the sites that name it.",
    named: true,
    properties: &[
        object("sslPolicy", &TLS_POLICY, "Instead of the gateway's."),
        Property {
            name: "trustedClientCertificates",
            about: "Clients need a certificate of one of these authorities.",
            kind: Kind::References("trustedClientCertificates"),
        },
        object("clientAuthConfiguration", &CLIENT_AUTH, "How clients' certificates are judged."),
    ],
    own: &[],
    passed: &[],
};

static CLIENT_AUTH: Object = Object {
    title: "clientAuthConfiguration",
    about: "How clients' certificates are judged.",
    named: false,
    properties: &[
        flag(
            "verifyClientCertIssuerDN",
            false,
            "The issuer must be the deepest authority of an entry.",
        ),
        word(
            "verifyClientRevocation",
            &["None", "OCSP"],
            Some("None"),
            "OCSP: the certificate's responder is asked whether it was revoked.",
        ),
        word(
            "verifyClientAuthMode",
            &["Strict", "Passthrough"],
            Some("Strict"),
            "Strict: 400 without a certificate that passes. Passthrough: asked for, nothing enforced.",
        ),
    ],
    own: &[],
    passed: &[],
};

pub(super) static TRUSTED_CLIENTS: Object = Object {
    title: "trustedClientCertificate",
    about: "Authorities whose clients are let in.",
    named: true,
    properties: &[
        text("data", "Base64 of the PEM chain."),
        text("validatedCertData", "What Azure prints instead of data."),
    ],
    own: &[text("certificateFile", "PEM file of the authorities; read again when it changes.")],
    passed: &["clientCertIssuerDN"],
};

pub(super) static SITE: Object = Object {
    title: "httpListener",
    about: "A site: host names on an address and a port.",
    named: true,
    properties: &[
        word("protocol", &["Http", "Https"], Some("Http"), "Https needs an sslCertificate."),
        reference("frontendIPConfiguration", "frontendIPConfigurations", "The address."),
        reference("frontendPort", "frontendPorts", "The port."),
        reference("sslCertificate", "sslCertificates", "What clients are shown."),
        reference("sslProfile", "sslProfiles", "TLS of this site alone."),
        text("hostName", "One host, without wildcards; any host where it is absent."),
        texts("hostNames", "At most five hosts; * stands for any run of characters, ? for one."),
        flag(
            "requireServerNameIndication",
            false,
            "Azure's word; the server name decides here anyway.",
        ),
        list("customErrorConfigurations", &ERROR_PAGE, "Instead of all of the gateway's."),
    ],
    own: &[
        word(
            "proxyProtocol",
            &["off", "required"],
            Some("off"),
            "Connections begin with a PROXY header, version 1 or 2.",
        ),
        texts("trustedProxies", "Addresses and blocks of those that may speak for others."),
        flag("trustForwardedHeaders", false, "X-Forwarded-* of trustedProxies is believed."),
    ],
    passed: &["firewallPolicy"],
};

pub(super) static ERROR_PAGE: Object = Object {
    title: "customErrorConfiguration",
    about: "What answers a fault of the gateway's own.",
    named: false,
    properties: &[
        word(
            "statusCode",
            &[
                "HttpStatus400",
                "HttpStatus403",
                "HttpStatus404",
                "HttpStatus405",
                "HttpStatus408",
                "HttpStatus500",
                "HttpStatus502",
                "HttpStatus503",
                "HttpStatus504",
            ],
            None,
            "The fault.",
        ),
        text("customErrorPageUrl", "Where the page is fetched when the document is put in force."),
    ],
    own: &[text("file", "The page's file, instead of a URL.")],
    passed: &[],
};

// Where a rule's requests go, and a path rule's.
const POOL: Property = reference("backendAddressPool", "backendAddressPools", "The pool.");
const SETTINGS: Property =
    reference("backendHttpSettings", "backendHttpSettingsCollection", "How it is talked to.");
const POLICY: Property =
    reference("loadDistributionPolicy", "loadDistributionPolicies", "Instead of a pool.");
const REDIRECTION: Property =
    reference("redirectConfiguration", "redirectConfigurations", "Instead of pool and settings.");
const REWRITES: Property =
    reference("rewriteRuleSet", "rewriteRuleSets", "What is changed of requests and answers.");

pub(super) static RULE: Object = Object {
    title: "requestRoutingRule",
    about: "Where a site's requests go.",
    named: true,
    properties: &[
        word(
            "ruleType",
            &["Basic", "PathBasedRouting"],
            Some("Basic"),
            "Basic: all to one pool. PathBasedRouting: as its urlPathMap says.",
        ),
        number("priority", [1, 20_000], None, "Smallest first; all rules have one, or none has."),
        reference("httpListener", "httpListeners", "The site."),
        reference("urlPathMap", "urlPathMaps", "Of a rule that routes by path."),
        POOL,
        SETTINGS,
        POLICY,
        REDIRECTION,
        REWRITES,
    ],
    own: &[],
    passed: &["firewallPolicy"],
};

pub(super) static PATH_MAP: Object = Object {
    title: "urlPathMap",
    about: "Pools by path; the first pattern that matches wins.",
    named: true,
    properties: &[
        reference("defaultBackendAddressPool", "backendAddressPools", "For what no path matches."),
        reference(
            "defaultBackendHttpSettings",
            "backendHttpSettingsCollection",
            "For what no path matches.",
        ),
        reference(
            "defaultLoadDistributionPolicy",
            "loadDistributionPolicies",
            "Instead of the default pool.",
        ),
        reference(
            "defaultRedirectConfiguration",
            "redirectConfigurations",
            "Instead of the default pool and settings.",
        ),
        reference("defaultRewriteRuleSet", "rewriteRuleSets", "For what no path matches."),
        list("pathRules", &PATH_RULE, "In the order in which they are tried."),
    ],
    own: &[],
    passed: &["firewallPolicy"],
};

static PATH_RULE: Object = Object {
    title: "pathRule",
    about: "Where requests for some paths go.",
    named: true,
    properties: &[
        texts("paths", "Patterns that begin with /; a * may stand at the very end."),
        POOL,
        SETTINGS,
        POLICY,
        REDIRECTION,
        REWRITES,
    ],
    own: &[],
    passed: &["firewallPolicy"],
};

pub(super) static REDIRECT: Object = Object {
    title: "redirectConfiguration",
    about: "A redirect to another site of this gateway, or to a URL.",
    named: true,
    properties: &[
        word(
            "redirectType",
            &["Permanent", "Found", "SeeOther", "Temporary"],
            Some("Permanent"),
            "301, 302, 303 or 307.",
        ),
        reference("targetListener", "httpListeners", "The site that it leads to."),
        text("targetUrl", "The absolute URL that it leads to."),
        flag("includePath", false, "The request's path is kept."),
        flag("includeQueryString", false, "The request's query is kept."),
    ],
    own: &[],
    passed: &[],
};
