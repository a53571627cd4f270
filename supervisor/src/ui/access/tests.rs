//! Who is let in, with what, and until when.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use hyper::header::HeaderName;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const NOW: i64 = 1_800_000_000;

fn headers(given: &[(&str, &str)]) -> HeaderMap {
    let one = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap())
    };
    given.iter().map(one).collect()
}

fn guarded(text: &str) -> (tempfile::TempDir, Guard) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    (directory, Guard::Token(file))
}

#[test]
fn an_address_of_this_host_alone_needs_no_token_and_any_other_does() {
    let file = || Some(PathBuf::from("/token"));
    for (bound, token, expected) in [
        ("127.0.0.1:1", None, "Address"),
        ("127.8.8.8:1", None, "Address"),
        ("[::1]:1", None, "Address"),
        ("[::ffff:127.0.0.1]:1", None, "Address"),
        ("0.0.0.0:1", None, "Shut"),
        ("[::]:1", None, "Shut"),
        ("192.0.2.1:1", None, "Shut"),
        ("127.0.0.1:1", file(), "Token(\"/token\")"),
        ("0.0.0.0:1", file(), "Token(\"/token\")"),
    ] {
        let guard = Guard::new(bound.parse().unwrap(), token);
        assert_eq!(format!("{guard:?}"), expected, "{bound}");
    }
    assert_eq!(Guard::Shut.judge(&headers(&[("host", "localhost")]), NOW), Verdict::Shut);
}

#[test]
fn a_foreign_name_for_this_address_is_refused() {
    for (host, allowed) in [
        ("localhost", true),
        ("LocalHost:9180", true),
        ("127.0.0.1:9180", true),
        ("127.0.0.1", true),
        ("[::1]:9180", true),
        ("[::1]", true),
        ("evil.example", false),
        ("evil.example:9180", false),
        ("localhost.evil.example", false),
        ("localhost:9180@evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("192.0.2.1:9180", false),
        ("[2001:db8::1]:9180", false),
        ("", false),
    ] {
        let verdict = Guard::Address.judge(&headers(&[("host", host)]), NOW);
        assert_eq!(verdict == Verdict::Allowed, allowed, "{host:?}");
    }
    assert_eq!(Guard::Address.judge(&HeaderMap::new(), NOW), Verdict::Allowed);
    let mut two = headers(&[("host", "localhost")]);
    two.append(HOST, "evil.example".parse().unwrap());
    assert_eq!(Guard::Address.judge(&two, NOW), Verdict::OtherHost);
}

#[test]
fn the_token_and_nothing_else_lets_in() {
    let (_directory, guard) = guarded(&format!("{TOKEN}\n"));
    for (value, allowed) in [
        (format!("Bearer {TOKEN}"), true),
        (format!("bearer   {TOKEN} "), true),
        (format!("Bearer {TOKEN}x"), false),
        (format!("Bearer {}", TOKEN.to_uppercase()), false),
        (format!("Bearer {}", &TOKEN[1..]), false),
        (format!("Basic {TOKEN}"), false),
        (TOKEN.to_owned(), false),
        ("Bearer".to_owned(), false),
        ("Bearer ".to_owned(), false),
        (String::new(), false),
    ] {
        let verdict = guard.judge(&headers(&[("authorization", &value)]), NOW);
        assert_eq!(verdict == Verdict::Allowed, allowed, "{value:?}");
        assert_eq!(guard.cookie(&headers(&[("authorization", &value)]), NOW).is_some(), allowed);
    }
    assert_eq!(guard.judge(&HeaderMap::new(), NOW), Verdict::TokenNeeded);
}

#[test]
fn a_cookie_lets_in_until_its_end_and_is_nobodys_to_make() {
    let (directory, guard) = guarded(TOKEN);
    let bearer = headers(&[("authorization", &format!("Bearer {TOKEN}"))]);
    let set = guard.cookie(&bearer, NOW).unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    assert!(!set.contains(TOKEN), "{set}");
    let cookie = set.split(';').next().unwrap().to_owned();
    let judge = |cookie: &str, now| {
        guard.judge(&headers(&[("cookie", &format!("other=1; {cookie}; more=2"))]), now)
    };
    assert_eq!(judge(&cookie, NOW), Verdict::Allowed);
    assert_eq!(judge(&cookie, NOW + SESSION_SECONDS - 1), Verdict::Allowed);
    assert_eq!(judge(&cookie, NOW + SESSION_SECONDS), Verdict::TokenNeeded);
    // A cookie gets no new one.
    assert_eq!(guard.cookie(&headers(&[("cookie", &cookie)]), NOW), None);
    let (name, value) = cookie.split_once('=').unwrap();
    let (end, tag) = value.split_once('.').unwrap();
    let later = end.parse::<i64>().unwrap() + 1;
    for forged in [
        format!("{name}={later}.{tag}"),
        format!("{name}={end}."),
        format!("{name}={end}"),
        format!("{name}=.{tag}"),
        format!("{name}={end}.{}", &tag[1..]),
        format!("x{name}={value}"),
        format!("{name}x={value}"),
        format!("{name}=\u{1}"),
    ] {
        let forged: String = forged.chars().filter(|it| !it.is_control()).collect();
        assert_eq!(judge(&forged, NOW), Verdict::TokenNeeded, "{forged}");
    }
    // Another token ends what was given out for the one before.
    fs::write(directory.path().join("token"), TOKEN.replace('0', "f")).unwrap();
    assert_eq!(judge(&cookie, NOW), Verdict::TokenNeeded);
}

#[test]
fn a_token_that_cannot_be_read_keeps_everybody_out_and_is_told() {
    let long = "x".repeat(usize::try_from(LONGEST).unwrap() + 1);
    for (text, told) in [
        ("", "empty"),
        ("\n \n", "empty"),
        ("two words", "ASCII"),
        ("tö", "ASCII"),
        (&long, "4096"),
    ] {
        let (_directory, guard) = guarded(text);
        for value in
            [format!("Bearer {TOKEN}"), "Bearer ".to_owned(), "Bearer two words".to_owned()]
        {
            let asked = headers(&[("authorization", &value)]);
            assert_eq!(guard.judge(&asked, NOW), Verdict::NoToken, "{text:.9}");
        }
        let problem = guard.problem().unwrap();
        assert!(problem.contains("shut") && problem.contains(told), "{problem}");
    }
    // A pipe that nobody writes to keeps nobody waiting.
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("token");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let guard = Guard::Token(pipe);
    assert_eq!(guard.judge(&HeaderMap::new(), NOW), Verdict::NoToken);
    assert!(guard.problem().unwrap().contains("empty"));
    let gone = Guard::Token("/nowhere/token".into());
    assert_eq!(gone.judge(&HeaderMap::new(), NOW), Verdict::NoToken);
    assert!(gone.problem().unwrap().contains("/nowhere/token"));
}

#[test]
fn a_token_that_is_easy_to_guess_or_to_read_is_told_of() {
    let (_directory, good) = guarded(TOKEN);
    assert_eq!(good.problem(), None);
    let (_directory, short) = guarded("abc");
    assert!(short.problem().unwrap().contains("guessed"));
    let (directory, open) = guarded(TOKEN);
    let file = directory.path().join("token");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(open.problem().unwrap().contains("chmod"));
    assert_eq!(Guard::Address.problem(), None);
}
