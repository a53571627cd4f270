//! A gateway with several sites, pools and backends, and documents that differ from the one in force in one thing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use base64::Engine as _;
use p12_keystore::{
    Certificate as PfxCertificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::harness::{
    Authority, Certificate, Criers, Document, Gateway, Patience, Response, directory, eventually,
    free_port, get_host,
};

pub(super) const SETTINGS: &str = "backendHttpSettingsCollection";
pub(super) const RULES: &str = "requestRoutingRules";
pub(super) const MAPS: &str = "urlPathMaps";

/// How long, in seconds, tunnels of the pool `leaving` live without their backend.
pub(super) const LEAVING: u64 = 3;
/// The same of the pool `lone`.
pub(super) const LONE: u64 = 2;

/// Backends of each pool; those of `plain` and `spare` are under one port.
pub(super) struct Pools {
    pub(super) plain: Vec<SocketAddr>,
    pub(super) spare: SocketAddr,
    pub(super) sealed: Vec<SocketAddr>,
    pub(super) leaving: Vec<SocketAddr>,
    pub(super) lone: SocketAddr,
}

/// A gateway, and the document that it was given last.
pub(super) struct Scene {
    pub(super) gateway: Gateway,
    pub(super) criers: Criers,
    pub(super) pools: Pools,
    pub(super) document: Document,
    /// Plain HTTP: the sites `gone` (gone.test) and `web` (any host).
    pub(super) web: u16,
    /// TLS: the sites `chat` (chat.test) and `other` (other.test).
    pub(super) secure: u16,
    /// Plain HTTP: the site `extra`.
    pub(super) extra: u16,
    pub(super) chat: Certificate,
    pub(super) other: Certificate,
    pub(super) staff: Authority,
}

impl Scene {
    pub(super) fn start() -> Self {
        let directory = directory();
        let make = |name, host| Certificate::make(directory.path(), name, host);
        let (chat, other) = (make("chat", "chat.test"), make("other", "other.test"));
        let backend = make("backend", "backend.test");
        let staff = Authority::make(directory.path(), "staff");
        let criers = Criers::new();
        let mut plain = criers.group(&["plain1", "plain2", "plain3", "spare1"], None);
        let pools = Pools {
            spare: plain.pop().unwrap(),
            plain,
            sealed: criers.group(&["sealed1", "sealed2"], Some(&backend)),
            leaving: criers.group(&["leaving1", "leaving2"], None),
            lone: criers.group(&["lone1"], None)[0],
        };
        let [web, secure, extra] = [(); 3].map(|()| free_port());
        let paths = [("/sealed/*", "sealed"), ("/leaving/*", "leaving")];
        let document = with_pools(&pools)
            .host_site("gone", web, "gone.test", "lone")
            .path_site("web", web, &paths, "plain")
            .tls_site("chat", secure, &chat, "plain")
            .tls_site("other", secure, &other, "sealed")
            .site("extra", extra, "plain")
            .set(RULES, "chat", "ruleType", "PathBasedRouting")
            .set(RULES, "chat", "urlPathMap", link(MAPS, "web"))
            .set(RULES, "chat", "backendAddressPool", Value::Null)
            .set(RULES, "chat", "backendHttpSettings", Value::Null)
            // So that sites can come before the one that takes any host.
            .set(RULES, "web", "priority", 1000);
        let gateway = Gateway::start_in(directory, &document);
        Self { gateway, criers, pools, document, web, secure, extra, chat, other, staff }
    }

    /// Puts what is made of the document in force.
    pub(super) fn apply(&mut self, change: impl FnOnce(Document) -> Document) {
        let before = self.gateway.revision();
        self.document = change(self.document.clone());
        self.gateway.apply(&self.document);
        assert_eq!(self.gateway.revision(), before + 1, "nothing was changed");
    }

    /// Waits until exactly these answer requests for a host.
    pub(super) fn is_answered_by(&self, host: &str, path: &str, names: &[&str]) {
        port_is_answered_by(self.web, host, path, names);
    }
}

/// Waits until exactly these answer requests for a host, each of its own connection.
pub(super) fn port_is_answered_by(port: u16, host: &str, path: &str, names: &[&str]) {
    let names: BTreeSet<_> = names.iter().map(|&name| name.to_owned()).collect();
    eventually(Patience::USUAL, &format!("{host}{path} to be answered by {names:?}"), || {
        let ask = |_| name_of(&get_host(port, path, host).unwrap());
        let found: Option<BTreeSet<_>> = (0..2 * names.len()).map(ask).collect();
        (found? == names).then_some(())
    });
}

/// Who has answered, if anybody has.
pub(super) fn name_of(answer: &Response) -> Option<String> {
    (answer.status == 200).then(|| answer.text().lines().next().unwrap().to_owned())
}

fn with_pools(pools: &Pools) -> Document {
    let Pools { plain, spare, sealed, leaving, lone } = pools;
    let mut document = Document::new()
        .pool("plain", &plain[..2])
        .pool("spare", &[*spare])
        .pool("sealed", sealed)
        .pool("leaving", leaving)
        .pool("lone", &[*lone])
        .with_https_backends("sealed");
    for pool in ["plain", "spare", "sealed", "leaving", "lone"] {
        // Who is taken for one that is to end does so soon. A machine that is busy with the crowd is no reason for anybody
        // to be unhealthy.
        document = document
            .set(SETTINGS, pool, "connectionDraining", drain(1))
            .set("probes", pool, "timeout", 20)
            .set("probes", pool, "unhealthyThreshold", 20);
    }
    document.set(SETTINGS, "leaving", "connectionDraining", drain(LEAVING)).set(
        SETTINGS,
        "lone",
        "connectionDraining",
        drain(LONE),
    )
}

/// How long tunnels live without their backend.
pub(super) fn drain(seconds: u64) -> Value {
    json!({"enabled": true, "drainTimeoutInSec": seconds})
}

pub(super) fn link(collection: &str, name: &str) -> Value {
    json!({"id": format!("/{collection}/{name}")})
}

/// Adds an entry to a collection.
pub(super) fn add(mut document: Document, collection: &str, entry: Value) -> Document {
    let list = &mut document.0["properties"][collection];
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(entry);
    document
}

/// Takes entries of a name out of collections.
pub(super) fn remove(mut document: Document, collections: &[&str], name: &str) -> Document {
    for collection in collections {
        let list = document.0["properties"][collection].as_array_mut().unwrap();
        let before = list.len();
        list.retain(|entry| entry["name"] != name);
        assert_eq!(list.len() + 1, before, "{name} in {collection}");
    }
    document
}

/// The addresses of a pool.
pub(super) fn addresses(document: Document, pool: &str, backends: &[SocketAddr]) -> Document {
    let one = |backend: &SocketAddr| json!({"ipAddress": backend.ip().to_string()});
    let backends: Value = backends.iter().map(one).collect();
    document.set("backendAddressPools", pool, "backendAddresses", backends)
}

/// A certificate written into the document, instead of its files.
pub(super) fn inline(document: Document, name: &str, certificate: &Certificate) -> Document {
    let key = PrivateKeyDer::from_pem_file(&certificate.key_file).unwrap();
    let key = PrivateKey::from_der(key.secret_der()).unwrap();
    let shown = PfxCertificate::from_der(&certificate.der).unwrap();
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(b"1".to_vec(), key, [shown]);
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(chain));
    // Few rounds: each document that has it is read many times, without optimization.
    let data = store.writer("secret").encryption_iterations(100).mac_iterations(100);
    let data = data.write().unwrap();
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    let mut document = document.set("sslCertificates", name, "data", data).set(
        "sslCertificates",
        name,
        "password",
        "secret",
    );
    let list = document.0["properties"]["sslCertificates"].as_array_mut().unwrap();
    let entry = list.iter_mut().find(|entry| entry["name"] == name).unwrap();
    entry.as_object_mut().unwrap().remove("holdfast");
    document
}

