//! What is said of a client's certificate to others: backends, by rewrites, and the access log. In the formats that
//! nginx has for the same. Everything in it is ASCII without control characters, whatever the certificate holds, so
//! that it may stand in a header or a line of a log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::tls::names::hex;

/// Characters of base64 in a line (RFC 7468 section 2).
const LINE: usize = 64;

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// In PEM, each line with its end.
    pub(crate) pem: String,
    /// As in RFC 4514, most particular first.
    pub(crate) subject: String,
    /// As in RFC 4514, most particular first.
    pub(crate) issuer: String,
    /// In hexadecimal.
    pub(crate) serial: String,
    /// `Nov 26 18:21:07 2026 GMT`
    pub(crate) not_before: String,
    /// The same.
    pub(crate) not_after: String,
    /// SHA-1 of the whole, in hexadecimal.
    pub(crate) fingerprint: String,
}

// === impl ClientCertificate ===

impl ClientCertificate {
    /// Of a certificate in DER. What cannot be read of it stays empty.
    pub(crate) fn new(der: &[u8]) -> Self {
        let parsed = X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed);
        let of = |read: &dyn Fn(&X509Certificate<'_>) -> String| {
            parsed.as_ref().map(read).unwrap_or_default()
        };
        Self {
            pem: pem(der),
            subject: of(&|it| name(it.subject())),
            issuer: of(&|it| name(it.issuer())),
            serial: of(&|it| serial(it.raw_serial())),
            not_before: of(&|it| date(it.validity().not_before)),
            not_after: of(&|it| date(it.validity().not_after)),
            fingerprint: hex(&Sha1::digest(der)),
        }
    }
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// A name in the order and with the escapes of RFC 4514 section 2.
fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for relative in name.iter() {
        let attributes = relative.iter().map(|attribute| {
            let oid = attribute.attr_type();
            let kind = oid2abbrev(oid, oid_registry());
            let kind = kind.map_or_else(|_| oid.to_id_string(), str::to_owned);
            match attribute.as_str() {
                Ok(value) => format!("{kind}={}", escaped(value)),
                Err(_) => format!("{kind}=#{}", hex(attribute.as_slice())),
            }
        });
        parts.push(attributes.collect::<Vec<_>>().join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                escaped.push('\\');
                escaped.push(byte.into());
            }
            b'#' if at == 0 => escaped.push_str("\\#"),
            b' ' if at == 0 || at == last => escaped.push_str("\\ "),
            b' '..=b'~' => escaped.push(byte.into()),
            _ => {
                escaped.push('\\');
                escaped.push_str(&hex(&[byte]).to_ascii_uppercase());
            }
        }
    }
    escaped
}

fn serial(bytes: &[u8]) -> String {
    // A first byte of zero says that the number is positive, and is no part of it.
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    hex(bytes).to_ascii_uppercase()
}

fn date(at: ASN1Time) -> String {
    let text = at.to_string();
    text.strip_suffix(" +00:00").map_or_else(|| text.clone(), |date| format!("{date} GMT"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    fn certificate(name: &str) -> rcgen::Certificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Contoso, Ltd.");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from_slice(&[0x00, 0xab, 0x0c]));
        params.not_before = date_time_ymd(2024, 1, 2);
        params.not_after = date_time_ymd(2034, 11, 26);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn facts_are_written_as_nginx_writes_them() {
        let made = certificate("jane");
        let facts = ClientCertificate::new(made.der());
        assert_eq!(facts.subject, "CN=jane,O=Contoso\\, Ltd.");
        assert_eq!(facts.issuer, facts.subject);
        assert_eq!(facts.serial, "AB0C");
        assert_eq!(facts.not_before, "Jan  2 00:00:00 2024 GMT");
        assert_eq!(facts.not_after, "Nov 26 00:00:00 2034 GMT");
        assert_eq!(facts.fingerprint.len(), 40);
        assert_eq!(facts.pem, made.pem().replace("\r\n", "\n"));
    }

    #[test]
    fn a_hostile_name_stays_in_its_line() {
        let made = certificate("#a\r\nX-Evil: 1\u{0}é ");
        let facts = ClientCertificate::new(made.der());
        let expected = "CN=\\#a\\0D\\0AX-Evil: 1\\00\\C3\\A9\\ ,O=Contoso\\, Ltd.";
        assert_eq!(facts.subject, expected);
        assert!(facts.subject.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }

    #[test]
    fn what_is_no_certificate_has_no_facts_and_does_no_harm() {
        let facts = ClientCertificate::new(b"junk");
        assert_eq!((facts.subject.as_str(), facts.serial.as_str()), ("", ""));
        assert_eq!(facts.fingerprint.len(), 40);
    }
}
