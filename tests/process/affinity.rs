//! Cookie affinity: who comes back, for how long, and who cannot talk the gateway into it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;

use crate::harness::{
    Backend, Connection, Document, Gateway, Patience, Response, Teller, eventually, free_port, get,
    kill9, upgrade_request,
};

const SETTINGS: &str = "backendHttpSettingsCollection";

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(|backend| backend.address).collect()
}

fn sticky(port: u16, backends: &[SocketAddr]) -> Document {
    Document::simple(port, backends).set(SETTINGS, "chat", "cookieBasedAffinity", "Enabled")
}

/// The `NAME=VALUE` of the cookies that an answer sets, the gateway's own only.
fn cookies(answer: &Response, name: &str) -> Vec<String> {
    let set = answer.all("set-cookie").into_iter().filter(|cookie| cookie.starts_with(name));
    set.map(|cookie| cookie.split(';').next().unwrap().to_owned()).collect()
}

/// A request of a client that has never been here: its answer and the cookies that it sets.
fn first_visit(port: u16) -> (String, Vec<String>) {
    let answer = get(port, "/whoami").unwrap();
    let cookies = cookies(&answer, "ApplicationGatewayAffinity");
    assert_eq!(cookies.len(), 2, "{:?}", answer.headers);
    (answer.text(), cookies)
}

/// A request with a cookie: who has answered, and the cookies that it sets.
fn visit(port: u16, cookie: &str) -> (String, Vec<String>) {
    let answer = Connection::open(port).unwrap().get_with("/whoami", cookie).unwrap();
    assert_eq!(answer.status, 200);
    (answer.text(), cookies(&answer, "ApplicationGatewayAffinity"))
}

/// A request with one more header.
fn with_cookie(request: &str, cookie: &str) -> String {
    request.replace("\r\n\r\n", &format!("\r\nCookie: {cookie}\r\n\r\n"))
}

/// A client comes back to its backend, time after time, and is given no new cookie.
fn comes_back(port: u16, cookie: &str, backend: &str) {
    for _ in 0..5 {
        assert_eq!(visit(port, cookie), (backend.to_owned(), Vec::new()));
    }
}

#[test]
fn a_client_with_either_cookie_comes_back_to_its_backend() {
    let backends = Backend::group(&["one", "two", "three"]);
    let port = free_port();
    let _gateway = Gateway::start(&sticky(port, &addresses(&backends)));
    let answer = get(port, "/whoami").unwrap();
    let set = answer.all("set-cookie");
    let value = set[0].strip_prefix("ApplicationGatewayAffinity=").unwrap();
    let value = value.strip_suffix("; Path=/").unwrap();
    assert!(value.len() == 32 && value.bytes().all(|digit| digit.is_ascii_hexdigit()), "{value}");
    let twin = format!("ApplicationGatewayAffinityCORS={value}; Path=/; SameSite=None; Secure");
    assert_eq!(set[1..], [twin]);
    let mut values = BTreeSet::new();
    for _ in 0..3 {
        let (backend, cookies) = first_visit(port);
        comes_back(port, &cookies[0], &backend);
        comes_back(port, &cookies[1], &backend);
        comes_back(port, &format!("a=b; {}; {}", cookies[1], cookies[0]), &backend);
        values.insert(cookies[0].clone());
    }
    assert_eq!(values.len(), 3, "every backend has a value of its own, and turns go on");
}

