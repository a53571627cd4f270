//! Lines as a reader of the log finds them.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::access_log::sink::{KEPT_TOGETHER, NARROW};

fn request() -> Request {
    Request {
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        client: ([192, 0, 2, 7], 5000).into(),
        tls: true,
        session: Some(["TLSv1.3", "TLS_AES_128_GCM_SHA256"]),
        verification: Some("FAILED:certificate revoked".into()),
        fingerprint: Some("0a1b".into()),
        issuer: Some("CN=staff".into()),
        method: Some("GET".into()),
        target: Some("/old?a=1".into()),
        sent_target: Some("/new/old?a=1".into()),
        version: Some("HTTP/1.1"),
        user_agent: Some("curl\"/8".into()),
        content_type: None,
        original_host: Some("www.test".into()),
        host: Some("10.0.0.4".into()),
        status: 200,
        received: 80,
        sent: 120,
        taken: Duration::from_millis(1500),
        answering: Some(Duration::from_millis(250)),
        site: Some("web".into()),
        rule: Some("rule".into()),
        pool: Some("chat".into()),
        settings: Some("plain".into()),
        backend: Some("10.0.0.4:80".into()),
        source_port: Some(40_000),
        backend_status: Some(200),
        backend_latency: Some(Duration::from_millis(1234)),
        error: "ERRORINFO_NO_ERROR",
        transaction: "0af7".into(),
        tunnel: None,
    }
}

fn parsed(line: &Line, most: usize) -> serde_json::Value {
    let mut bytes = Vec::new();
    line.render(&mut bytes, most).unwrap();
    assert_eq!(bytes.pop(), Some(b'\n'));
    assert!(bytes.starts_with(BEGIN));
    assert!(!bytes.contains(&b'\n'));
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_request_has_the_fields_that_azure_names() {
    let line = parsed(&Line::Request(Box::new(request())), 1000);
    assert_eq!(line["timeStamp"], "2023-11-14T22:13:20.123Z");
    assert_eq!(line["operationName"], "ApplicationGatewayAccess");
    assert_eq!(line["category"], "ApplicationGatewayAccessLog");
    for (name, value) in [
        ("listenerName", "web"),
        ("ruleName", "rule"),
        ("backendPoolName", "chat"),
        ("backendSettingName", "plain"),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    let properties = &line["properties"];
    for (name, value) in [
        ("clientIP", "192.0.2.7"),
        ("httpMethod", "GET"),
        ("originalRequestUriWithArgs", "/old?a=1"),
        ("requestUri", "/new/old"),
        ("requestQuery", "a=1"),
        ("userAgent", "curl\"/8"),
        ("httpVersion", "HTTP/1.1"),
        ("transactionId", "0af7"),
        ("sslEnabled", "on"),
        ("sslCipher", "TLS_AES_128_GCM_SHA256"),
        ("sslProtocol", "TLSv1.3"),
        ("sslClientVerify", "FAILED:certificate revoked"),
        ("sslClientCertificateFingerprint", "0a1b"),
        ("sslClientCertificateIssuerName", "CN=staff"),
        ("upstreamSourcePort", "40000"),
        ("serverRouted", "10.0.0.4:80"),
        ("serverStatus", "200"),
        ("serverResponseLatency", "1.234"),
        ("originalHost", "www.test"),
        ("host", "10.0.0.4"),
        ("error_info", "ERRORINFO_NO_ERROR"),
    ] {
        assert_eq!(properties[name], value, "{name}");
    }
    assert_eq!(properties["httpStatus"], 200);
    assert_eq!(properties["clientPort"], 5000);
    assert_eq!([&properties["receivedBytes"], &properties["sentBytes"]], [80, 120]);
    assert_eq!(properties["timeTaken"], 1.5);
    assert_eq!(properties["clientResponseTime"], 0.25);
    assert!(properties.get("contentType").is_none() && properties.get("tunnelId").is_none());
}

#[test]
fn a_tunnels_end_is_no_request() {
    let end = TunnelEnd {
        at: SystemTime::UNIX_EPOCH,
        id: u64::MAX,
        client: "[::ffff:192.0.2.7]:5000".parse().unwrap(),
        site: "web".into(),
        pool: "chat".into(),
        settings: "plain".into(),
        backend: "10.0.0.4:80".into(),
        transaction: "0af7".into(),
        cause: "idle",
        leg_ends: ["open", "fin"],
        bytes: [1, 2],
        duration: Duration::from_secs(90),
    };
    let line = parsed(&Line::TunnelEnd(Box::new(end)), 1000);
    assert_eq!(line["operationName"], "HoldfastTunnelEnd");
    let properties = &line["properties"];
    assert_eq!(properties["clientIP"], "192.0.2.7");
    assert_eq!(properties["tunnelId"], "ffffffffffffffff");
    assert_eq!(properties["tunnelEndCause"], "idle");
    assert_eq!([&properties["tunnelClientEnd"], &properties["tunnelBackendEnd"]], ["open", "fin"]);
    assert_eq!(properties["transactionId"], "0af7");
    assert_eq!([&properties["receivedBytes"], &properties["sentBytes"]], [1, 2]);
    assert_eq!(properties["timeTaken"], 90.0);
    assert!(properties.get("httpStatus").is_none());
}

#[test]
fn a_hostile_request_fits_where_lines_must_stay_together() {
    let long: Option<Text> = Some(Text::new(vec![b'"'; 40_000]));
    let name: String = "n".repeat(80);
    let line = Line::Request(Box::new(Request {
        method: long.clone(),
        target: long.clone(),
        sent_target: long.clone(),
        user_agent: long.clone(),
        content_type: long.clone(),
        original_host: long.clone(),
        host: long.clone(),
        fingerprint: Some("f".repeat(40).as_str().into()),
        issuer: long,
        site: Some(name.as_str().into()),
        rule: Some(name.as_str().into()),
        pool: Some(name.as_str().into()),
        settings: Some(name.as_str().into()),
        backend: Some(format!("{}:65535", "b".repeat(253))),
        ..request()
    }));
    assert!(line.size() > 40_000);
    let mut bytes = Vec::new();
    line.render(&mut bytes, NARROW).unwrap();
    assert!(bytes.len() <= KEPT_TOGETHER, "{}", bytes.len());
}
