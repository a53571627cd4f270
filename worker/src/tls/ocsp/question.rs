//! What is asked about a client's certificate, and whom: made of a certificate whose chain was verified just now.
//!
//! The responder's address is the certificate's own word. It is read of no certificate that a trusted authority has
//! not signed, so nobody but an authority decides whom this process talks to.

use std::net::IpAddr;

use der::Decode;
use der::asn1::{AnyRef, BitStringRef};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use ring::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use sha1::{Digest as _, Sha1};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::message::CertificateId;
use super::{Algorithms, NO_RESPONDER, UNCLEAR};

/// Responders of one certificate that are asked. Hardly any has more than one.
const MOST_RESPONDERS: usize = 2;
/// Longest address of one.
const LONGEST: usize = 2048;

/// Names what is asked among all that was asked: a digest of the issuer and the number.
pub(crate) type Subject = [u8; 32];

/// What is asked about one certificate.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) subject: Subject,
    pub(super) id: CertificateId,
    /// Who issued it: may answer, or name who may.
    pub(super) issuer: TrustAnchor<'static>,
    pub(super) issuer_key: SubjectPublicKeyInfoDer<'static>,
    /// One or several.
    pub(crate) responders: Vec<Responder>,
    pub(super) algorithms: Algorithms,
}

/// Where a question is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Responder {
    pub(crate) host: String,
    /// When it needs no lookup.
    pub(crate) literal: Option<IpAddr>,
    pub(crate) port: u16,
    /// For the Host header.
    pub(crate) authority: HeaderValue,
    pub(crate) target: PathAndQuery,
}

// === impl Question ===

impl Question {
    /// About a client's own certificate. `Err` is why it can never be answered.
    ///
    /// The chain is verified once more, since only that tells which of several authorities is the issuer: one that
    /// the client shows itself must not vouch for it.
    pub(crate) fn about(
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        anchors: &[TrustAnchor<'_>],
        algorithms: Algorithms,
        now: UnixTime,
    ) -> Result<Self, &'static str> {
        let parsed = EndEntityCert::try_from(own).map_err(|_| UNCLEAR)?;
        let usage = KeyUsage::client_auth();
        let path = parsed.verify_for_usage(algorithms, anchors, others, now, usage, None, None);
        let issuer_key = path.map_err(|_| UNCLEAR)?.issuer_spki();
        let (_, own) = X509Certificate::from_der(own).map_err(|_| UNCLEAR)?;
        let responders = responders(&own);
        if responders.is_empty() {
            return Err(NO_RESPONDER);
        }
        let (name, serial) = (own.issuer().as_raw(), own.raw_serial());
        let issuer = anchor(name, &issuer_key).ok_or(UNCLEAR)?;
        let id = CertificateId {
            name_hash: Sha1::digest(name).into(),
            key_hash: Sha1::digest(bits(&issuer_key).ok_or(UNCLEAR)?).into(),
            serial: serial.to_vec(),
        };
        let issuer_key = SubjectPublicKeyInfoDer::from(issuer_key.to_vec());
        let subject = subject(&[name, &issuer_key, serial]);
        Ok(Self { subject, id, issuer, issuer_key, responders, algorithms })
    }

    /// About the first certificate of a chain of the gateway's own, which the second one has issued. It has been asked
    /// already: there is only an answer to look at.
    pub(crate) fn about_own(chain: &[CertificateDer<'_>], algorithms: Algorithms) -> Option<Self> {
        let [own, issuer, ..] = chain else { return None };
        let (_, own) = X509Certificate::from_der(own).ok()?;
        let (_, issuer) = X509Certificate::from_der(issuer).ok()?;
        let (name, key, serial) =
            (own.issuer().as_raw(), issuer.public_key().raw, own.raw_serial());
        let id = CertificateId {
            name_hash: Sha1::digest(name).into(),
            key_hash: Sha1::digest(bits(key)?).into(),
            serial: serial.to_vec(),
        };
        Some(Self {
            subject: subject(&[name, key, serial]),
            id,
            issuer: anchor(name, key)?,
            issuer_key: SubjectPublicKeyInfoDer::from(key.to_vec()),
            responders: Vec::new(),
            algorithms,
        })
    }

    /// As it goes over the wire.
    pub(crate) fn request(&self) -> der::Result<Vec<u8>> {
        self.id.request()
    }
}

/// The issuer as webpki takes one, whose fields have no tags of their own.
fn anchor(name: &[u8], key: &[u8]) -> Option<TrustAnchor<'static>> {
    let content = |der| AnyRef::from_der(der).ok().map(|any| any.value().to_vec().into());
    let (subject, subject_public_key_info) = content(name).zip(content(key))?;
    Some(TrustAnchor { subject, subject_public_key_info, name_constraints: None })
}

