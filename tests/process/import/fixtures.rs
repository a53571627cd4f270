//! Every fixture of a template is imported, validated and run by the real `holdfast`, and each of its sites is asked. Only
//! what this machine decides is changed between import and run: addresses, ports, and where pages come from.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};
use serde_json::{Value, json};

use super::fixture;
use crate::harness::{
    Certificate, Connection, Gateway, HOLDFAST, Patience, Response, Teller, directory, eventually,
    free_port, read_response, words,
};

/// Fixtures that are run at the same time.
const AT_ONCE: usize = 4;

/// What fixtures' backends are here: one that speaks HTTP and one that speaks TLS.
struct Stage {
    plain: Teller,
    sealed: Teller,
}

/// One request, and what is to come of it: a backend's answer, or a status of the gateway's own.
#[derive(Debug)]
struct Ask {
    tls: bool,
    port: u16,
    host: String,
    path: String,
    expected: u16,
}

/// A client that takes any certificate: which one is shown is other tests' business.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

#[test]
fn every_fixture_is_imported_validated_and_run() {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(fixture("import")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let wanted: Vec<(PathBuf, Vec<String>)> = paths
        .into_iter()
        .filter_map(|path| {
            if path.is_dir() {
                return None; // What a template links.
            }
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let is_template = !name.contains(".expected.") && !name.contains(".parameters.");
            let options = is_template.then(|| options(&fs::read_to_string(&path).unwrap()))??;
            Some((path, options))
        })
        .collect();
    assert!(wanted.len() >= 14, "{wanted:?}");
    let shares = wanted.chunks(wanted.len().div_ceil(AT_ONCE));
    thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || share.iter().for_each(|(path, options)| runs(path, options)));
        }
    });
}

/// What `holdfast import` is told beside the file. `None`: the fixture is one that cannot be imported.
fn options(text: &str) -> Option<Vec<String>> {
    let mut options = Vec::new();
    for line in text.lines().map_while(|line| line.strip_prefix("// ")) {
        let (word, rest) = line.split_once(": ").unwrap_or((line, ""));
        let absolute = |folder: &str, file: &str| fixture(folder).join(file).display().to_string();
        let value = match word {
            "set" | "gateway" | "listen" => rest.to_owned(),
            "set-file" => {
                let (name, file) = rest.split_once('=').unwrap();
                format!("{name}={}", absolute("", file))
            }
            "linked" => {
                let (name, file) = rest.rsplit_once('=').unwrap();
                format!("{name}={}", absolute("import", file))
            }
            "parameters" => absolute("import", rest),
            "certificates-dir" => absolute("", rest),
            "refused" | "incomplete" => return None,
            _ => continue,
        };
        options.extend([format!("--{word}"), value]);
    }
    Some(options)
}

fn runs(path: &Path, options: &[String]) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let imported = Command::new(HOLDFAST)
        .arg("import")
        .arg(path)
        .args(options)
        .current_dir(fixture(""))
        .output()
        .unwrap();
    assert!(imported.status.success(), "{name}: {}", words(&imported));
    let mut validate = Command::new(HOLDFAST)
        .args(["validate", "-"])
        .current_dir(fixture(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    validate.stdin.take().unwrap().write_all(&imported.stdout).unwrap();
    let validated = validate.wait_with_output().unwrap();
    assert!(validated.status.success(), "{name}: {}", words(&validated));

    let directory = directory();
    let certificate = Certificate::make(directory.path(), "backend", "backend.test");
    let stage = Stage { plain: Teller::start(), sealed: Teller::start_tls(&certificate) };
    fs::write(directory.path().join("page.html"), "<p>sorry</p>").unwrap();
    let mut document: Value = serde_json::from_slice(&imported.stdout).unwrap();
    let properties = &mut document["properties"];
    here(properties, &stage);
    let asks = asks(properties);
    assert!(!asks.is_empty(), "{name}");
    let gateway = Gateway::start_text(directory, &document.to_string());
    assert_eq!(gateway.revision(), 1);
    for ask in asks {
        let answer = eventually(Patience::USUAL, &format!("{name}: an answer to {ask:?}"), || {
            ask.answer().ok().filter(|answer| answer.status == ask.expected)
        });
        assert_eq!(answer.text().contains("\r\nx-appgw-trace-id: "), ask.expected == 200, "{name}");
    }
}

fn list<'v>(value: &'v mut Value, name: &str) -> impl Iterator<Item = &'v mut Value> {
    value[name].as_array_mut().into_iter().flatten()
}

