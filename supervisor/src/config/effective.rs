//! The effective configuration: what a gateway does, in the resource's shape, with every default written out.
//! Keys, PFX data and passwords never appear in it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

mod admin;
mod rewrite;

use super::gateway::{
    Action, Certificate, CertificateSource, ErrorPage, Gateway, HostChoice, PageSource, PathMap,
    PathRule, Policy, Probe, ProbeHost, Protocol, Redirect, RedirectTarget, Rule, RuleTarget,
    Settings, Site,
};

mod client_side;
mod tls;

/// The gateway in the resource's shape, with defaults, without secrets.
pub fn effective(gateway: &Gateway) -> Value {
    let global = &gateway.global;
    let sites = gateway.listeners.iter().flat_map(|listener| &listener.sites);
    let mut holdfast = json!({
        "drainTimeoutInSec": global.drain_timeout.as_secs(),
        "connectTimeoutInSec": global.connect_timeout.as_secs(),
        "handshakeTimeoutInSec": global.handshake_timeout.as_secs(),
        "clientHeaderTimeoutInSec": global.header_timeout.as_secs(),
        "keepAliveTimeoutInSec": global.keep_alive_timeout.as_secs(),
        "maxConnections": global.max_connections,
        "maxHeaderBytes": global.max_header_bytes,
        "maxBodyBytes": global.max_body_bytes,
        "webSocketsOverHttp2": global.websockets_over_http2,
        "watchCertificateFiles": global.watch_certificate_files,
    });
    put(&mut holdfast, "threads", global.threads.map(|threads| json!(threads)));
    put(&mut holdfast, "admin", global.admin.as_deref().map(admin::network));
    put(&mut holdfast, "accessLog", Some(client_side::access_log(&global.access_log)));
    json!({
        "name": gateway.name,
        "properties": {
            "frontendIPConfigurations": list(&gateway.frontends, |frontend| json!({
                "name": frontend.name,
                "holdfast": { "address": frontend.address.to_string() },
            })),
            "frontendPorts": list(&gateway.ports, |port| child(&port.name, json!({ "port": port.port }))),
            "sslCertificates": list(&gateway.certificates, certificate),
            "trustedRootCertificates": list(&gateway.trusted_roots, |root| {
                child(&root.name, json!({ "data": STANDARD.encode(&root.der) }))
            }),
            "sslPolicy": tls::policy(&gateway.tls_policy),
            "trustedClientCertificates": list(&gateway.trusted_clients, tls::trusted),
            "sslProfiles": list(&gateway.tls_profiles, tls::profile),
            "httpListeners": sites.map(|s| site(s)).collect::<Vec<_>>(),
            "probes": list(&gateway.probes, probe),
            "backendAddressPools": list(&gateway.pools, |pool| {
                let backends: Vec<Value> = pool.backends.iter().map(|b| backend(b)).collect();
                child(&pool.name, json!({ "backendAddresses": backends }))
            }),
            "loadDistributionPolicies": list(&gateway.policies, policy),
            "backendHttpSettingsCollection": list(&gateway.settings, settings),
            "redirectConfigurations": list(&gateway.redirects, redirect),
            "rewriteRuleSets": list(&gateway.rewrite_sets, rewrite::set),
            "urlPathMaps": list(&gateway.path_maps, path_map),
            "requestRoutingRules": list(&gateway.rules, rule),
            "enableHttp2": global.http2,
            "customErrorConfigurations": error_pages(&gateway.error_pages),
            "globalConfiguration": {
                "enableRequestBuffering": false,
                "enableResponseBuffering": false,
                "disableDefaultServerHeaderInResponse": global.hide_server_header,
            },
        },
        "holdfast": holdfast,
    })
}

fn list<T>(items: &[std::sync::Arc<T>], write: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(|item| write(item)).collect())
}

fn child(name: &str, properties: impl Into<Value>) -> Value {
    json!({ "name": name, "properties": properties.into() })
}

fn id(collection: &str, name: &str) -> Value {
    json!({ "id": format!("/{collection}/{name}") })
}

/// Adds a member that may be absent.
fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(members), Some(value)) = (object.as_object_mut(), value) {
        members.insert(name.to_owned(), value);
    }
}

