//! Backend connections that belong to one client's connection.

use std::net::Ipv4Addr;

use crate::harness::{
    Connection, Document, Gateway, Patience, Teller, eventually, free_port, upgrade_request,
};

const SETTINGS: &str = "backendHttpSettingsCollection";

/// Both ends of the backend connection that a request came over.
fn carried(connection: &mut Connection, path: &str) -> String {
    let answer = connection.get(path, "localhost").unwrap();
    assert_eq!(answer.status, 200);
    let text = answer.text();
    text.split('|').take(2).collect::<Vec<_>>().join("|")
}

fn dedicated(port: u16, tellers: &[&Teller]) -> Document {
    let addresses: Vec<_> = tellers.iter().map(|teller| teller.address).collect();
    Document::simple(port, &addresses).set(SETTINGS, "chat", "dedicatedBackendConnection", true)
}

#[test]
fn each_client_connection_has_a_backend_connection_of_its_own() {
    let teller = Teller::start();
    let port = free_port();
    let _gateway = Gateway::start(&dedicated(port, &[&teller]));
    let mut clients = [(); 3].map(|()| Connection::open(port).unwrap());
    let first = clients.each_mut().map(|client| carried(client, "/"));
    assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2], "{first:?}");
    for _ in 0..5 {
        assert_eq!(clients.each_mut().map(|client| carried(client, "/")), first);
    }
    assert_eq!(teller.open_connections(), 3);
    let [one, two, _three] = clients;
    drop((one, two));
    eventually(Patience::USUAL, "their backend connections to end with them", || {
        (teller.open_connections() == 1).then_some(())
    });
    let mut newcomer = Connection::open(port).unwrap();
    assert!(!first.contains(&carried(&mut newcomer, "/")), "nobody gets another one's");
}

#[test]
fn without_it_clients_share_backend_connections() {
    let teller = Teller::start();
    let port = free_port();
    let _gateway = Gateway::start(&Document::simple(port, &[teller.address]));
    let first = carried(&mut Connection::open(port).unwrap(), "/");
    // It waits for the next request once its last answer is over, which the client may hear of sooner.
    eventually(Patience::USUAL, "another client to come over the same connection", || {
        (carried(&mut Connection::open(port).unwrap(), "/") == first).then_some(())
    });
}

#[test]
fn a_client_connection_stays_with_its_backend_and_turns_go_on_for_others() {
    let port = free_port();
    let backend_port = free_port();
    let tellers =
        [2, 3].map(|last| Teller::start_at(Ipv4Addr::new(127, 0, 0, last).into(), backend_port));
    let gateway = Gateway::start(&dedicated(port, &[&tellers[0], &tellers[1]]));
    let mut clients = [(); 2].map(|()| Connection::open(port).unwrap());
    let first = clients.each_mut().map(|client| carried(client, "/"));
    let hosts = first.each_ref().map(|ends| ends.split(':').next().unwrap().to_owned());
    assert_ne!(hosts[0], hosts[1], "backends take turns");
    for _ in 0..5 {
        assert_eq!(clients.each_mut().map(|client| carried(client, "/")), first);
    }
    // Drained, it gets no new work, over open connections neither.
    gateway.must(&["drain", &format!("chat/{}", hosts[0])]);
    for client in &mut clients {
        assert!(carried(client, "/").starts_with(&hosts[1]));
    }
}

#[test]
fn a_lost_connection_is_replaced_and_its_request_sent_again() {
    let teller = Teller::start();
    let port = free_port();
    let _gateway = Gateway::start(&dedicated(port, &[&teller]));
    let mut client = Connection::open(port).unwrap();
    let first = carried(&mut client, "/");
    let second = carried(&mut client, "/hangup");
    assert_ne!(first, second);
    assert_eq!(carried(&mut client, "/"), second);
}

#[test]
fn a_handshake_that_was_answered_otherwise_leaves_the_connection_to_its_client() {
    let teller = Teller::start();
    let port = free_port();
    let _gateway = Gateway::start(&dedicated(port, &[&teller]));
    let mut client = Connection::open(port).unwrap();
    let first = carried(&mut client, "/");
    client.write(upgrade_request("/", "localhost")).unwrap();
    let answer = client.response().unwrap();
    assert_eq!(answer.status, 200, "as a backend that wants a login first would");
    assert!(answer.text().starts_with(&first), "{}", answer.text());
}
