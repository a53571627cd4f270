//! Policies that share requests out among pools: weights, least connections, clients' addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::harness::{
    Backend, Connection, Document, Gateway, Patience, WebSocket, eventually, free_port, get,
};

fn link(collection: &str, name: &str) -> Value {
    json!({"id": format!("/gateways/test/{collection}/{name}")})
}

/// One site whose requests go to pools of these weights, under one set of settings.
fn document(port: u16, algorithm: &str, pools: &[(&str, u32, &[SocketAddr])]) -> Document {
    let everybody: Vec<_> = pools.iter().flat_map(|(_, _, backends)| backends.iter()).collect();
    // The settings that this one brings are everybody's.
    let mut document = Document::simple(port, &[*everybody[0]]);
    for (name, _, backends) in pools {
        document = document.pool(name, backends);
    }
    let targets: Vec<_> = pools
        .iter()
        .map(|(name, weight, _)| {
            json!({"name": name, "properties": {"weightPerServer": weight,
                "backendAddressPool": link("backendAddressPools", name)}})
        })
        .collect();
    document.0["properties"]["loadDistributionPolicies"] = json!([{"name": "shared", "properties":
        {"loadDistributionAlgorithm": algorithm, "loadDistributionTargets": targets}}]);
    let policy = link("loadDistributionPolicies", "shared");
    document.set("requestRoutingRules", "web", "loadDistributionPolicy", policy).set(
        "requestRoutingRules",
        "web",
        "backendAddressPool",
        Value::Null,
    )
}

fn answers(port: u16, count: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        *answers.entry(get(port, "/whoami").unwrap().text()).or_insert(0) += 1;
    }
    answers
}

fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// Live tunnels by the address of their backend.
fn tunnels(gateway: &Gateway) -> BTreeMap<String, usize> {
    let mut tunnels = BTreeMap::new();
    for tunnel in gateway.tunnels() {
        let backend = tunnel["backend"].as_str().unwrap().split(':').next().unwrap().to_owned();
        *tunnels.entry(backend).or_insert(0) += 1;
    }
    tunnels
}

#[test]
fn each_server_gets_the_share_of_its_pools_weight() {
    let backends = Backend::group(&["blue1", "blue2", "green"]);
    let at = |index: usize| backends[index].address;
    let port = free_port();
    let pools: [(&str, u32, &[SocketAddr]); 2] =
        [("blue", 3, &[at(0), at(1)]), ("green", 1, &[at(2)])];
    let gateway = Gateway::start(&document(port, "RoundRobin", &pools));
    let shares = counts(&[("blue1", 12), ("blue2", 12), ("green", 4)]);
    assert_eq!(answers(port, 28), shares);
    // Drains go by the pool that a server stands in.
    gateway.must(&["drain", "blue/127.0.0.3"]);
    assert_eq!(answers(port, 28), counts(&[("blue1", 21), ("green", 7)]));
    gateway.must(&["undrain", "blue/127.0.0.3"]);
    eventually(Patience::USUAL, "the drained server to be back", || {
        (get(port, "/whoami").unwrap().text() == "blue2").then_some(())
    });
    assert_eq!(answers(port, 28), shares);
}

#[test]
fn what_is_unhealthy_leaves_its_share_to_the_others() {
    let mut backends = Backend::group(&["blue", "green"]);
    let at = |index: usize| [backends[index].address];
    let port = free_port();
    let pools: [(&str, u32, &[SocketAddr]); 2] = [("blue", 100, &at(0)), ("green", 1, &at(1))];
    let gateway = Gateway::start(&document(port, "RoundRobin", &pools));
    let stopped = backends.remove(0).stop();
    // Before a probe has noticed too.
    assert_eq!(answers(port, 10), counts(&[("green", 10)]));
    eventually(Patience::USUAL, "the heavy pool to be unhealthy", || {
        (gateway.health_of("127.0.0.2") == "Unhealthy").then_some(())
    });
    assert_eq!(answers(port, 10), counts(&[("green", 10)]));
    let _blue = stopped.start();
    eventually(Patience::USUAL, "the heavy pool to be back", || {
        (get(port, "/whoami").unwrap().text() == "blue").then_some(())
    });
}

