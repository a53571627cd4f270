//! Names and time of a client's certificate, whose chain was verified when its session began. Decides nothing.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The names by which a certificate can be meant, and whether it is good today.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Names of hosts, which have no case.
    hosts: Vec<String>,
    /// URIs, mail addresses and the common name.
    others: Vec<String>,
    /// Its time has begun and is not over.
    pub(crate) in_time: bool,
}

// === impl Names ===

impl Names {
    /// Of a certificate in DER; none of one that cannot be read.
    pub(crate) fn of(der: &[u8]) -> Self {
        let mut names = Self::default();
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return names };
        names.in_time = certificate.validity().is_valid();
        let common = certificate.subject().iter_common_name();
        names.others.extend(common.filter_map(|name| name.as_str().ok()).map(str::to_owned));
        if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
            for name in &alternatives.value.general_names {
                match name {
                    GeneralName::DNSName(host) => names.hosts.push((*host).to_owned()),
                    GeneralName::URI(other) | GeneralName::RFC822Name(other) => {
                        names.others.push((*other).to_owned());
                    }
                    _ => {}
                }
            }
        }
        names
    }

    /// Whether it is one of them.
    pub(crate) fn has(&self, name: &str) -> bool {
        let is_host = self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
        is_host || self.others.iter().any(|other| other == name)
    }

    /// All of them, for a person.
    pub(crate) fn told(&self) -> String {
        let all: Vec<_> = self.others.iter().chain(&self.hosts).map(String::as_str).collect();
        if all.is_empty() { "(without a name)".to_owned() } else { all.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_is_meant_by_any_of_its_names_and_by_no_part_of_one() {
        let mut params = CertificateParams::new(vec!["Ci.example.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Deploy");
        let uri = "spiffe://example.test/ci".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = Names::of(made.der());
        assert!(names.in_time);
        for name in ["ci.example.test", "Deploy", "spiffe://example.test/ci"] {
            assert!(names.has(name), "{name}");
        }
        for name in ["", "deploy", "example.test", "*.example.test", "spiffe://example.test/CI"] {
            assert!(!names.has(name), "{name}");
        }
        assert_eq!(Names::of(b"none"), Names::default());
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let over = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(!Names::of(over.der()).in_time && !Names::default().in_time);
        assert_eq!(Names::default().told(), "(without a name)");
    }
}
