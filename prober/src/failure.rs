//! Why a check failed, in words for people.
//!
//! The words of the same failure are always the same (no durations measured, no counts), since a change of words
//! is sent to the supervisor and shown to operators as news.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::CertificateError;
use rustls_pki_types::{ServerName, UnixTime};

use crate::refusal::ProbeRefusal;

/// What a check was waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The resolver.
    Resolve,
    /// TCP.
    Connect,
    /// TLS.
    Handshake,
    /// The head of the answer.
    Answer,
    /// The body of the answer.
    Body,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckFailure {
    /// The probe itself is at fault.
    #[error("the probe cannot be run: {0}")]
    Plan(String),
    /// The whole check took too long.
    #[error("no answer within the probe's timeout of {}: {}", seconds(*.timeout), waiting(*.phase))]
    Timeout {
        /// The bound.
        timeout: Duration,
        /// How far the check had come.
        phase: Phase,
    },
    /// The resolver failed.
    #[error("cannot resolve {name}: {source}")]
    Resolve {
        /// The host name.
        name: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The resolver knows the name but no address of it.
    #[error("{0} resolves to no address")]
    NoAddress(String),
    /// TCP failed; with several addresses at all of them.
    #[error("cannot connect to {address}{}: {}", besides(*.others), io_words(.source))]
    Connect {
        /// The address that was tried last.
        address: SocketAddr,
        /// How many other addresses failed before.
        others: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("{}", handshake_words(.0))]
    Handshake(io::Error),
    /// The exchange failed before the head of an answer was whole.
    #[error("{}", answer_words(.0))]
    Answer(hyper::Error),
    /// The status is not an expected one.
    #[error("the backend answered status {got}; expected {expected}")]
    Status {
        /// What it answered.
        got: u16,
        /// The ranges, as people write them.
        expected: String,
    },
    /// The body ended without the text.
    #[error("the body does not contain {0:?}")]
    NoMatch(String),
    /// The text is not in as much of the body as is read.
    #[error("the first {limit} bytes of the body do not contain {text:?}")]
    NoMatchYet {
        /// The bound.
        limit: usize,
        /// The text.
        text: String,
    },
    /// The body broke off before the text came.
    #[error("the connection broke off in the body, before it contained {0:?}")]
    Cut(String),
}

// === impl CheckFailure ===

impl From<&ProbeRefusal> for CheckFailure {
    fn from(error: &ProbeRefusal) -> Self {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            words.push_str(": ");
            words.push_str(&error.to_string());
            cause = error.source();
        }
        Self::Plan(words)
    }
}

fn seconds(timeout: Duration) -> String {
    format!("{} s", timeout.as_secs_f64())
}

fn waiting(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "the resolver did not answer",
        Phase::Connect => "the TCP connection was not accepted",
        Phase::Handshake => "the TLS handshake did not end",
        Phase::Answer => "connected, but no answer came",
        Phase::Body => "the body did not end",
    }
}

fn besides(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " (nor to its other address)".to_owned(),
        n => format!(" (nor to its {n} other addresses)"),
    }
}

/// The usual kinds without the errno that std appends.
fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}

fn answer_words(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return "the head of the answer is too large".to_owned();
    }
    if error.is_parse() {
        return format!("the answer is not HTTP/1.1: {error}");
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause {
        Some(cause) => format!("the connection broke before an answer: {}", io_words(cause)),
        None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            "the backend closed the connection before a whole answer".to_owned()
        }
        None => format!("no answer: {error}"),
    }
}

fn handshake_words(error: &io::Error) -> String {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>())
    else {
        return if error.kind() == io::ErrorKind::UnexpectedEof {
            "the backend closed the connection during the TLS handshake".to_owned()
        } else {
            format!("the TLS handshake broke off: {}", io_words(error))
        };
    };
    match cause {
        rustls::Error::InvalidCertificate(fault) => certificate_words(fault),
        rustls::Error::InvalidMessage(_) => {
            "the backend does not speak TLS on this port".to_owned()
        }
        rustls::Error::AlertReceived(alert) => {
            format!("the backend refused the TLS handshake with the alert {alert:?}")
        }
        other => format!("the TLS handshake failed: {other}"),
    }
}