#[test]
fn a_cookie_that_was_not_given_chooses_nothing_and_is_replaced() {
    let backends = Backend::group(&["one", "two"]);
    let (port, other_port) = (free_port(), free_port());
    let _gateway = Gateway::start(&sticky(port, &addresses(&backends)));
    // The same document, but another gateway's key.
    let _other = Gateway::start(&sticky(other_port, &addresses(&backends)));
    let (_, foreign) = first_visit(other_port);
    let (_, own) = first_visit(port);
    let own = own[0].clone();
    let last = if own.ends_with('0') { "1" } else { "0" };
    for forged in [
        foreign[0].clone(),
        format!("{}{last}", &own[..own.len() - 1]),
        own.to_uppercase().replace("APPLICATIONGATEWAYAFFINITY", "ApplicationGatewayAffinity"),
        "ApplicationGatewayAffinity=127.0.0.2".to_owned(),
        "ApplicationGatewayAffinity=".to_owned(),
    ] {
        if forged == own {
            continue; // a value without a letter has no upper case
        }
        let seen: BTreeSet<_> = (0..2)
            .map(|_| {
                let (backend, cookies) = visit(port, &forged);
                assert_eq!(cookies.len(), 2, "{forged}");
                backend
            })
            .collect();
        assert_eq!(seen.len(), 2, "{forged}: backends take turns");
    }
}