fn certificate(certificate: &Certificate) -> Value {
    let stapling = certificate.ocsp_stapling.then_some(json!(true));
    match &certificate.source {
        // As Azure prints it: the public half, so that it loads again once files or data are given for it.
        CertificateSource::Pfx => {
            let leaf = certificate.chain_der.first().map(|der| STANDARD.encode(der));
            let mut value = child(&certificate.name, json!({ "publicCertData": leaf }));
            let own = stapling.map(|on| json!({ "ocspStapling": on }));
            put(&mut value, "holdfast", own);
            value
        }
        CertificateSource::Files { certificate: file, private_key } => {
            let mut own = json!({ "certificateFile": file, "privateKeyFile": private_key });
            put(&mut own, "ocspStapling", stapling);
            json!({ "name": certificate.name, "holdfast": own })
        }
    }
}

fn site(site: &Site) -> Value {
    let mut properties = json!({
        "frontendIPConfiguration": id("frontendIPConfigurations", &site.frontend.name),
        "frontendPort": id("frontendPorts", &site.port.name),
        "protocol": site.protocol.as_str(),
        "hostNames": site.hosts,
        "requireServerNameIndication": site.require_sni,
    });
    let certificate = site.certificate.as_ref().map(|c| id("sslCertificates", &c.name));
    put(&mut properties, "sslCertificate", certificate);
    put(&mut properties, "holdfast", Some(client_side::source(&site.source)));
    put(&mut properties, "customErrorConfigurations", Some(error_pages(&site.error_pages)));
    let profile = site.tls_profile.as_ref().map(|it| id("sslProfiles", &it.name));
    put(&mut properties, "sslProfile", profile);
    child(&site.name, properties)
}

/// Not what they say: that is in the revision, for as long as it is kept.
fn error_pages(pages: &[ErrorPage]) -> Value {
    let entry = |page: &ErrorPage| {
        let status = format!("HttpStatus{}", page.status);
        match &page.source {
            PageSource::Url(url) => json!({ "statusCode": status, "customErrorPageUrl": url }),
            PageSource::File(file) => json!({ "statusCode": status, "holdfast": { "file": file } }),
        }
    };
    pages.iter().map(entry).collect()
}

fn backend(address: &str) -> Value {
    let key = if address.parse::<std::net::IpAddr>().is_ok() { "ipAddress" } else { "fqdn" };
    json!({ key: address })
}

fn probe(probe: &Probe) -> Value {
    let statuses: Vec<String> = probe
        .statuses
        .iter()
        .map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
        .collect();
    let mut properties = json!({
        "protocol": probe.protocol.as_str(),
        "path": probe.path,
        "interval": probe.interval.as_secs(),
        "timeout": probe.timeout.as_secs(),
        "unhealthyThreshold": probe.unhealthy_threshold,
        "pickHostNameFromBackendHttpSettings": probe.host == ProbeHost::FromSettings,
        "minServers": probe.min_servers,
        "match": { "body": probe.body, "statusCodes": statuses },
    });
    put(&mut properties, "port", probe.port.map(|port| json!(port)));
    if let ProbeHost::Named(host) = &probe.host {
        put(&mut properties, "host", Some(json!(host)));
    }
    child(&probe.name, properties)
}

fn settings(settings: &Settings) -> Value {
    let seconds = |duration: Duration| json!(duration.as_secs());
    let mut properties = json!({
        "port": settings.port,
        "protocol": settings.protocol.as_str(),
        "cookieBasedAffinity": if settings.affinity.is_some() { "Enabled" } else { "Disabled" },
        "dedicatedBackendConnection": settings.dedicated,
        "requestTimeout": settings.request_timeout.as_secs(),
        "pickHostNameFromBackendAddress": settings.host == HostChoice::Backend,
    });
    let mut draining = json!({ "enabled": settings.drain_timeout.is_some() });
    put(&mut draining, "drainTimeoutInSec", settings.drain_timeout.map(seconds));
    put(&mut properties, "connectionDraining", Some(draining));
    if let HostChoice::Named(name) = &settings.host {
        put(&mut properties, "hostName", Some(json!(name)));
    }
    put(&mut properties, "affinityCookieName", settings.affinity.as_ref().map(|it| json!(it)));
    put(&mut properties, "path", (!settings.path.is_empty()).then(|| json!(settings.path)));
    put(&mut properties, "probe", settings.probe.as_ref().map(|p| id("probes", &p.name)));
    if settings.protocol == Protocol::Https {
        let roots = settings.trusted_roots.iter();
        let roots: Vec<_> = roots.map(|r| id("trustedRootCertificates", &r.name)).collect();
        put(&mut properties, "trustedRootCertificates", Some(json!(roots)));
        put(&mut properties, "validateCertChainAndExpiry", Some(json!(settings.validate_chain)));
        put(&mut properties, "validateSNI", Some(json!(settings.validate_name)));
        let sni = (!settings.sni_name.is_empty()).then(|| json!(settings.sni_name));
        put(&mut properties, "sniName", sni);
    }
    child(&settings.name, properties)
}