fn is_https(properties: &Value) -> bool {
    properties["protocol"].as_str().is_some_and(|it| it.eq_ignore_ascii_case("https"))
}

/// Puts addresses and ports of this machine in the place of Azure's.
fn here(gateway: &mut Value, stage: &Stage) {
    for frontend in list(gateway, "frontendIPConfigurations") {
        frontend["holdfast"] = json!({ "address": "127.0.0.1" });
    }
    // What were several addresses with one port are several ports of one address.
    let mut ports = BTreeMap::new();
    for listener in list(gateway, "httpListeners") {
        let properties = &mut listener["properties"];
        let at = ["frontendIPConfiguration", "frontendPort"].map(|it| properties[it]["id"].clone());
        let next = format!("p{}", ports.len());
        let (name, _) =
            ports.entry(at.map(|it| it.to_string())).or_insert_with(|| (next, free_port()));
        properties["frontendPort"] = json!({ "id": format!("/frontendPorts/{name}") });
    }
    gateway["frontendPorts"] = ports
        .into_values()
        .map(|(name, port)| json!({ "name": name, "properties": { "port": port } }))
        .collect();
    for certificate in list(gateway, "sslCertificates") {
        for file in certificate["holdfast"].as_object_mut().into_iter().flatten().map(|it| it.1) {
            *file = fixture(file.as_str().unwrap()).display().to_string().into();
        }
    }
    for pool in list(gateway, "backendAddressPools") {
        let addresses = &mut pool["properties"]["backendAddresses"];
        if addresses.as_array().is_some_and(|all| !all.is_empty()) {
            *addresses = json!([{ "ipAddress": "127.0.0.1" }]);
        }
    }
    let port = |properties: &Value| {
        let backend = if is_https(properties) { &stage.sealed } else { &stage.plain };
        backend.address.port()
    };
    for settings in list(gateway, "backendHttpSettingsCollection") {
        let properties = &mut settings["properties"];
        properties["port"] = port(properties).into();
        if is_https(properties) {
            // No certificate of ours is for their names.
            properties["validateCertChainAndExpiry"] = false.into();
            properties["validateSNI"] = false.into();
        }
    }
    for probe in list(gateway, "probes") {
        let properties = &mut probe["properties"];
        if !properties["port"].is_null() {
            properties["port"] = port(properties).into();
        }
        if !properties["match"]["body"].is_null() {
            properties["match"]["body"] = "HTTP/1.1".into();
        }
    }
    let page = |entry: &mut Value| {
        entry.as_object_mut().unwrap().remove("customErrorPageUrl");
        entry["holdfast"] = json!({ "file": "page.html" });
    };
    list(gateway, "customErrorConfigurations").for_each(page);
    for listener in list(gateway, "httpListeners") {
        list(&mut listener["properties"], "customErrorConfigurations").for_each(page);
    }
}

/// The properties of what a reference leads to.
fn follow(gateway: &Value, reference: &Value) -> Value {
    let (collection, name) =
        reference["id"].as_str().unwrap().trim_start_matches('/').split_once('/').unwrap();
    let mut entries = gateway[collection].as_array().unwrap().iter();
    entries.find(|entry| entry["name"] == name).unwrap()["properties"].clone()
}

