//! The document of the gateway under torture, and other documents that mean the same.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use super::plan::Legs;
use super::tls::{Certificate, HOST};

const GATEWAY: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/applicationGateways/torture";

/// One of the gateway's listeners, which has a worker of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    /// Whether it speaks TLS.
    pub(crate) sealed: bool,
}

impl Listener {
    pub(crate) fn protocol(&self) -> &'static str {
        if self.sealed { "Https" } else { "Http" }
    }
}

/// What documents are made from.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) backends: Vec<Ipv4Addr>,
    pub(crate) backend_port: u16,
    /// Where backends speak TLS, and the certificate that everybody shows; if any listener speaks TLS.
    pub(crate) sealed: Option<(u16, Certificate)>,
    /// Threads of a worker; the gateway's default where it is absent.
    pub(crate) threads: Option<u32>,
}

impl Document {
    /// One of the documents under which every tunnel stays as it is. Neighbours differ, so each is a new revision.
    pub(crate) fn text(&self, variant: u64) -> String {
        let addresses: Vec<_> =
            self.backends.iter().map(|one| json!({"ipAddress": one.to_string()})).collect();
        let (mut ports, mut sites, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for (index, listener) in self.listeners.iter().enumerate() {
            let name = format!("l{index}");
            ports.push(json!({"name": name, "properties": {"port": listener.address.port()}}));
            let mut site = json!({"protocol": listener.protocol(),
                "frontendIPConfiguration": link("frontendIPConfigurations", "loopback"),
                "frontendPort": link("frontendPorts", &name)});
            let mut rule =
                json!({"priority": index + 1, "httpListener": link("httpListeners", &name)});
            let way = if listener.sealed {
                site["sslCertificate"] = link("sslCertificates", "shown");
                json!({"ruleType": "PathBasedRouting", "urlPathMap": link("urlPathMaps", "kinds")})
            } else {
                let mut way = leads_to("backend", "plain");
                way["ruleType"] = "Basic".into();
                way
            };
            merge(&mut rule, way);
            sites.push(json!({"name": name, "properties": site}));
            rules.push(json!({"name": name, "properties": rule}));
        }
        // A client that has no processor for so long has nothing to blame the gateway for.
        let mut own = json!({"drainTimeoutInSec": 3600, "handshakeTimeoutInSec": 120});
        if let Some(threads) = self.threads {
            own["threads"] = threads.into();
        }
        let mut properties = json!({
            "holdfast": own,
            "frontendIPConfigurations":
                [{"name": "loopback", "properties": {}, "holdfast": {"address": "127.0.0.1"}}],
            "frontendPorts": ports,
            "backendAddressPools":
                [{"name": "checked", "properties": {"backendAddresses": addresses}}],
            "probes": [probe("plain", "Http")],
            "backendHttpSettingsCollection": [self.settings("plain", variant)],
            "httpListeners": sites,
            "requestRoutingRules": rules,
        });
        if let Some((_, certificate)) = &self.sealed {
            self.seal(&mut properties, certificate, variant);
        }
        format!("{:#}\n", json!({"name": "torture", "properties": properties}))
    }

    /// Adds what has TLS: a certificate, and settings that paths of one kind lead to.
    fn seal(&self, properties: &mut Value, certificate: &Certificate, variant: u64) {
        let root = fs::read_to_string(&certificate.chain_file).unwrap_or_default();
        let sealed = Legs::WssToHttps.word();
        let mut path = leads_to("backend", "sealed");
        path["paths"] = json!([format!("/{sealed}/*")]);
        let mut map = leads_to("defaultBackend", "plain");
        map["pathRules"] = json!([{"name": sealed, "properties": path}]);
        merge(
            properties,
            json!({
                "sslCertificates": [{"name": "shown", "properties": {}, "holdfast": {
                    "certificateFile": certificate.chain_file, "privateKeyFile": certificate.key_file}}],
                "trustedRootCertificates": [{"name": "root", "properties": {"data": root}}],
                "probes": [probe("plain", "Http"), probe("sealed", "Https")],
                "backendHttpSettingsCollection":
                    [self.settings("plain", variant), self.settings("sealed", variant)],
                "urlPathMaps": [{"name": "kinds", "properties": map}],
            }),
        );
    }

    fn settings(&self, name: &str, variant: u64) -> Value {
        // Far longer than a run, so that no tunnel ends for its silence.
        let mut properties =
            json!({"requestTimeout": 7200 + variant % 1000, "probe": link("probes", name)});
        let more = match &self.sealed {
            Some((port, _)) if name == "sealed" => json!({"port": port, "protocol": "Https",
                "hostName": HOST, "trustedRootCertificates": [link("trustedRootCertificates", "root")]}),
            _ => json!({"port": self.backend_port, "protocol": "Http"}),
        };
        merge(&mut properties, more);
        json!({"name": name, "properties": properties})
    }
}

fn link(collection: &str, name: &str) -> Value {
    json!({"id": format!("{GATEWAY}/{collection}/{name}")})
}

fn probe(name: &str, protocol: &str) -> Value {
    json!({"name": name, "properties": {"protocol": protocol, "host": HOST,
        "path": "/healthz", "interval": 2, "timeout": 10, "unhealthyThreshold": 5}})
}

/// The backends with these settings, as properties that begin like `prefix`.
fn leads_to(prefix: &str, settings: &str) -> Value {
    let mut way = json!({});
    way[format!("{prefix}AddressPool")] = link("backendAddressPools", "checked");
    way[format!("{prefix}HttpSettings")] = link("backendHttpSettingsCollection", settings);
    way
}

/// Puts what `more` has into `object`, in place of what there was of the same name.
fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