#[test]
fn a_cookie_outlives_reloads_killed_workers_and_the_gateway() {
    let backends = Backend::group(&["one", "two", "three"]);
    let port = free_port();
    let document = sticky(port, &addresses(&backends));
    let gateway = Gateway::start(&document);
    let (backend, cookies) = first_visit(port);
    let back = || comes_back(port, &cookies[0], &backend);
    back();
    gateway.apply(&document.clone().set(SETTINGS, "chat", "requestTimeout", 21));
    back();
    gateway.must(&["restart"]);
    back();
    let worker = gateway.worker_pid();
    kill9(worker);
    eventually(Patience::USUAL, "another worker", || {
        (gateway.worker_pid() != worker).then_some(())
    });
    back();
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    back();
    gateway.kill_everything();
    gateway.start_again();
    back();
    let key = gateway.path().join("s").join("affinity.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&key.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_unhealthy_backends_clients_get_another_and_its_cookie() {
    let mut backends = Backend::group(&["one", "two", "three"]);
    let port = free_port();
    let gateway = Gateway::start(&sticky(port, &addresses(&backends)));
    let (gone, cookies) = first_visit(port);
    let place = ["one", "two", "three"].iter().position(|name| *name == gone).unwrap();
    let address = backends[place].address.ip().to_string();
    let _stopped = backends.remove(place).stop();
    // At once, before a probe has noticed.
    let (other, new) = visit(port, &cookies[0]);
    assert_ne!(other, gone);
    assert_eq!(new.len(), 2);
    comes_back(port, &new[0], &other);
    eventually(Patience::USUAL, "the backend to be unhealthy", || {
        (gateway.health_of(&address) == "Unhealthy").then_some(())
    });
    let (other, new) = visit(port, &cookies[0]);
    assert_ne!(other, gone);
    assert_eq!(new.len(), 2);
    comes_back(port, &new[0], &other);
}

#[test]
fn a_drained_backend_gets_only_the_clients_whose_cookie_names_it() {
    let backends = Backend::group(&["one", "two"]);
    let port = free_port();
    let document = sticky(port, &addresses(&backends));
    let gateway = Gateway::start(&document);
    let (backend, cookies) = first_visit(port);
    let place = usize::from(backend == "two");
    let address = backends[place].address.ip().to_string();
    gateway.must(&["drain", &format!("chat/{address}")]);
    assert_eq!(gateway.health_of(&address), "Draining");
    comes_back(port, &cookies[0], &backend);
    for _ in 0..10 {
        assert_ne!(first_visit(port).0, backend);
    }
    // One that is no longer configured has nobody to be sent to.
    let left: Vec<_> =
        addresses(&backends).into_iter().filter(|it| it.ip().to_string() != address).collect();
    gateway.apply(&sticky(port, &left));
    let (other, new) = visit(port, &cookies[0]);
    assert_ne!(other, backend);
    comes_back(port, &new[0], &other);
}

#[test]
fn a_drained_backend_that_is_down_costs_its_clients_no_request() {
    let mut backends = Backend::group(&["one", "two"]);
    let port = free_port();
    let gateway = Gateway::start(&sticky(port, &addresses(&backends)));
    let (backend, cookies) = first_visit(port);
    let place = usize::from(backend == "two");
    let address = backends[place].address.ip().to_string();
    gateway.must(&["drain", &format!("chat/{address}")]);
    drop(backends.remove(place).stop());
    let (other, new) = visit(port, &cookies[0]);
    assert_ne!(other, backend);
    comes_back(port, &new[0], &other);
}

#[test]
fn a_websockets_101_carries_the_cookies_and_they_lead_the_next_one() {
    let backends = Backend::group(&["one", "two", "three"]);
    let port = free_port();
    let gateway = Gateway::start(&sticky(port, &addresses(&backends)));
    let mut open = Vec::new();
    let mut shake = |cookie: Option<&str>| {
        let mut request = upgrade_request("/echo", "localhost");
        if let Some(cookie) = cookie {
            request = with_cookie(&request, cookie);
        }
        let mut connection = Connection::open(port).unwrap();
        connection.write(request).unwrap();
        let answer = connection.response().unwrap();
        assert_eq!(answer.status, 101);
        open.push(connection);
        cookies(&answer, "ApplicationGatewayAffinity")
    };
    let cookies = shake(None);
    assert_eq!(cookies.len(), 2);
    for _ in 0..5 {
        assert_eq!(shake(Some(&cookies[0])), Vec::<String>::new());
    }
    let backends: BTreeSet<_> =
        gateway.tunnels().iter().map(|tunnel| tunnel["backend"].to_string()).collect();
    assert_eq!(backends.len(), 1, "{backends:?}");
}

#[test]
fn a_websocket_that_a_cookie_leads_to_a_drained_backend_lives_for_the_drain_time() {
    let backends = Backend::group(&["one", "two"]);
    let port = free_port();
    let draining = json!({"enabled": true, "drainTimeoutInSec": 1});
    let document =
        sticky(port, &addresses(&backends)).set(SETTINGS, "chat", "connectionDraining", draining);
    let gateway = Gateway::start(&document);
    let (backend, cookies) = first_visit(port);
    let place = usize::from(backend == "two");
    gateway.must(&["drain", &format!("chat/{}", backends[place].address.ip())]);
    let mut connection = Connection::open(port).unwrap();
    let request = upgrade_request("/echo", "localhost");
    connection.write(with_cookie(&request, &cookies[0])).unwrap();
    assert_eq!(connection.response().unwrap().status, 101);
    let ended = r#"holdfast_tunnels_closed_total{cause="backend_removed"}"#;
    eventually(Patience::LONG, "its tunnel to end", || {
        (gateway.metric(ended) >= 1.0).then_some(())
    });
}

#[test]
fn a_cookie_has_the_name_that_was_chosen_and_backends_see_it() {
    let teller = Teller::start();
    let port = free_port();
    let document =
        sticky(port, &[teller.address]).set(SETTINGS, "chat", "affinityCookieName", "Mine");
    let _gateway = Gateway::start(&document);
    let answer = get(port, "/").unwrap();
    let names: Vec<_> = answer
        .all("set-cookie")
        .iter()
        .map(|it| it.split('=').next().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["own", "Mine", "MineCORS"], "a backend's own cookies stay");
    let cookie = format!("a=b; {}", cookies(&answer, "Mine=")[0]);
    let answer = Connection::open(port).unwrap().get_with("/", &cookie).unwrap();
    assert_eq!(answer.all("set-cookie"), ["own=1"]);
    assert!(answer.text().to_lowercase().contains(&format!("cookie: {}", cookie.to_lowercase())));
}

#[test]
fn without_affinity_there_are_no_cookies() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    assert_eq!(get(port, "/whoami").unwrap().header("set-cookie"), None);
    assert!(!gateway.path().join("s").join("affinity.key").exists());
}
