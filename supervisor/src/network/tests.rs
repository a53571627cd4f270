//! What is prepared, what it leaves as it was, and who loses what by it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::config::gateway::AdminRole::{self, Change, Read};

fn identity() -> Arc<AdminIdentity> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    Arc::new(AdminIdentity {
        chain_der: vec![leaf.der().to_vec()],
        key_der: key.serialize_der(),
        authorities_der: vec![authority.der().to_vec()],
    })
}

fn settings(
    listen: SocketAddr,
    identity: Option<&Arc<AdminIdentity>>,
    clients: &[(&str, AdminRole)],
) -> Arc<AdminNetwork> {
    let clients = clients.iter().map(|&(name, role)| AdminClient { name: name.to_owned(), role });
    Arc::new(AdminNetwork {
        listen,
        certificate_file: "chain.pem".to_owned(),
        private_key_file: "key.pem".to_owned(),
        authority_file: "operators.pem".to_owned(),
        identity: identity.cloned(),
        clients: clients.collect(),
    })
}

/// An address that is free, most likely.
fn free() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

fn open(network: &Network, wanted: &Arc<AdminNetwork>) -> Arc<Door> {
    match network.prepare(Some(wanted), None) {
        Ok(Prepared::Open(door)) => {
            network.open.send_replace(Some(door.clone()));
            door
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_bound_is_told_and_what_is_prepared_and_let_go_of_is_free_again() {
    let network = Network::default();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = identity();
    let wanted = settings(taken.local_addr().unwrap(), Some(&own), &[]);
    let error = network.prepare(Some(&wanted), None).unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
    assert!(error.mend().contains("choose another port"), "{}", error.mend());
    drop(taken);
    for _ in 0..2 {
        assert!(matches!(network.prepare(Some(&wanted), None), Ok(Prepared::Open(_))));
    }
    assert!(network.open.borrow().is_none());
}

#[test]
fn the_same_is_the_same_and_another_client_needs_no_other_socket() {
    let network = Network::default();
    let (own, address) = (identity(), free());
    let first = settings(address, Some(&own), &[("a", Read)]);
    assert!(matches!(network.prepare(None, None), Ok(Prepared::Same)));
    open(&network, &first);
    let again = settings(address, Some(&own), &[("a", Read)]);
    assert!(matches!(network.prepare(Some(&again), None), Ok(Prepared::Same)));
    open(&network, &settings(address, Some(&own), &[("a", Change)]));
    assert!(matches!(network.prepare(None, None), Ok(Prepared::Shut)));
}

#[test]
fn files_that_cannot_be_used_any_more_leave_what_they_held() {
    let network = Network::default();
    let (own, address) = (identity(), free());
    let broken = settings(address, None, &[]);
    assert!(matches!(network.prepare(Some(&broken), None), Err(NetworkError::Files)));
    open(&network, &settings(address, Some(&own), &[]));
    assert_eq!(open(&network, &broken).identity, own);
}

#[test]
fn a_key_that_does_not_fit_is_refused_before_anything_is_bound() {
    let network = Network::default();
    let (mut own, other) = ((*identity()).clone(), identity());
    own.key_der.clone_from(&other.key_der);
    let wanted = settings(free(), Some(&Arc::new(own)), &[]);
    assert!(matches!(network.prepare(Some(&wanted), None), Err(NetworkError::Tls(_))));
}

#[test]
fn connections_stay_as_long_as_nobody_may_do_less() {
    let network = Network::default();
    let (own, address) = (identity(), free());
    let door = open(&network, &settings(address, Some(&own), &[("a", Read), ("b", Change)]));
    let next = |identity, clients: &[(&str, AdminRole)]| {
        open(&network, &settings(address, Some(identity), clients))
    };
    let renewed =
        AdminIdentity { authorities_der: own.authorities_der.clone(), ..(*identity()).clone() };
    for (identity, clients, kept) in [
        (&own, &[("b", Change), ("a", Change), ("c", Read)][..], true),
        (&Arc::new(renewed), &[("a", Read), ("b", Change)], true),
        (&own, &[("b", Change)], false),
        (&own, &[("a", Read), ("b", Read)], false),
        (&identity(), &[("a", Read), ("b", Change)], false),
    ] {
        assert_eq!(keeps(&door, &next(identity, clients)), kept, "{clients:?}");
    }
}

#[test]
fn a_client_is_the_first_that_the_certificate_names() {
    let network = Network::default();
    let own = identity();
    let names = Names::of(own.chain_der.first().unwrap());
    assert_eq!(network.client(&names), None);
    open(&network, &settings(free(), Some(&own), &[("x", Change), ("LOCALHOST", Read)]));
    assert_eq!(network.client(&names).map(|it| it.role), Some(Read));
    assert_eq!(network.client(&Names::default()), None);
}

#[test]
fn a_plan_tells_what_becomes_of_it() {
    let own = identity();
    let [one, two] = ["127.0.0.1:1", "127.0.0.1:2"].map(|it| it.parse().unwrap());
    let before = settings(one, Some(&own), &[("a", Read)]);
    let after = settings(two, Some(&own), &[("a", Change)]);
    let told = |before: Option<&Arc<_>>, after: Option<&Arc<_>>| {
        difference(before, after).map(|it| format!("{} {} {}", it.kind, it.what, it.detail))
    };
    assert_eq!(told(None, None), None);
    assert_eq!(told(Some(&before), Some(&before)), None);
    assert_eq!(told(None, Some(&after)).unwrap(), "add admin 127.0.0.1:2 ");
    assert_eq!(told(Some(&before), None).unwrap(), "remove admin 127.0.0.1:1 ");
    let update = "update admin 127.0.0.1:2 address, clients";
    assert_eq!(told(Some(&before), Some(&after)).unwrap(), update);
}
