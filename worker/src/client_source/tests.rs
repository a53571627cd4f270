//! Whose word counts.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn source(forwarded_headers: bool) -> ClientSource {
    let network = |address: &[u8], prefix| wire::Network { address: address.to_vec(), prefix };
    let trusted = vec![network(&[10, 0, 0, 0], 8), network(&[0xfd; 16], 128)];
    let source = wire::ClientSource { proxy_protocol: false, trusted, forwarded_headers };
    ClientSource::compile(Some(source)).unwrap()
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn client(peer: &str, lines: &[&'static str]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
    source(true).client_of(peer.parse().unwrap(), &headers(&lines)).to_string()
}

#[test]
fn the_last_address_that_nobody_trusts_is_the_client() {
    for (lines, found) in [
        (&["192.0.2.7"][..], "192.0.2.7:0"),
        (&["192.0.2.7:5000"], "192.0.2.7:5000"),
        (&["[2001:db8::7]:5000"], "[2001:db8::7]:5000"),
        (&["[2001:db8::7]"], "[2001:db8::7]:0"),
        (&["2001:db8::7"], "[2001:db8::7]:0"),
        (&["::ffff:192.0.2.7"], "192.0.2.7:0"),
        (&["192.0.2.1, 192.0.2.7, 10.0.0.9"], "192.0.2.7:0"),
        (&["192.0.2.1", "192.0.2.7 ,10.0.0.9", ""], "192.0.2.7:0"),
        (&["10.0.0.8, 10.0.0.9"], "10.0.0.8:0"),
        (&[], "10.1.2.3:80"),
    ] {
        assert_eq!(client("10.1.2.3:80", lines), found, "{lines:?}");
        assert_eq!(client("[::ffff:10.1.2.3]:80", lines).contains("ffff"), lines.is_empty());
    }
}

#[test]
fn nonsense_ends_the_chain() {
    assert_eq!(client("10.1.2.3:80", &["192.0.2.7, unknown"]), "10.1.2.3:80");
    assert_eq!(client("10.1.2.3:80", &["192.0.2.7, _hidden, 10.0.0.9"]), "10.0.0.9:0");
    assert_eq!(client("10.1.2.3:80", &["192.0.2.7, [10.0.0.9"]), "10.1.2.3:80");
}

#[test]
fn who_is_not_trusted_speaks_for_itself() {
    assert_eq!(client("192.0.2.200:80", &["10.0.0.1"]), "192.0.2.200:80");
    let forged = headers(&[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https")]);
    let peer = "10.0.0.1:80".parse().unwrap();
    assert_eq!(source(false).client_of(peer, &forged), peer);
    let mut written = headers(&[("x-forwarded-proto", "http")]);
    source(false).keep(peer, &forged).restore(&mut written);
    source(true).keep("192.0.2.200:80".parse().unwrap(), &forged).restore(&mut written);
    assert_eq!(written["x-forwarded-proto"], "http");
}

#[test]
fn what_a_trusted_peer_says_of_scheme_and_port_stays() {
    let keep = |lines: &[(&'static str, &'static str)]| {
        let mut written = headers(&[("x-forwarded-proto", "http"), ("x-forwarded-port", "8080")]);
        source(true).keep("10.0.0.1:80".parse().unwrap(), &headers(lines)).restore(&mut written);
        let text = |name: &str| written[name].to_str().unwrap().to_owned();
        [text("x-forwarded-proto"), text("x-forwarded-port")]
    };
    assert_eq!(
        keep(&[("x-forwarded-proto", "https"), ("x-forwarded-port", "443")]),
        ["https", "443"]
    );
    for nonsense in [
        &[("x-forwarded-proto", "gopher"), ("x-forwarded-port", "0")][..],
        &[("x-forwarded-proto", "https, http"), ("x-forwarded-port", "66000")],
        &[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")],
    ] {
        assert_eq!(keep(nonsense), ["http", "8080"], "{nonsense:?}");
    }
}

#[test]
fn blocks_contain_what_shares_their_bits() {
    let trusts = |text: &str| source(true).trusts(text.parse().unwrap());
    assert!(trusts("10.255.0.1") && trusts("::ffff:10.0.0.1"));
    assert!(trusts("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd"));
    assert!(!trusts("11.0.0.1") && !trusts("fdfd::1") && !trusts("::10.0.0.1"));
    assert!(Network::new(&[0; 4], 0).unwrap().contains([255; 4].into()));
    assert!(Network::new(&[0; 16], 0).unwrap().contains([255; 16].into()));
    for (address, prefix) in [(&[0; 4][..], 33), (&[0; 16], 129), (&[0; 5], 8), (&[], 0)] {
        assert!(Network::new(address, prefix).is_none());
    }
}