/// The key itself, of all that is said of it.
fn bits(key: &[u8]) -> Option<&[u8]> {
    let key = AnyRef::from_der(key).ok()?.sequence(|fields| {
        let _algorithm: AnyRef<'_> = der::Reader::decode(fields)?;
        der::Reader::decode::<BitStringRef<'_>>(fields)
    });
    key.ok()?.as_bytes()
}

fn subject(parts: &[&[u8]]) -> Subject {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut subject = Subject::default();
    for (place, byte) in subject.iter_mut().zip(context.finish().as_ref()) {
        *place = *byte;
    }
    subject
}

/// Those that can be asked, in the certificate's order.
fn responders(own: &X509Certificate<'_>) -> Vec<Responder> {
    let named = own.extensions().iter().filter_map(|it| match it.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => Some(&access.accessdescs),
        _ => None,
    });
    let named = named.flatten().filter(|it| it.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP);
    let addresses = named.filter_map(|it| match it.access_location {
        GeneralName::URI(address) => Responder::at(address),
        _ => None,
    });
    addresses.take(MOST_RESPONDERS).collect()
}

// === impl Responder ===

impl Responder {
    /// Only plain HTTP: what a responder says is signed, and its own certificate might need a responder.
    fn at(address: &str) -> Option<Self> {
        let uri: Uri = Some(address).filter(|it| it.len() <= LONGEST)?.parse().ok()?;
        let authority = uri.authority().filter(|it| !it.as_str().contains('@'))?;
        if uri.scheme() != Some(&Scheme::HTTP) || authority.host().is_empty() {
            return None;
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        Some(Self {
            host: host.to_owned(),
            literal: bare.unwrap_or(host).parse().ok(),
            port: match authority.as_str().strip_prefix(host)? {
                "" => 80,
                port => port.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?,
            },
            authority: HeaderValue::from_str(authority.as_str()).ok()?,
            target: uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        })
    }

    /// Who it is, whatever it is asked about.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.host.to_ascii_lowercase(), self.port)
    }

    /// For people.
    pub(crate) fn label(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.target)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_address_is_one_over_plain_http_or_none() {
        let found = Responder::at("http://ocsp.test").unwrap();
        assert_eq!(
            (found.host.as_str(), found.port, found.target.as_str()),
            ("ocsp.test", 80, "/")
        );
        let found = Responder::at("http://[::1]:8080/a/b?c").unwrap();
        assert_eq!((found.port, found.target.as_str()), (8080, "/a/b?c"));
        assert_eq!(found.literal, Some("::1".parse().unwrap()));
        assert_eq!(found.authority, "[::1]:8080");
        for odd in [
            "",
            "ocsp.test",
            "/only/a/path",
            "https://ocsp.test/",
            "ldap://ocsp.test/",
            "file:///etc/passwd",
            "http://",
            "http://user:secret@ocsp.test/",
            "http://ocsp.test:0/",
            "http://ocsp.test:65536/",
            "http://ocsp.test:x/",
            "http://ocsp.test/a b\r\nX-Evil: 1",
        ] {
            assert_eq!(Responder::at(odd), None, "{odd}");
        }
        assert_eq!(Responder::at(&format!("http://ocsp.test/{}", "a".repeat(LONGEST))), None);
    }
}
