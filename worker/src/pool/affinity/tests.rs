//! Which cookies are ours, and what they look like.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

const KEY: [u8; 32] = [7; 32];

fn backends() -> Vec<Arc<Backend>> {
    let backend = |pool: &str, address: &str, port| {
        Arc::new(Backend::new(pool.into(), address.to_owned(), port))
    };
    vec![
        backend("blue", "10.0.0.1", 80),
        backend("blue", "10.0.0.1", 81),
        backend("blue", "App.internal", 80),
        backend("green", "10.0.0.1", 80),
    ]
}

fn affinity_under(key: &[u8], settings: &str, backends: &[Arc<Backend>]) -> Affinity {
    let cookie = wire::Affinity { cookie_name: "Sticky".to_owned() };
    Affinity::compile(cookie, key, settings, backends).unwrap()
}

fn asking(cookies: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for cookie in cookies {
        headers.append(COOKIE, HeaderValue::from_str(cookie).unwrap());
    }
    headers
}

#[test]
fn both_cookies_are_set_as_azure_does_and_lead_back() {
    let backends = backends();
    let affinity = affinity_under(&KEY, "settings", &backends);
    for backend in &backends {
        let mut answer = HeaderMap::new();
        answer.append(SET_COOKIE, HeaderValue::from_static("own=1"));
        affinity.set(backend, &mut answer);
        let set: Vec<_> =
            answer.get_all(SET_COOKIE).iter().map(|it| it.to_str().unwrap()).collect();
        let value = set[1].strip_prefix("Sticky=").unwrap().strip_suffix("; Path=/").unwrap();
        assert_eq!(value.len(), 32);
        assert!(value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        assert_eq!(set[0], "own=1");
        assert_eq!(set[2], format!("StickyCORS={value}; Path=/; SameSite=None; Secure"));
        assert_eq!(set.len(), 3);
        for name in ["Sticky", "StickyCORS"] {
            let asked = asking(&[&format!("{name}={value}")]);
            assert!(Arc::ptr_eq(affinity.named_by(&asked).unwrap(), backend));
        }
    }
}

#[test]
fn a_value_names_key_pool_settings_address_and_port_and_no_spelling() {
    let backends = backends();
    let values = |key: &[u8], settings: &str, backends: &[Arc<Backend>]| {
        let affinity = affinity_under(key, settings, backends);
        backends.iter().map(|it| affinity.values[&it.id].clone()).collect::<Vec<_>>()
    };
    let first = values(&KEY, "settings", &backends);
    let others = [values(&KEY, "others", &backends), values(&[8; 32], "settings", &backends)];
    let all: std::collections::BTreeSet<_> = first.iter().chain(others.iter().flatten()).collect();
    assert_eq!(all.len(), 12);
    // What another worker, after another reload, computes from the same document in another spelling.
    let again: Vec<_> = backends
        .iter()
        .map(|it| {
            let pool = it.pool.to_uppercase();
            Arc::new(Backend::new(pool.as_str().into(), it.address.to_lowercase(), it.port))
        })
        .collect();
    assert_eq!(values(&KEY, "SETTINGS", &again), first);
    // Parts cannot flow into one another.
    let split = |pool: &str, address: &str| {
        let backend = Arc::new(Backend::new(pool.into(), address.to_owned(), 80));
        values(&KEY, "s", &[backend])
    };
    assert_ne!(split("ab", "c"), split("a", "bc"));
}

#[test]
fn cookies_are_found_where_clients_put_them_and_nothing_else_is_believed() {
    let backends = backends();
    let affinity = affinity_under(&KEY, "settings", &backends);
    let value = |index: usize| affinity.values[&backends[index].id].to_string();
    let (one, two) = (value(0), value(1));
    let found = |cookies: &[&str]| {
        let headers = asking(cookies);
        let named = affinity.named_by(&headers)?;
        backends.iter().position(|it| Arc::ptr_eq(it, named))
    };
    assert_eq!(found(&[&format!("a=b; Sticky={one}; c=d")]), Some(0));
    assert_eq!(found(&[&format!("a=b;Sticky={one}")]), Some(0));
    assert_eq!(found(&["a=b", &format!("Sticky={one}")]), Some(0));
    assert_eq!(found(&[&format!("Sticky=forged; Sticky={one}")]), Some(0));
    assert_eq!(found(&[&format!("Sticky=forged; StickyCORS={two}")]), Some(1));
    assert_eq!(found(&[&format!("StickyCORS={two}; Sticky={one}")]), Some(0));
    for nothing in [
        String::new(),
        "Sticky".to_owned(),
        "Sticky=".to_owned(),
        format!("sticky={one}"),
        format!("Sticky2={one}"),
        format!("Sticky={}", one.to_uppercase()),
        format!("Sticky={one}0"),
        format!("Sticky={}", &one[..31]),
        format!("Sticky={}", "0".repeat(32)),
        format!("Sticky==>{one}"),
        format!("x=Sticky={one}"),
        ";;;=;=".to_owned(),
    ] {
        assert_eq!(found(&[&nothing]), None, "{nothing:?}");
    }
    let odd = HeaderValue::from_bytes(b"Sticky=\xff\xfe; \xff=1").unwrap();
    let mut headers = HeaderMap::new();
    headers.append(COOKIE, odd);
    assert!(affinity.named_by(&headers).is_none());
}

#[test]
fn names_that_break_the_header_and_missing_keys_are_refused() {
    let compile = |name: &str, key: &[u8]| {
        let cookie = wire::Affinity { cookie_name: name.to_owned() };
        Affinity::compile(cookie, key, "settings", &backends()).map(drop)
    };
    for name in ["", "a b", "a=b", "a;b", "a\r\nb", "ä", "a\"b"] {
        assert_eq!(compile(name, &KEY), Err(AffinityRefusal::Name(name.to_owned())));
    }
    assert_eq!(compile("Sticky", &[]), Err(AffinityRefusal::NoKey));
    assert_eq!(compile("Sticky", &KEY[..15]), Err(AffinityRefusal::NoKey));
    assert_eq!(compile("__Host-a!b", &KEY), Ok(()));
}
