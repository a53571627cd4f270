//! What is asked about a certificate of the gateway's own, and where (RFC 6960, section 4.1.1): both are its own issuer's
//! words, read of the certificate. The answer is none of this process's business: workers read it.

use std::fmt::Write as _;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;
use x509_parser::prelude::{FromDer, X509Certificate};

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const INTEGER: u8 = 0x02;
const SCHEME: &str = "http://";
/// `AlgorithmIdentifier` of SHA-1, by which every responder knows certificates. It guards nothing.
const SHA1: &[u8] = b"\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00";

/// One request to a responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// `http://…`
    pub(crate) url: String,
    /// `OCSPRequest`, in hexadecimal.
    pub(crate) request: String,
}

// === impl Question ===

impl Question {
    /// About the first certificate of a chain. `Err` is why nobody can be asked.
    pub(crate) fn about(chain: &[Vec<u8>]) -> Result<Self, &'static str> {
        let [own, issuer, ..] = chain else {
            return Err("the certificate of its issuer is missing from the chain");
        };
        let unclear = "the chain's certificates cannot be read";
        let (_, own) = X509Certificate::from_der(own).map_err(|_| unclear)?;
        let (_, issuer) = X509Certificate::from_der(issuer).map_err(|_| unclear)?;
        if own.issuer().as_raw() != issuer.subject().as_raw() {
            return Err("the chain's second certificate is not its issuer's");
        }
        let url = responder(&own).ok_or("the certificate names no OCSP responder over http")?;
        let hash = |bytes| tlv(OCTET_STRING, digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
        let name = hash(issuer.subject().as_raw());
        let key = hash(&issuer.public_key().subject_public_key.data);
        let id = [SHA1, &name, &key, &tlv(INTEGER, own.raw_serial())].concat();
        // CertID, Request, requestList, TBSRequest, OCSPRequest.
        let request = (0..5).fold(id, |inner, _| tlv(SEQUENCE, &inner));
        let mut text = String::with_capacity(2 * request.len());
        for byte in request {
            write!(text, "{byte:02x}").map_err(|_| unclear)?;
        }
        Ok(Self { url, request: text })
    }
}

fn responder(own: &X509Certificate<'_>) -> Option<String> {
    let named = own.extensions().iter().filter_map(|it| match it.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => Some(&access.accessdescs),
        _ => None,
    });
    let mut named =
        named.flatten().filter(|it| it.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP);
    named.find_map(|it| match it.access_location {
        GeneralName::URI(url) if is_asked(url) => Some(url.to_owned()),
        _ => None,
    })
}

/// Over plain HTTP, and with nobody's name and password: as workers ask about certificates of clients.
fn is_asked(url: &str) -> bool {
    let rest = url.split_at_checked(SCHEME.len());
    let rest = rest.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME));
    let authority = rest.and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    authority.is_some_and(|authority| !authority.is_empty() && !authority.contains('@'))
}

/// One DER value.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1);
    let digits = length.get(digits..).unwrap_or_default();
    let long = u8::try_from(digits.len()).unwrap_or(0) | 0x80;
    let length = if content.len() < 0x80 { digits.to_vec() } else { [&[long], digits].concat() };
    [&[tag], length.as_slice(), content].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/ocsp/");
        std::fs::read(format!("{directory}{name}")).unwrap()
    }

    #[test]
    fn what_is_asked_is_what_openssl_asks() {
        let chain = [file("jane.crt.der"), file("staff.crt.der")];
        let question = Question::about(&chain).unwrap();
        assert_eq!(question.url, "http://ocsp.test/staff");
        let wanted = file("jane.req.der");
        let wanted = wanted.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(question.request, wanted);
    }

    #[test]
    fn why_nobody_can_be_asked_is_told() {
        let [jane, staff, rsa] =
            ["jane", "staff", "rsa"].map(|name| file(&format!("{name}.crt.der")));
        let why = |chain: &[&Vec<u8>]| {
            let chain: Vec<_> = chain.iter().copied().cloned().collect();
            Question::about(&chain).unwrap_err()
        };
        assert!(why(&[&jane]).contains("missing from the chain"));
        assert!(why(&[&jane, &rsa]).contains("is not its issuer's"));
        assert!(why(&[&staff, &staff]).contains("names no OCSP responder"));
        assert!(why(&[&jane, &vec![1]]).contains("cannot be read"));
    }

    #[test]
    fn only_who_is_there_for_everybody_over_plain_http_is_asked() {
        for url in ["http://o", "HTTP://o/", "hTTp://o:8080/a?b", "http://[::1]/", "http://o/a@b"] {
            assert!(is_asked(url), "{url}");
        }
        for url in [
            "",
            "http:",
            "http://",
            "http:///a",
            "https://o/",
            "ldap://o/",
            "http://me:pass@o/",
            "http://@o?",
            "ü",
        ] {
            assert!(!is_asked(url), "{url}");
        }
    }

    #[test]
    fn lengths_are_written_as_der_has_them() {
        for (length, head) in
            [(0, &[4, 0][..]), (127, &[4, 127]), (128, &[4, 0x81, 128]), (256, &[4, 0x82, 1, 0])]
        {
            let whole = tlv(4, &vec![7; length]);
            assert_eq!(&whole[..head.len()], head);
            assert_eq!(whole.len(), head.len() + length);
        }
    }
}
