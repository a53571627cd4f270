//! Chains, dates, purposes and issuers, judged one by one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};

use super::*;

type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(in crate::tls) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub(in crate::tls) fn authority(name: &str, above: Option<&Issuer>) -> Issuer {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    match above {
        Some(above) => CertifiedIssuer::signed_by(params, key, above).unwrap(),
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
    }
}

pub(in crate::tls) fn leaf(params: &CertificateParams, issuer: &Issuer) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

pub(in crate::tls) fn strict(roots: &[&Issuer], intermediates: &[&Issuer]) -> wire::ClientAuth {
    let ders = |of: &[&Issuer]| of.iter().map(|it| it.der().to_vec()).collect();
    wire::ClientAuth {
        mode: wire::ClientAuthMode::Strict.into(),
        roots_der: ders(roots),
        intermediates_der: ders(intermediates),
        ..wire::ClientAuth::default()
    }
}

/// An authority with this key, and a client's certificate of it that `change` has changed.
pub(in crate::tls) fn authority_with(
    key: &KeyPair,
    change: impl FnOnce(&mut CertificateParams),
) -> [CertificateDer<'static>; 2] {
    let mut above = params("root");
    above.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = above.self_signed(key).unwrap();
    let mut own = params("client");
    change(&mut own);
    let issuer = rcgen::Issuer::from_params(&above, key);
    let own = own.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    [root.der().clone(), own.der().clone()]
}

fn compiled(source: wire::ClientAuth) -> ClientAuth {
    ClientAuth::compile(source, &Arc::new(rustls::crypto::ring::default_provider())).unwrap()
}

fn now() -> UnixTime {
    UnixTime::now()
}

#[test]
fn a_chain_to_a_trusted_root_passes_and_another_does_not() {
    let (root, other) = (authority("root", None), authority("other", None));
    let middle = authority("middle", Some(&root));
    let own = leaf(&params("client"), &middle);
    let shown = [own.clone(), middle.der().clone()];
    assert_eq!(compiled(strict(&[&root], &[])).judge(&shown, now()), Verdict::Success);
    let unknown = Verdict::Failed("unable to get local issuer certificate");
    assert_eq!(compiled(strict(&[&other], &[])).judge(&shown, now()), unknown);
    // The client may leave out what the profile has.
    let short = [own];
    assert_eq!(compiled(strict(&[&root], &[])).judge(&short, now()), unknown);
    assert_eq!(compiled(strict(&[&root], &[&middle])).judge(&short, now()), Verdict::Success);
    assert_eq!(compiled(strict(&[&root], &[])).judge(&[], now()), Verdict::None);
    let junk = [CertificateDer::from(vec![1, 2, 3])];
    assert!(matches!(compiled(strict(&[&root], &[])).judge(&junk, now()), Verdict::Failed(_)));
}

#[test]
fn a_verdict_is_told_in_nginxs_words() {
    assert_eq!(Verdict::Success.to_string(), "SUCCESS");
    assert_eq!(Verdict::Failed("because").to_string(), "FAILED:because");
    assert_eq!(Verdict::None.to_string(), "NONE");
}

#[test]
fn a_same_named_authority_with_another_key_vouches_for_nobody() {
    let (root, impostor) = (authority("root", None), authority("root", None));
    let own = leaf(&params("client"), &impostor);
    let verdict = compiled(strict(&[&root], &[])).judge(&[own], now());
    assert!(matches!(verdict, Verdict::Failed(_)), "{verdict}");
}

#[test]
fn dates_and_purpose_are_looked_at() {
    let root = authority("root", None);
    let auth = compiled(strict(&[&root], &[]));
    let mut old = params("client");
    old.not_before = date_time_ymd(2020, 1, 1);
    old.not_after = date_time_ymd(2021, 1, 1);
    let old = [leaf(&old, &root)];
    assert_eq!(auth.judge(&old, now()), Verdict::Failed("certificate has expired"));
    let then = UnixTime::since_unix_epoch(Duration::from_secs(1_590_000_000));
    assert_eq!(auth.judge(&old, then), Verdict::Success);
    let before = UnixTime::since_unix_epoch(Duration::from_secs(1_500_000_000));
    assert_eq!(auth.judge(&old, before), Verdict::Failed("certificate is not yet valid"));
    let mut server = params("client");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = [leaf(&server, &root)];
    assert_eq!(auth.judge(&server, now()), Verdict::Failed("unsuitable certificate purpose"));
    let mut client = params("client");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert_eq!(auth.judge(&[leaf(&client, &root)], now()), Verdict::Success);
}

