//! The request table: what is documented of hosts, paths, methods and fields, as data (`table/requests.txt`), asked over
//! every protocol that clients speak. A row says the same over each; what only HTTP/1.1 can say is marked so.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{
    BadBackend, Certificate, Gateway, Misbehaviour, Oracle, Response, directory, free_port,
};

mod asking;
mod row;

use asking::{Asking, Multiplexed, Overt, Sealed};
use row::{Row, rows};

/// The gateway of the table, as `table/gateway.json` has it.
const GATEWAY: &str = include_str!("table/gateway.json");
const REQUESTS: &str = include_str!("table/requests.txt");

/// Ports of listeners and backends, by the names that stand in braces in the table and in its gateway.
pub(crate) struct Ports(Vec<(&'static str, u16)>);

impl Ports {
    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, port)| {
            text.replace(&format!("{{{name}}}"), &port.to_string())
        })
    }

    fn of(&self, name: &str) -> u16 {
        self.0.iter().find(|(known, _)| *known == name).unwrap().1
    }
}

/// Everything that rows are asked of.
struct Stage {
    _gateway: Gateway,
    certificate: Certificate,
    ports: Ports,
}

impl Stage {
    fn set() -> Self {
        let backends =
            ["one", "two", "three"].map(|name| (name, Oracle::start(name).address.port()));
        let silent = BadBackend::start(Misbehaviour::Silent);
        let mut ports: Vec<_> =
            ["http", "https", "open", "opens"].map(|name| (name, free_port())).into();
        ports.extend(backends);
        ports.push(("silent", silent.address.port()));
        let ports = Ports(ports);
        let directory = directory();
        let certificate = Certificate::make(directory.path(), "table", "one.test");
        for (file, page) in [
            ("nobody-here.html", "<p>nobody here</p>"),
            ("bad-gateway.html", "<p>nobody behind it</p>"),
            ("own.html", "<p>this site's own</p>"),
        ] {
            fs::write(directory.path().join(file), page).unwrap();
        }
        let text = doubled(&ports.fill(GATEWAY)).to_string();
        let gateway = Gateway::start_text(directory, &text);
        Self { _gateway: gateway, certificate, ports }
    }
}

/// The gateway with every site over TLS too, under its name with `-tls` behind.
fn doubled(text: &str) -> Value {
    let id = |collection: &str, name: &str| json!({ "id": format!("/{collection}/{name}") });
    let mut gateway: Value = serde_json::from_str(text).unwrap();
    gateway["enableHttp2"] = true.into();
    let listeners = gateway["httpListeners"].as_array_mut().unwrap();
    for listener in listeners.iter_mut() {
        listener["frontendIPConfiguration"] = id("frontendIPConfigurations", "loopback");
        listener["protocol"] = "Http".into();
    }
    let suffixed = |value: &Value| Value::from(format!("{}-tls", value.as_str().unwrap()));
    for at in 0..listeners.len() {
        let mut copy = listeners[at].clone();
        for place in ["/name", "/frontendPort/id"] {
            let found = copy.pointer_mut(place).unwrap();
            *found = suffixed(found);
        }
        copy["protocol"] = "Https".into();
        copy["sslCertificate"] = id("sslCertificates", "all");
        listeners.push(copy);
    }
    let rules = gateway["requestRoutingRules"].as_array_mut().unwrap();
    for at in 0..rules.len() {
        let short = rules[at].clone();
        let word = |key: &str| short[key].as_str();
        for (suffix, more) in [("", 0), ("-tls", 1000)] {
            let name = format!("{}{suffix}", word("name").unwrap());
            let mut rule = json!({
                "name": name,
                "priority": short["priority"].as_u64().unwrap() + more,
                "httpListener": id("httpListeners", &name),
            });
            if let Some(map) = word("map") {
                rule["ruleType"] = "PathBasedRouting".into();
                rule["urlPathMap"] = id("urlPathMaps", map);
            } else if let Some(redirect) = word("redirect") {
                rule["redirectConfiguration"] = id("redirectConfigurations", redirect);
            } else {
                let pool = word("pool").unwrap();
                let settings = word("settings").unwrap_or(pool);
                rule["backendAddressPool"] = id("backendAddressPools", pool);
                rule["backendHttpSettings"] = id("backendHttpSettingsCollection", settings);
            }
            if suffix.is_empty() { rules[at] = rule } else { rules.push(rule) }
        }
    }
    gateway
}

/// Asks every row that can be asked so, and tells of all that were answered otherwise.
fn run(asking: &dyn Asking, ports: &Ports) {
    let rows = rows(&ports.fill(REQUESTS));
    let asked: Vec<&Row> = rows.iter().filter(|row| asking.can_ask(row)).collect();
    assert!(asked.len() >= 150, "only {} rows", asked.len());
    let wrong: Vec<String> = asked
        .iter()
        .filter_map(|row| {
            let heard = asking.ask(row, ports.of(asking.door(row)));
            let faults = match &heard {
                Ok(heard) => {
                    row.judge(heard, &|text| asking.fill(&ports.fill(text), heard, row, ports))
                }
                Err(error) => vec![error.to_string()],
            };
            (!faults.is_empty()).then(|| {
                format!(
                    "line {}, {}:\n    {}\n    {heard:?}",
                    row.line,
                    row.name,
                    faults.join("\n    ")
                )
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), asked.len(), wrong.join("\n"));
}

#[test]
fn a_row_that_is_answered_otherwise_is_told_of() {
    let row = "a :: main :: GET / :: x :: 200 one /p | method GET | saw a: 1 | saw-not b | saw-not e: 4 | says c: 2 | says-not d | page text | empty";
    let [row] = &rows(row)[..] else { panic!("one row") };
    let answer = |status, headers: &[(&str, &str)], body: &str| row::Heard {
        answer: Response {
            status,
            headers: headers.iter().map(|it| (it.0.into(), it.1.into())).collect(),
            body: body.into(),
        },
        client: String::new(),
    };
    let fill = |text: &str| text.to_owned();
    let good = [
        ("x-backend", "one"),
        ("x-saw-target", "/p"),
        ("x-saw-method", "GET"),
        ("x-saw-a", "1"),
        ("x-saw-e", "5"),
        ("c", "2"),
    ];
    // Nothing can be empty and have a text in it.
    assert_eq!(row.judge(&answer(200, &good, ""), &fill).len(), 1);
    assert_eq!(row.judge(&answer(200, &good, "a text"), &fill).len(), 1);
    let bad = [("x-backend", "two"), ("x-saw-b", "1"), ("x-saw-e", "3, 4"), ("d", "1")];
    assert_eq!(row.judge(&answer(404, &bad, "no"), &fill).len(), 11);
}

#[test]
fn every_row_of_the_request_table_holds_over_http() {
    let stage = Stage::set();
    run(&Overt, &stage.ports);
}

#[test]
fn every_row_of_the_request_table_holds_over_https() {
    let stage = Stage::set();
    run(&Sealed(stage.certificate.clone()), &stage.ports);
}

#[test]
fn every_row_of_the_request_table_that_can_be_said_so_holds_over_http2() {
    let stage = Stage::set();
    run(&Multiplexed(stage.certificate.clone()), &stage.ports);
}