/// A request for each host of each site, and for each of its paths.
fn asks(gateway: &Value) -> Vec<Ask> {
    let mut asks = Vec::new();
    for rule in gateway["requestRoutingRules"].as_array().unwrap() {
        let rule = &rule["properties"];
        let site = follow(gateway, &rule["httpListener"]);
        let port = follow(gateway, &site["frontendPort"])["port"].as_u64().unwrap();
        let hosts: Vec<&str> = match (site["hostName"].as_str(), site["hostNames"].as_array()) {
            (Some(host), _) => vec![host],
            (None, Some(hosts)) => hosts.iter().map(|host| host.as_str().unwrap()).collect(),
            (None, None) => vec!["any.example.test"],
        };
        for (path, expected) in outcomes(gateway, rule) {
            let expected = if demands_certificate(gateway, &site) { 400 } else { expected };
            asks.extend(hosts.iter().map(|host| Ask {
                tls: is_https(&site),
                port: port.try_into().unwrap(),
                host: host.replace('*', "abc").replace('?', "d"),
                path: path.clone(),
                expected,
            }));
        }
    }
    asks
}

/// Paths of a rule, and what each is answered.
fn outcomes(gateway: &Value, rule: &Value) -> Vec<(String, u16)> {
    let map = &rule["urlPathMap"];
    if map.is_null() {
        return vec![("/".to_owned(), outcome(gateway, rule, ""))];
    }
    let map = follow(gateway, map);
    let mut outcomes = vec![("/which-no-path-takes".to_owned(), outcome(gateway, &map, "default"))];
    for rule in map["pathRules"].as_array().into_iter().flatten() {
        let rule = &rule["properties"];
        outcomes.extend(rule["paths"].as_array().unwrap().iter().map(|path| {
            (path.as_str().unwrap().replace('*', "some/thing"), outcome(gateway, rule, ""))
        }));
    }
    outcomes
}

/// What an action answers; its words begin with `prefix`.
fn outcome(gateway: &Value, action: &Value, prefix: &str) -> u16 {
    let word = |name: &str| {
        let key = match prefix {
            "" => name.to_owned(),
            _ => format!("{prefix}{}{}", name[..1].to_uppercase(), &name[1..]),
        };
        action.get(key).cloned()
    };
    if let Some(redirect) = word("redirectConfiguration") {
        let kind = follow(gateway, &redirect)["redirectType"].as_str().map(str::to_lowercase);
        return match kind.as_deref() {
            None | Some("permanent") => 301,
            Some("found") => 302,
            Some("seeother") => 303,
            Some(_) => 307,
        };
    }
    let Some(pool) = word("backendAddressPool") else { return 200 };
    let addresses = follow(gateway, &pool)["backendAddresses"].as_array().map_or(0, Vec::len);
    if addresses > 0 { 200 } else { 502 }
}

fn demands_certificate(gateway: &Value, site: &Value) -> bool {
    if site["sslProfile"].is_null() {
        return false;
    }
    let profile = follow(gateway, &site["sslProfile"]);
    let mode = profile["clientAuthConfiguration"]["verifyClientAuthMode"].as_str();
    let is_open = mode.is_some_and(|mode| mode.eq_ignore_ascii_case("passthrough"));
    !is_open && profile["trustedClientCertificates"].as_array().is_some_and(|all| !all.is_empty())
}

// === impl Ask ===

impl Ask {
    fn answer(&self) -> std::io::Result<Response> {
        let request =
            format!("GET {} HTTP/1.1\r\nHost: {}:{}\r\n\r\n", self.path, self.host, self.port);
        if !self.tls {
            let mut connection = Connection::open(self.port)?;
            connection.write(request)?;
            return connection.response();
        }
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(session, TcpStream::connect(("127.0.0.1", self.port))?);
        stream.write_all(request.as_bytes())?;
        read_response(&mut BufReader::new(stream), false)
    }
}

// === impl Anybody ===

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
