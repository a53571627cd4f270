//! Application Gateway documents, built in the order a person would: pool, site, extras.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::certs::Certificate;

const GATEWAY: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/applicationGateways/test";

/// A document in the resource shape.
#[derive(Debug, Clone)]
pub(crate) struct Document(pub(crate) Value);

impl Document {
    /// One frontend on 127.0.0.1 and nothing else.
    pub(crate) fn new() -> Self {
        let frontend =
            json!({"name": "loopback", "properties": {}, "holdfast": {"address": "127.0.0.1"}});
        Self(json!({"name": "test", "properties": {"frontendIPConfigurations": [frontend]}}))
    }

    /// The smallest that serves: one site on `port` in front of `backends` (same port, different addresses).
    pub(crate) fn simple(port: u16, backends: &[SocketAddr]) -> Self {
        Self::new().pool("chat", backends).site("web", port, "chat")
    }

    /// A pool, its backend settings and a quick probe of `/healthz`, all of the same name. Without a limit on silence: how
    /// long a test takes is no matter of its tunnels.
    pub(crate) fn pool(mut self, name: &str, backends: &[SocketAddr]) -> Self {
        let addresses: Vec<_> =
            backends.iter().map(|backend| json!({"ipAddress": backend.ip().to_string()})).collect();
        let port = backends.first().map_or(9, SocketAddr::port);
        self.add("backendAddressPools", name, json!({"backendAddresses": addresses}));
        self.add(
            "backendHttpSettingsCollection",
            name,
            json!({"port": port, "protocol": "Http", "requestTimeout": 3600, "probe": link("probes", name),
                "connectionDraining": {"enabled": true, "drainTimeoutInSec": 30}}),
        );
        self.add(
            "probes",
            name,
            json!({"protocol": "Http", "host": "127.0.0.1", "path": "/healthz", "interval": 1, "timeout": 1,
                "unhealthyThreshold": 2}),
        );
        self
    }

    /// Talks TLS to a pool's backends, and to whoever shows any certificate there.
    pub(crate) fn with_https_backends(self, pool: &str) -> Self {
        let settings = "backendHttpSettingsCollection";
        self.set(settings, pool, "protocol", "Https")
            .set(settings, pool, "validateCertChainAndExpiry", false)
            .set(settings, pool, "validateSNI", false)
            .set("probes", pool, "protocol", "Https")
    }

    /// An HTTP site on `port` whose requests all go to `pool`.
    pub(crate) fn site(self, name: &str, port: u16, pool: &str) -> Self {
        self.port(port).listener(name, port, json!({"protocol": "Http"})).basic_rule(name, pool)
    }

    /// An HTTP site for one host name.
    pub(crate) fn host_site(self, name: &str, port: u16, host: &str, pool: &str) -> Self {
        self.port(port)
            .listener(name, port, json!({"protocol": "Http", "hostNames": [host]}))
            .basic_rule(name, pool)
    }

    /// An HTTPS site for the certificate's host name.
    pub(crate) fn tls_site(
        mut self,
        name: &str,
        port: u16,
        certificate: &Certificate,
        pool: &str,
    ) -> Self {
        self.add("sslCertificates", name, json!({}));
        let list = self.list("sslCertificates");
        list.last_mut().unwrap()["holdfast"] = json!({
            "certificateFile": certificate.chain_file, "privateKeyFile": certificate.key_file});
        let more = json!({"protocol": "Https", "hostName": certificate.host,
            "sslCertificate": link("sslCertificates", name)});
        self.port(port).listener(name, port, more).basic_rule(name, pool)
    }

    /// An HTTP site whose paths go to pools; the last pool takes what no path matches.
    pub(crate) fn path_site(
        mut self,
        name: &str,
        port: u16,
        paths: &[(&str, &str)],
        default: &str,
    ) -> Self {
        let rules: Vec<_> = paths
            .iter()
            .enumerate()
            .map(|(index, (path, pool))| {
                json!({"name": format!("path{index}"), "properties": {"paths": [path],
                    "backendAddressPool": link("backendAddressPools", pool),
                    "backendHttpSettings": link("backendHttpSettingsCollection", pool)}})
            })
            .collect();
        self.add(
            "urlPathMaps",
            name,
            json!({"pathRules": rules, "defaultBackendAddressPool": link("backendAddressPools", default),
                "defaultBackendHttpSettings": link("backendHttpSettingsCollection", default)}),
        );
        self = self.port(port).listener(name, port, json!({"protocol": "Http"}));
        let map = json!({"ruleType": "PathBasedRouting", "urlPathMap": link("urlPathMaps", name)});
        self.rule(name, map)
    }

    /// Sets a property of a named child, for example `("probes", "chat", "unhealthyThreshold", 1)`.
    pub(crate) fn set(
        mut self,
        collection: &str,
        name: &str,
        property: &str,
        value: impl Into<Value>,
    ) -> Self {
        let child = self.list(collection).iter_mut().find(|child| child["name"] == name).unwrap();
        child["properties"][property] = value.into();
        self
    }

    /// Sets one of Holdfast's own keys at the top.
    pub(crate) fn holdfast(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0["properties"]["holdfast"][key] = value.into();
        self
    }

    /// The document as text.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string_pretty(&self.0).unwrap()
    }

    fn port(mut self, port: u16) -> Self {
        let name = format!("p{port}");
        if !self.list("frontendPorts").iter().any(|child| child["name"] == name.as_str()) {
            self.add("frontendPorts", &name, json!({"port": port}));
        }
        self
    }

    fn listener(mut self, name: &str, port: u16, mut properties: Value) -> Self {
        properties["frontendIPConfiguration"] = link("frontendIPConfigurations", "loopback");
        properties["frontendPort"] = link("frontendPorts", &format!("p{port}"));
        self.add("httpListeners", name, properties);
        self
    }

    fn basic_rule(self, site: &str, pool: &str) -> Self {
        let properties = json!({"ruleType": "Basic",
            "backendAddressPool": link("backendAddressPools", pool),
            "backendHttpSettings": link("backendHttpSettingsCollection", pool)});
        self.rule(site, properties)
    }

    fn rule(mut self, site: &str, mut properties: Value) -> Self {
        properties["priority"] = (self.list("requestRoutingRules").len() + 1).into();
        properties["httpListener"] = link("httpListeners", site);
        self.add("requestRoutingRules", site, properties);
        self
    }

    fn add(&mut self, collection: &str, name: &str, properties: impl Into<Value>) {
        let properties = properties.into();
        self.list(collection).push(json!({"name": name, "properties": properties}));
    }

    fn list(&mut self, collection: &str) -> &mut Vec<Value> {
        let slot = &mut self.0["properties"][collection];
        if slot.is_null() {
            *slot = json!([]);
        }
        slot.as_array_mut().unwrap()
    }
}

/// A reference by resource id.
fn link(collection: &str, name: &str) -> Value {
    json!({"id": format!("{GATEWAY}/{collection}/{name}")})
}
