//! The document of the gateway under torture, and other documents that mean the same.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

const GATEWAY: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/applicationGateways/torture";

/// What documents are made from.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) backends: Vec<Ipv4Addr>,
    pub(crate) backend_port: u16,
    /// Threads of a worker; the gateway's default where it is absent.
    pub(crate) threads: Option<u32>,
}

impl Document {
    /// One of the documents under which every tunnel stays as it is. Neighbours differ, so each is a new revision.
    pub(crate) fn text(&self, variant: u64) -> String {
        let link =
            |collection: &str, name: &str| json!({"id": format!("{GATEWAY}/{collection}/{name}")});
        let addresses: Vec<_> =
            self.backends.iter().map(|one| json!({"ipAddress": one.to_string()})).collect();
        let (mut ports, mut sites, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for (index, listener) in self.listeners.iter().enumerate() {
            let name = format!("l{index}");
            ports.push(json!({"name": name, "properties": {"port": listener.port()}}));
            sites.push(json!({"name": name, "properties": {"protocol": "Http",
                "frontendIPConfiguration": link("frontendIPConfigurations", "loopback"),
                "frontendPort": link("frontendPorts", &name)}}));
            rules.push(
                json!({"name": name, "properties": {"ruleType": "Basic", "priority": index + 1,
                "httpListener": link("httpListeners", &name),
                "backendAddressPool": link("backendAddressPools", "checked"),
                "backendHttpSettings": link("backendHttpSettingsCollection", "checked")}}),
            );
        }
        let mut own = json!({"drainTimeoutInSec": 3600});
        if let Some(threads) = self.threads {
            own["threads"] = threads.into();
        }
        let document: Value = json!({"name": "torture", "properties": {
            "holdfast": own,
            "frontendIPConfigurations":
                [{"name": "loopback", "properties": {}, "holdfast": {"address": "127.0.0.1"}}],
            "frontendPorts": ports,
            "backendAddressPools":
                [{"name": "checked", "properties": {"backendAddresses": addresses}}],
            "probes": [{"name": "checked", "properties": {"protocol": "Http", "host": "torture",
                "path": "/healthz", "interval": 2, "timeout": 10, "unhealthyThreshold": 5}}],
            // Far longer than a run, so that no tunnel ends for its silence.
            "backendHttpSettingsCollection": [{"name": "checked", "properties": {
                "port": self.backend_port, "protocol": "Http",
                "requestTimeout": 7200 + variant % 1000, "probe": link("probes", "checked")}}],
            "httpListeners": sites,
            "requestRoutingRules": rules,
        }});
        format!("{document:#}\n")
    }
}