#[test]
fn the_issuer_is_checked_where_it_is_to_be() {
    let root = authority("root", None);
    let [one, two] = ["one", "two"].map(|name| authority(name, Some(&root)));
    let name = |of: &Issuer| {
        let (_, parsed) = X509Certificate::from_der(of.der()).unwrap();
        parsed.subject().as_raw().to_vec()
    };
    let source = wire::ClientAuth {
        check_issuer: true,
        issuers_der: vec![name(&one)],
        ..strict(&[&root], &[&one, &two])
    };
    let auth = compiled(source.clone());
    assert_eq!(auth.judge(&[leaf(&params("client"), &one)], now()), Verdict::Success);
    let other = [leaf(&params("client"), &two)];
    assert!(
        matches!(auth.judge(&other, now()), Verdict::Failed(reason) if reason.contains("issuer"))
    );
    let lenient = compiled(wire::ClientAuth { check_issuer: false, ..source });
    assert_eq!(lenient.judge(&other, now()), Verdict::Success);
}

#[test]
fn a_responder_is_asked_only_about_what_passes_otherwise_and_only_where_it_says_so() {
    let root = authority("root", None);
    let middle = authority("middle", Some(&root));
    let mut named = params("client");
    // AuthorityInfoAccess with `http://o/`.
    let access = b"\x30\x17\x30\x15\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01\x86\x09http://o/";
    let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    let access = rcgen::CustomExtension::from_oid_content(&oid, access.to_vec());
    named.custom_extensions.push(access);
    let shown = [leaf(&named, &middle)];
    let asking = wire::ClientAuth { check_revocation: true, ..strict(&[&root], &[&middle]) };
    let sight =
        |source: &wire::ClientAuth, shown: &[_]| compiled(source.clone()).look(shown, now());
    let asked = sight(&asking, &shown);
    assert!(matches!(asked, Sight::Open(_)), "{asked:?}");
    assert_eq!(asked.verdict(), None, "nobody has said yet that it is good");
    let quiet = wire::ClientAuth { check_revocation: false, ..asking.clone() };
    assert_eq!(sight(&quiet, &shown).verdict(), Some(Verdict::Success));
    let unnamed = sight(&asking, &[leaf(&params("client"), &middle)]);
    assert!(
        matches!(unnamed, Sight::Settled(Verdict::Failed(why)) if why.contains("no OCSP responder")),
        "{unnamed:?}"
    );
    // A stranger's certificate would say whom to ask.
    let stranger = sight(&asking, &[leaf(&named, &authority("root", None))]);
    assert!(matches!(stranger, Sight::Settled(Verdict::Failed(_))), "{stranger:?}");
    named.not_after = date_time_ymd(2021, 1, 1);
    let old = sight(&asking, &[leaf(&named, &middle)]);
    assert!(matches!(old, Sight::Settled(Verdict::Failed("certificate has expired"))), "{old:?}");
    assert_eq!(sight(&asking, &[]).verdict(), Some(Verdict::None));
}

#[test]
fn who_trusts_nobody_lets_nobody_pass_and_strangers_are_refused() {
    let root = authority("root", None);
    let source = wire::ClientAuth {
        mode: wire::ClientAuthMode::Passthrough.into(),
        ..wire::ClientAuth::default()
    };
    let auth = compiled(source);
    assert!(!auth.is_strict());
    let shown = [leaf(&params("client"), &root)];
    assert_eq!(auth.judge(&shown, now()), Verdict::Failed("no authority is trusted"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let broken = wire::ClientAuth { roots_der: vec![vec![1]], ..strict(&[], &[]) };
    let refused = ClientAuth::compile(broken, &provider);
    assert!(matches!(refused, Err(ClientAuthRefusal::Authority(_))));
    let unknown = wire::ClientAuth { mode: 7, ..strict(&[&root], &[]) };
    assert!(matches!(ClientAuth::compile(unknown, &provider), Err(ClientAuthRefusal::Mode)));
}