/// A set that tells backends something.
pub(super) fn rewrite_set(document: Document, value: &str) -> Document {
    let header = json!({"headerName": "X-Changed", "headerValue": value});
    let rule = json!({"name": "only", "ruleSequence": 100, "conditions": [],
        "actionSet": {"requestHeaderConfigurations": [header]}});
    let document = add(
        document,
        "rewriteRuleSets",
        json!({"name": "set", "properties": {"rewriteRules": [rule]}}),
    );
    document.set(MAPS, "web", "defaultRewriteRuleSet", link("rewriteRuleSets", "set"))
}

/// A profile that lets in only clients of an authority.
pub(super) fn strict_profile(document: Document, site: &str, authority: &Authority) -> Document {
    let trusted = json!({"name": "staff", "properties": {},
        "holdfast": {"certificateFile": authority.file}});
    let profile = json!({"name": "strict", "properties": {
        "trustedClientCertificates": [link("trustedClientCertificates", "staff")],
        "clientAuthConfiguration": {"verifyClientAuthMode": "Strict"}}});
    let document = add(document, "trustedClientCertificates", trusted);
    let document = add(document, "sslProfiles", profile);
    document.set("httpListeners", site, "sslProfile", link("sslProfiles", "strict"))
}

/// What no path of the map matches goes to several pools alike.
pub(super) fn policy(document: Document, pools: &[&str]) -> Document {
    let target = |pool: &&str| {
        json!({"name": pool, "properties": {"weightPerServer": 1,
            "backendAddressPool": link("backendAddressPools", pool)}})
    };
    let targets: Vec<_> = pools.iter().map(target).collect();
    let policy = json!({"name": "shared", "properties": {
        "loadDistributionAlgorithm": "RoundRobin", "loadDistributionTargets": targets}});
    add(document, "loadDistributionPolicies", policy)
        .set(
            MAPS,
            "web",
            "defaultLoadDistributionPolicy",
            link("loadDistributionPolicies", "shared"),
        )
        .set(MAPS, "web", "defaultBackendAddressPool", Value::Null)
}

/// What a path of the map leads to becomes a redirect.
pub(super) fn redirected(document: Document, path: &str, url: &str) -> Document {
    let away = json!({"name": "away", "properties": {"redirectType": "Found", "targetUrl": url}});
    let mut document = add(document, "redirectConfigurations", away);
    let map = &mut document.0["properties"][MAPS][0]["properties"];
    let rules = map["pathRules"].as_array_mut().unwrap();
    let rule = rules.iter_mut().find(|rule| rule["properties"]["paths"][0] == path).unwrap();
    rule["properties"] =
        json!({"paths": [path], "redirectConfiguration": link("redirectConfigurations", "away")});
    document
}
