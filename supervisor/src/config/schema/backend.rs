//! Pools, backend settings, probes and load distribution.

use super::property::{Kind, Object, Property, flag, list, number, object, reference, text, word};

const PROTOCOLS: &[&str] = &["Http", "Https"];
const SECONDS: [u64; 2] = [1, 86_400];
const PORTS: [u64; 2] = [1, 65_535];

pub(super) static POOL: Object = Object {
    title: "backendAddressPool",
    about: "Backends that do the same.",
    named: true,
    properties: &[list("backendAddresses", &BACKEND, "The backends; the port is the settings'.")],
    own: &[],
    passed: &["backendIPConfigurations"],
};

static BACKEND: Object = Object {
    title: "backendAddress",
    about: "A backend, by address or by name.",
    named: false,
    properties: &[
        text("ipAddress", "Its IP address, without a port."),
        text(
            "fqdn",
            "Its name, without scheme, port and path; looked up again by its time to live.",
        ),
    ],
    own: &[],
    passed: &[],
};

pub(super) static SETTINGS: Object = Object {
    title: "backendHttpSettings",
    about: "How backends are talked to.",
    named: true,
    properties: &[
        number("port", PORTS, None, "The backends' port."),
        word("protocol", PROTOCOLS, Some("Http"), "Https: TLS to the backends."),
        number(
            "requestTimeout",
            SECONDS,
            Some(30),
            "Seconds for an answer to begin; of a WebSocket also how long it may be silent. Keep it above the interval of your pings.",
        ),
        word(
            "cookieBasedAffinity",
            &["Enabled", "Disabled"],
            Some("Disabled"),
            "A cookie leads a client back to its backend.",
        ),
        Property {
            name: "affinityCookieName",
            about: "The cookie's name.",
            kind: Kind::Text(Some("ApplicationGatewayAffinity")),
        },
        flag(
            "dedicatedBackendConnection",
            false,
            "Each client's connection has a backend connection of its own.",
        ),
        object(
            "connectionDraining",
            &DRAINING,
            "What becomes of tunnels of a backend that leaves.",
        ),
        text("hostName", "The Host that backends see, instead of the client's."),
        flag(
            "pickHostNameFromBackendAddress",
            false,
            "The Host that backends see is their own name.",
        ),
        text("path", "Goes before the request's path."),
        reference(
            "probe",
            "probes",
            "How these backends are checked; / over the settings' protocol where it is absent.",
        ),
        Property {
            name: "trustedRootCertificates",
            about: "Roots that the backends' certificates may come from, beside the system's.",
            kind: Kind::References("trustedRootCertificates"),
        },
        flag(
            "validateCertChainAndExpiry",
            true,
            "With Https: whether the backends' chains and dates are checked.",
        ),
        flag("validateSNI", true, "With Https: whether the backends' names are checked."),
        text("sniName", "With Https: the name that is asked for and checked, instead of the Host."),
    ],
    own: &[],
    passed: &["probeEnabled", "authenticationCertificates"],
};

static DRAINING: Object = Object {
    title: "connectionDraining",
    about: "How long tunnels of a removed or drained backend stay.",
    named: false,
    properties: &[
        flag("enabled", false, "Off: they stay for 30 s."),
        number("drainTimeoutInSec", [1, 3600], None, "Needed where draining is enabled."),
    ],
    own: &[],
    passed: &[],
};

pub(super) static PROBE: Object = Object {
    title: "probe",
    about: "An HTTP or HTTPS request that a healthy backend answers well; never a WebSocket.",
    named: true,
    properties: &[
        word("protocol", PROTOCOLS, Some("Http"), "Of the probe's request."),
        number("port", PORTS, None, "The settings' port where it is absent."),
        Property { name: "path", about: "What is asked for.", kind: Kind::Text(Some("/")) },
        Property {
            name: "host",
            about: "The Host of the probe's request.",
            kind: Kind::Text(Some("127.0.0.1")),
        },
        flag("pickHostNameFromBackendHttpSettings", false, "The Host is the settings'."),
        number("interval", SECONDS, Some(30), "Seconds from one check to the next."),
        number("timeout", SECONDS, Some(30), "Seconds for an answer."),
        number(
            "unhealthyThreshold",
            [1, 20],
            Some(3),
            "Failures one after another that make a backend unhealthy.",
        ),
        number(
            "minServers",
            [0, 1200],
            Some(0),
            "So many backends stay in rotation whatever their probes say.",
        ),
        object("match", &MATCH, "What a healthy answer looks like."),
    ],
    own: &[],
    passed: &["pickHostNameFromBackendSettings", "enableProbeProxyProtocolHeader"],
};

static MATCH: Object = Object {
    title: "probeMatch",
    about: "What a healthy answer looks like.",
    named: false,
    properties: &[
        text("body", "A text that the answer's body must hold; at most 4090 bytes."),
        Property {
            name: "statusCodes",
            about: "Statuses and ranges of them, from 100 to 599.",
            kind: Kind::Statuses,
        },
    ],
    own: &[],
    passed: &[],
};

pub(super) static ROOT: Object = Object {
    title: "trustedRootCertificate",
    about: "A root that backends' certificates may come from.",
    named: true,
    properties: &[
        text("data", "Base64 of the certificate, DER or PEM."),
        text("keyVaultSecretId", "A Key Vault cannot be read here: give data."),
    ],
    own: &[],
    passed: &[],
};

pub(super) static POLICY: Object = Object {
    title: "loadDistributionPolicy",
    about: "How requests are shared out among several pools.",
    named: true,
    properties: &[
        word(
            "loadDistributionAlgorithm",
            &["RoundRobin", "LeastConnections", "IpHash"],
            Some("RoundRobin"),
            "How a backend is chosen.",
        ),
        list("loadDistributionTargets", &TARGET, "The pools and their weights."),
    ],
    own: &[],
    passed: &[],
};

static TARGET: Object = Object {
    title: "loadDistributionTarget",
    about: "A pool and its weight.",
    named: true,
    properties: &[
        number("weightPerServer", [1, 100], Some(1), "Of each of the pool's backends."),
        reference("backendAddressPool", "backendAddressPools", "The pool."),
    ],
    own: &[],
    passed: &[],
};