fn policy(policy: &Policy) -> Value {
    let targets = policy.shares.iter().enumerate().map(|(index, share)| {
        let name = share.name.clone().unwrap_or_else(|| format!("target{}", index + 1));
        let pool = id("backendAddressPools", &share.pool.name);
        child(&name, json!({ "weightPerServer": share.weight, "backendAddressPool": pool }))
    });
    let targets: Vec<Value> = targets.collect();
    let algorithm = policy.algorithm.as_str();
    child(
        &policy.name,
        json!({ "loadDistributionAlgorithm": algorithm, "loadDistributionTargets": targets }),
    )
}

fn redirect(redirect: &Redirect) -> Value {
    let kind = match redirect.status {
        302 => "Found",
        303 => "SeeOther",
        307 => "Temporary",
        _ => "Permanent",
    };
    let mut properties = json!({
        "redirectType": kind,
        "includePath": redirect.include_path,
        "includeQueryString": redirect.include_query,
    });
    match &redirect.target {
        RedirectTarget::Url(url) => put(&mut properties, "targetUrl", Some(json!(url))),
        RedirectTarget::Site { name, .. } => {
            put(&mut properties, "targetListener", Some(id("httpListeners", name)));
        }
    }
    child(&redirect.name, properties)
}

/// The members that say what happens to a request; in a path map they carry the prefix "default".
fn action(action: &Action, is_default: bool) -> Value {
    let word =
        |plain: &str, default: &str| if is_default { default.to_owned() } else { plain.to_owned() };
    let mut members = Map::new();
    match action {
        Action::Forward { pool, .. } => {
            members.insert(
                word("backendAddressPool", "defaultBackendAddressPool"),
                id("backendAddressPools", &pool.name),
            );
        }
        Action::Distribute { policy, .. } => {
            members.insert(
                word("loadDistributionPolicy", "defaultLoadDistributionPolicy"),
                id("loadDistributionPolicies", &policy.name),
            );
        }
        Action::Redirect(redirect) => {
            members.insert(
                word("redirectConfiguration", "defaultRedirectConfiguration"),
                id("redirectConfigurations", &redirect.name),
            );
        }
    }
    if let Action::Forward { settings, rewrite, .. }
    | Action::Distribute { settings, rewrite, .. } = action
    {
        members.insert(
            word("backendHttpSettings", "defaultBackendHttpSettings"),
            id("backendHttpSettingsCollection", &settings.name),
        );
        if let Some(set) = rewrite {
            let word = word("rewriteRuleSet", "defaultRewriteRuleSet");
            members.insert(word, id("rewriteRuleSets", &set.name));
        }
    }
    Value::Object(members)
}

fn path_rule(path: &PathRule) -> Value {
    let mut properties = action(&path.action, false);
    put(&mut properties, "paths", Some(json!(path.patterns)));
    child(&path.name, properties)
}

fn path_map(map: &PathMap) -> Value {
    let mut properties = action(&map.default, true);
    let paths: Vec<Value> = map.paths.iter().map(path_rule).collect();
    put(&mut properties, "pathRules", Some(Value::Array(paths)));
    child(&map.name, properties)
}

fn rule(rule: &Rule) -> Value {
    let (kind, mut properties) = match &rule.target {
        RuleTarget::Basic(to) => ("Basic", action(to, false)),
        RuleTarget::PathBased(map) => {
            ("PathBasedRouting", json!({ "urlPathMap": id("urlPathMaps", &map.name) }))
        }
    };
    put(&mut properties, "ruleType", Some(json!(kind)));
    put(&mut properties, "priority", Some(json!(rule.priority)));
    put(&mut properties, "httpListener", Some(id("httpListeners", &rule.site)));
    child(&rule.name, properties)
}
