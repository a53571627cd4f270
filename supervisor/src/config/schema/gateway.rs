//! The top of a document: its collections, and what concerns the gateway as a whole.

use super::property::{Kind, Object, Property, flag, list, number, object, text, word};
use super::{admin, backend, rewrite, site};

const DAY: [u64; 2] = [1, 86_400];

pub(super) static GATEWAY: Object = Object {
    title: "gateway",
    about: "A gateway: what it listens on, whom it routes where, and how backends are talked to.",
    named: true,
    properties: &[
        list("frontendIPConfigurations", &site::FRONTEND, "Addresses that are listened on."),
        list("frontendPorts", &site::PORT, "Ports that are listened on."),
        list("sslCertificates", &site::CERTIFICATE, "Certificates that sites show to clients."),
        list(
            "trustedRootCertificates",
            &backend::ROOT,
            "Roots that https backends' certificates may come from, beside the system's.",
        ),
        object(
            "sslPolicy",
            &site::TLS_POLICY,
            "TLS with clients, for sites without a profile that says otherwise.",
        ),
        list(
            "sslProfiles",
            &site::TLS_PROFILE,
            "TLS with clients of some sites: a policy, and whether clients need certificates.",
        ),
        list(
            "trustedClientCertificates",
            &site::TRUSTED_CLIENTS,
            "Authorities whose clients are let in.",
        ),
        list("httpListeners", &site::SITE, "Sites: an address, a port, host names, a certificate."),
        list(
            "requestRoutingRules",
            &site::RULE,
            "Which pool a site's requests go to; one for each site.",
        ),
        list("urlPathMaps", &site::PATH_MAP, "Pools by path, for rules that route by path."),
        list(
            "redirectConfigurations",
            &site::REDIRECT,
            "Redirects that rules and path rules name.",
        ),
        list("rewriteRuleSets", &rewrite::SET, "Changes of headers and URLs that rules name."),
        list("backendAddressPools", &backend::POOL, "Backends, by pool."),
        list(
            "backendHttpSettingsCollection",
            &backend::SETTINGS,
            "How backends are talked to: port, protocol, host name, timeouts.",
        ),
        list(
            "backendHttpSettingsList",
            &backend::SETTINGS,
            "The same as backendHttpSettingsCollection, which is the better name.",
        ),
        list("probes", &backend::PROBE, "How backends are checked."),
        list(
            "loadDistributionPolicies",
            &backend::POLICY,
            "How requests are shared out among several pools.",
        ),
        list(
            "customErrorConfigurations",
            &site::ERROR_PAGE,
            "Pages for faults of the gateway's own, where a site has none of its own.",
        ),
        flag("enableHttp2", false, "Offers HTTP/2 to clients that speak TLS."),
        object("globalConfiguration", &GLOBAL, "Azure's settings of the gateway as a whole."),
        object(
            "webApplicationFirewallConfiguration",
            &FIREWALL,
            "There is no WAF here: requests are NOT inspected.",
        ),
    ],
    own: &[
        number(
            "threads",
            [1, 256],
            None,
            "Threads of each worker; one a CPU where it is absent. Read when a worker starts.",
        ),
        number(
            "drainTimeoutInSec",
            [0, 604_800],
            Some(3600),
            "How long a replaced worker keeps its open tunnels; 0: until they end by themselves.",
        ),
        number("drainTimeout", [0, 604_800], None, "The same as drainTimeoutInSec."),
        number("connectTimeoutInSec", DAY, Some(5), "For a connection to a backend."),
        number("connectTimeout", DAY, None, "The same as connectTimeoutInSec."),
        number(
            "handshakeTimeoutInSec",
            DAY,
            Some(10),
            "For a client's TLS handshake, from accept on.",
        ),
        number("handshakeTimeout", DAY, None, "The same as handshakeTimeoutInSec."),
        number("clientHeaderTimeoutInSec", DAY, Some(60), "For a request's head to be complete."),
        number("clientHeaderTimeout", DAY, None, "The same as clientHeaderTimeoutInSec."),
        number(
            "keepAliveTimeoutInSec",
            DAY,
            Some(75),
            "For the next request on an open connection.",
        ),
        number("keepAliveTimeout", DAY, None, "The same as keepAliveTimeoutInSec."),
        number("maxConnections", [0, 10_000_000], Some(0), "Of a listener; 0: no bound."),
        number("maxHeaderBytes", [8192, 1_048_576], Some(32_768), "Of a request's head."),
        number(
            "maxBodyBytes",
            [0, u64::MAX / 2],
            Some(4_294_967_296),
            "Of a request's body; 0: no bound.",
        ),
        flag(
            "webSocketsOverHttp2",
            false,
            "With enableHttp2: clients may open WebSockets over HTTP/2. Such tunnels do not outlive their worker.",
        ),
        flag(
            "watchCertificateFiles",
            true,
            "Certificate files that change are read again at once.",
        ),
        object(
            "admin",
            &admin::ADMIN,
            "The admin API over the network, with certificates on both sides.",
        ),
        object("accessLog", &ACCESS_LOG, "A line of JSON for each request and each tunnel's end."),
    ],
    passed: &[
        "sku",
        "gatewayIPConfigurations",
        "autoscaleConfiguration",
        "forceFirewallPolicyAssociation",
        "privateEndpointConnections",
        "defaultPredefinedSslPolicy",
        "reservedCapacity",
        "enableFips",
        "backendSettingsCollection",
        "listeners",
        "routingRules",
        "firewallPolicy",
        "authenticationCertificates",
        "privateLinkConfigurations",
        "advancedRoutingMaps",
        "advancedRoutingConditionSets",
        "entraJWTValidationConfigs",
    ],
};

static GLOBAL: Object = Object {
    title: "globalConfiguration",
    about: "Azure's settings of the gateway as a whole.",
    named: false,
    properties: &[
        flag("enableRequestBuffering", false, "No effect: bodies are passed on as they come."),
        flag("enableResponseBuffering", false, "No effect: bodies are passed on as they come."),
        flag(
            "disableDefaultServerHeaderInResponse",
            false,
            "The gateway's own answers have no Server.",
        ),
    ],
    own: &[],
    passed: &[],
};

static FIREWALL: Object = Object {
    title: "webApplicationFirewallConfiguration",
    about: "There is no WAF here: requests are NOT inspected.",
    named: false,
    properties: &[
        flag("enabled", true, "No effect but a warning."),
        text("firewallMode", "No effect but a warning."),
    ],
    own: &[],
    passed: &[],
};

static ACCESS_LOG: Object = Object {
    title: "accessLog",
    about: "Where lines about requests go.",
    named: false,
    properties: &[
        word(
            "destination",
            &["off", "stdout", "file"],
            Some("off"),
            "Where lines go; `file` where a file is given.",
        ),
        text("file", "Path of the file, which the gateway's user makes with mode 0640."),
        Property {
            name: "sampleRate",
            about: "Share of requests that get a line: 0.01 for one in a hundred.",
            kind: Kind::Share,
        },
    ],
    own: &[],
    passed: &[],
};