#[test]
fn a_new_tunnel_goes_where_the_fewest_are() {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let gateway = Gateway::start(&document(port, "LeastConnections", &[("blue", 1, &addresses)]));
    let mut open: Vec<_> = (0..6).map(|_| WebSocket::open(port, "/echo")).collect();
    let even = BTreeMap::from([("127.0.0.2".to_owned(), 3), ("127.0.0.3".to_owned(), 3)]);
    assert_eq!(tunnels(&gateway), even);
    // Those of one server end.
    let of_one: BTreeSet<u64> = gateway
        .tunnels()
        .iter()
        .filter(|tunnel| tunnel["backend"].as_str().unwrap().starts_with("127.0.0.2:"))
        .map(|tunnel| {
            tunnel["client"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
        })
        .collect();
    open.retain(|socket| !of_one.contains(&u64::from(socket.local_port())));
    assert_eq!(open.len(), 3);
    eventually(Patience::USUAL, "their tunnels to end", || {
        (gateway.tunnels().len() == 3).then_some(())
    });
    open.extend((0..3).map(|_| WebSocket::open(port, "/echo")));
    assert_eq!(tunnels(&gateway), even);
    // Requests that are over count no longer, whoever has answered them.
    assert_eq!(answers(port, 10).len(), 2);
    // A successor knows the tunnels that it was handed.
    open.drain(..2);
    eventually(Patience::USUAL, "two more to end", || (gateway.tunnels().len() == 4).then_some(()));
    gateway.must(&["restart"]);
    eventually(Patience::USUAL, "the successor to have them all", || {
        let workers = &gateway.status()["listeners"][0]["workers"];
        (workers.as_array().unwrap().len() == 1).then_some(())
    });
    open.extend((0..2).map(|_| WebSocket::open(port, "/echo")));
    assert_eq!(tunnels(&gateway), even);
}

#[test]
fn a_client_address_keeps_its_server_and_only_those_of_a_lost_one_move() {
    let mut backends = Backend::group(&["one", "two", "three"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let with = |backends: &[SocketAddr]| document(port, "IpHash", &[("blue", 1, backends)]);
    let gateway = Gateway::start(&with(&addresses));
    let ask = |last: u8| {
        let client = Ipv4Addr::new(127, 0, 1, last);
        let mut connection = Connection::open_from(client, port).unwrap();
        connection.get("/whoami", "localhost").unwrap().text()
    };
    let everybody = || (1..=40).map(|last| (last, ask(last))).collect::<BTreeMap<u8, String>>();
    let first = everybody();
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
    assert_eq!(everybody(), first);
    gateway.must(&["restart"]);
    assert_eq!(everybody(), first, "every worker comes to the same");
    let stay = |now: &BTreeMap<u8, String>| {
        first
            .iter()
            .filter(|(_, server)| *server != "three")
            .all(|(last, server)| now[last] == *server)
    };
    gateway.apply(&with(&addresses[..2]));
    let now = everybody();
    assert!(stay(&now) && now.values().all(|server| server != "three"), "{first:?} {now:?}");
    gateway.apply(&with(&addresses));
    assert_eq!(everybody(), first);
    drop(backends.pop().unwrap().stop());
    let failing = everybody();
    assert!(stay(&failing) && failing.values().all(|server| server != "three"));
    assert_eq!(failing, now, "who finds its server dead is where it will be without it");
}

#[test]
fn cookies_go_before_every_policy() {
    let backends = Backend::group(&["one", "two", "three"]);
    let at = |index: usize| [backends[index].address];
    let port = free_port();
    let pools: [(&str, u32, &[SocketAddr]); 3] =
        [("blue", 100, &at(0)), ("green", 1, &at(1)), ("red", 1, &at(2))];
    let settings = "backendHttpSettingsCollection";
    let document = document(port, "RoundRobin", &pools).set(
        settings,
        "chat",
        "cookieBasedAffinity",
        "Enabled",
    );
    let gateway = Gateway::start(&document);
    gateway.must(&["drain", "blue/127.0.0.2"]);
    let answer = get(port, "/whoami").unwrap();
    let cookie = answer.all("set-cookie")[0].split(';').next().unwrap().to_owned();
    gateway.must(&["undrain", "blue/127.0.0.2"]);
    for _ in 0..10 {
        let again = Connection::open(port).unwrap().get_with("/whoami", &cookie).unwrap();
        assert_eq!(again.text(), answer.text());
        assert_eq!(again.header("set-cookie"), None);
    }
}
