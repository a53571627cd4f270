//! Every policy by its words, good and bad.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::json;

fn policy(text: &str) -> (Option<TlsPolicy>, Vec<Diagnostic>) {
    let Ok(node) = json::parse(text) else { panic!("{text} is no JSON") };
    let mut report = Report::default();
    let shape = Shape::open(&node, Place::default(), &mut report).unwrap();
    let read = read(&shape, &mut report);
    (read, report.into_sorted())
}

fn good(text: &str) -> TlsPolicy {
    let (read, found) = policy(text);
    read.unwrap_or_else(|| panic!("{text}: {found:?}"))
}

fn refused(text: &str) -> String {
    let (read, found) = policy(text);
    assert_eq!(read, None, "{text}");
    let errors = found.iter().filter(|it| it.severity == Severity::Error);
    errors.map(|it| format!("{} ({})", it.reason, it.mend)).collect::<Vec<_>>().join("; ")
}

fn names(policy: &TlsPolicy) -> Vec<&str> {
    policy.suites.iter().map(|it| it.name).collect()
}

#[test]
fn the_newest_strict_policy_is_offered_whole_and_without_a_word() {
    let text = r#"{"policyType": "predefined", "policyName": "appgwsslpolicy20220101s"}"#;
    let (read, found) = policy(text);
    let read = read.unwrap();
    assert_eq!(found, []);
    assert_eq!(read.predefined, Some("AppGwSslPolicy20220101S"));
    assert_eq!(names(&read), AZURES);
    assert!(read.tls12 && read.tls13);
}

#[test]
fn a_policy_that_asks_for_more_says_what_is_left_and_what_is_nearest() {
    for (name, nearest, tls13) in [
        ("AppGwSslPolicy20150501", "AppGwSslPolicy20170401S", false),
        ("AppGwSslPolicy20170401", "AppGwSslPolicy20170401S", false),
        ("AppGwSslPolicy20170401S", "AppGwSslPolicy20220101S", false),
        ("AppGwSslPolicy20220101", "AppGwSslPolicy20220101S", true),
    ] {
        let (read, found) = policy(&format!(r#"{{"policyName": "{name}"}}"#));
        let read = read.unwrap();
        assert_eq!((read.tls12, read.tls13), (true, tls13), "{name}");
        let [warning] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(warning.severity, Severity::Warning);
        assert!(warning.reason.contains("ECDHE and AES-GCM is left"), "{warning:?}");
        assert!(warning.mend.contains(nearest), "{warning:?}");
    }
}

#[test]
fn custom_suites_keep_their_order_and_implied_ones_come_first() {
    let listed = r#""cipherSuites": ["tls_ecdhe_rsa_with_aes_128_gcm_sha256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]"#;
    let twelve = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"];
    let first =
        good(&format!(r#"{{"policyType": "Custom", "minProtocolVersion": "TLSv1_2", {listed}}}"#));
    assert_eq!(names(&first), twelve);
    assert!(first.tls12 && !first.tls13);
    let second = good(&format!(r#"{{"policyType": "CustomV2", {listed}}}"#));
    assert_eq!(names(&second), [&AZURES[..2], &twelve[..]].concat());
    assert!(second.tls12 && second.tls13);
    let newest = good(r#"{"policyType": "CustomV2", "minProtocolVersion": "TLSv1_3"}"#);
    assert_eq!(names(&newest), AZURES[..2]);
    assert!(!newest.tls12 && newest.tls13);
}

#[test]
fn what_is_not_offered_is_left_out_and_told() {
    let (read, found) = policy(
        r#"{"policyType": "Custom", "minProtocolVersion": "TLSv1_0", "cipherSuites":
            ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]}"#,
    );
    assert_eq!(names(&read.unwrap()), ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]);
    let told: Vec<_> = found.iter().map(|it| it.reason.as_str()).collect();
    assert!(told.iter().any(|it| it.contains("TLSv1_0 is not offered")), "{told:?}");
    assert!(told.iter().any(|it| it.contains("TLS_RSA_WITH_AES_128_CBC_SHA are not")), "{told:?}");
}

#[test]
fn versions_can_be_taken_out() {
    let without13 = good(r#"{"disabledSslProtocols": ["TLSv1_0", "TLSv1_1", "tlsv1_3"]}"#);
    assert!(without13.tls12 && !without13.tls13);
    assert!(!names(&without13).contains(&"TLS_AES_128_GCM_SHA256"));
    let text = r#"{"policyName": "AppGwSslPolicy20220101S", "disabledSslProtocols": ["TLSv1_2"]}"#;
    let only13 = good(text);
    assert_eq!((only13.predefined, only13.tls12, only13.tls13), (None, false, true));
    assert_eq!(good("{}"), everything());
}

#[test]
fn a_policy_of_which_nothing_is_left_is_refused() {
    for (text, reason) in [
        (
            r#"{"policyType": "Custom", "cipherSuites": ["TLS_RSA_WITH_AES_256_CBC_SHA"]}"#,
            "nothing is left",
        ),
        (r#"{"disabledSslProtocols": ["TLSv1_2", "TLSv1_3"]}"#, "nothing is left"),
        (r#"{"policyType": "Custom", "minProtocolVersion": "TLSv1_3"}"#, "CustomV2"),
        (r#"{"policyType": "Custom", "minProtocolVersion": "TLSv1_2"}"#, "no cipherSuites"),
        (r#"{"policyType": "Predefined"}"#, "no policyName"),
        (r#"{"policyName": "AppGwSslPolicy20220101T"}"#, "write AppGwSslPolicy20220101"),
        (r#"{"policyType": "Modern"}"#, "none of the values"),
        (r#"{"policyType": "CustomV2", "cipherSuites": ["TLS_NULL"]}"#, "no cipher suite"),
        (r#"{"policyType": "CustomV2", "cipherSuites": [7]}"#, "string"),
        (r#"{"policyType": "CustomV2", "cipherSuites": {}}"#, "list"),
        (r#"{"minProtocolVersion": "SSLv3"}"#, "none of the values"),
        (r#"{"disabledSslProtocols": ["SSLv3"]}"#, "no version of TLS"),
    ] {
        let told = refused(text);
        assert!(told.contains(reason), "{text}: {told}");
    }
}

#[test]
fn no_name_is_given_twice() {
    let mut all: Vec<_> = OFFERED.iter().map(|it| it.name).chain(NOT_OFFERED).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    assert!(AZURES.iter().all(|name| OFFERED.iter().any(|it| it.name == *name)));
}

#[test]
fn backends_are_told_fingerprints_with_the_policies_that_azure_tells_them_with() {
    let suites = r#""cipherSuites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]"#;
    for (text, tells) in [
        (r#"{"policyName": "AppGwSslPolicy20170401"}"#.to_owned(), false),
        (r#"{"policyName": "AppGwSslPolicy20170401S"}"#.to_owned(), false),
        (r#"{"policyName": "AppGwSslPolicy20220101"}"#.to_owned(), true),
        (r#"{"policyName": "AppGwSslPolicy20220101S"}"#.to_owned(), true),
        (format!(r#"{{"policyType": "Custom", {suites}}}"#), false),
        (format!(r#"{{"policyType": "CustomV2", {suites}}}"#), true),
        ("{}".to_owned(), true),
    ] {
        let (read, _) = policy(&text);
        assert_eq!(read.unwrap().fingerprint, tells, "{text}");
    }
}