fn certificate_words(fault: &CertificateError) -> String {
    use CertificateError as Fault;
    match fault {
        Fault::UnknownIssuer => {
            "the backend's certificate is not signed by a known authority, nor by a trusted \
                                 root of the backend settings, or its chain is incomplete"
                .to_owned()
        }
        Fault::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| bare_name(name)).collect();
            let expected = name_words(expected);
            if names.is_empty() {
                format!(
                    "the backend's certificate has no subject alternative name; expected {expected}"
                )
            } else {
                format!(
                    "the backend's certificate is for {}; expected {expected}",
                    names.join(", ")
                )
            }
        }
        Fault::NotValidForName => {
            "the backend's certificate is for another name than the probe's".to_owned()
        }
        Fault::ExpiredContext { not_after, .. } => {
            format!("the backend's certificate, or one above it, expired on {}", day(*not_after))
        }
        Fault::Expired => "the backend's certificate, or one above it, has expired".to_owned(),
        Fault::NotValidYetContext { not_before, .. } => {
            format!(
                "the backend's certificate, or one above it, is not valid before {}",
                day(*not_before)
            )
        }
        Fault::NotValidYet => {
            "the backend's certificate, or one above it, is not valid yet".to_owned()
        }
        Fault::BadEncoding => "the backend's certificate cannot be read".to_owned(),
        other => format!("the backend's certificate does not pass verification: {other}"),
    }
}

fn name_words(name: &ServerName<'_>) -> String {
    match name {
        ServerName::IpAddress(ip) => std::net::IpAddr::from(*ip).to_string(),
        name => name.to_str().into_owned(),
    }
}

/// webpki reports presented names as `DnsName("a.example")` and `IpAddress(192.0.2.1)`.
fn bare_name(name: &str) -> &str {
    name.split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .unwrap_or(name)
        .trim_matches('"')
}

/// The UTC day, `YYYY-MM-DD`: days to civil date in the proleptic Gregorian calendar, counted in eras of 400 years
/// from 1 March of year 0, so that the leap day is a year's last.
fn day(time: UnixTime) -> String {
    const DAYS_TO_EPOCH: u64 = 719_468;
    const DAYS_OF_ERA: u64 = 146_097;
    let days = time.as_secs() / 86_400 + DAYS_TO_EPOCH;
    let era = days / DAYS_OF_ERA;
    let of_era = days % DAYS_OF_ERA;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let (month, carry) =
        if shifted_month < 10 { (shifted_month + 3, 0) } else { (shifted_month - 9, 1) };
    let mut words = String::new();
    // Writing to a String does not fail.
    write!(words, "{:04}-{month:02}-{day:02}", era * 400 + year_of_era + carry).ok();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_for_people() {
        for (secs, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (4_102_444_800, "2100-01-01"),
        ] {
            assert_eq!(day(UnixTime::since_unix_epoch(Duration::from_secs(secs))), expected);
        }
    }

    #[test]
    fn names_lose_their_wrapping() {
        for (raw, bare) in [
            ("DnsName(\"*.a.example\")", "*.a.example"),
            ("IpAddress(192.0.2.1)", "192.0.2.1"),
            ("odd", "odd"),
        ] {
            assert_eq!(bare_name(raw), bare);
        }
    }

    #[test]
    fn a_timeout_says_how_far_the_check_came() {
        let failure =
            CheckFailure::Timeout { timeout: Duration::from_secs(30), phase: Phase::Connect };
        assert_eq!(
            failure.to_string(),
            "no answer within the probe's timeout of 30 s: the TCP connection was not accepted"
        );
    }
}
