//! What a chain of authorities for clients' certificates holds. It is public; a private key in it is a mistake that
//! somebody must hear of, and never gets into an error's text.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The authorities of one entry.
#[derive(Debug, PartialEq)]
pub(in crate::config::read) struct Found {
    pub(in crate::config::read) roots: Vec<Vec<u8>>,
    pub(in crate::config::read) intermediates: Vec<Vec<u8>>,
    /// Name, in DER, of the authority at the end of the longest chain; of two the first.
    pub(super) issuer: Vec<u8>,
    /// Certificates of no authority.
    pub(super) ignored: usize,
}

/// Why an entry cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(in crate::config::read) enum AuthorityError {
    #[error("a private key stands among the certificates")]
    PrivateKey,
    #[error("there is no certificate that can be read")]
    NoCertificate,
    #[error(
        "one of the certificates is self-signed, but may sign no others (no CA in its basicConstraints)"
    )]
    NotAnAuthority,
    #[error("there is no root: no certificate is signed by itself")]
    NoRoot,
}

// === impl AuthorityError ===

impl AuthorityError {
    pub(in crate::config::read) fn mend(&self) -> &'static str {
        match self {
            Self::PrivateKey => {
                "take the key out, and make another one where it was seen by others"
            }
            Self::NoCertificate => "give certificates in PEM, or one in DER",
            Self::NotAnAuthority | Self::NoRoot => {
                "give the root that has signed the clients' certificates, and the authorities below it"
            }
        }
    }
}

/// Reads PEM or DER.
pub(in crate::config::read) fn read(bytes: &[u8]) -> Result<Found, AuthorityError> {
    let pem = bytes.windows(10).any(|window| window == b"-----BEGIN");
    if bytes.windows(16).any(|window| window == b"PRIVATE KEY-----") {
        return Err(AuthorityError::PrivateKey);
    }
    let list: Vec<Vec<u8>> = if pem {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        read.map_err(|_| AuthorityError::NoCertificate)?.iter().map(|der| der.to_vec()).collect()
    } else {
        vec![bytes.to_vec()]
    };
    let parsed: Result<Vec<_>, _> =
        list.iter().map(|der| X509Certificate::from_der(der).map(|(_, parsed)| parsed)).collect();
    let parsed = parsed.map_err(|_| AuthorityError::NoCertificate)?;
    if parsed.is_empty() {
        return Err(AuthorityError::NoCertificate);
    }
    let own = |it: &X509Certificate<'_>| it.subject() == it.issuer();
    if parsed.iter().any(|it| own(it) && !it.is_ca()) {
        return Err(AuthorityError::NotAnAuthority);
    }
    let of = |wanted: &dyn Fn(&X509Certificate<'_>) -> bool| -> Vec<Vec<u8>> {
        let pairs = parsed.iter().zip(&list);
        pairs.filter(|(it, _)| wanted(it)).map(|(_, der)| der.clone()).collect()
    };
    let roots = of(&|it| own(it));
    if roots.is_empty() {
        return Err(AuthorityError::NoRoot);
    }
    let intermediates = of(&|it| !own(it) && it.is_ca());
    let ignored = list.len() - roots.len() - intermediates.len();
    let issuer = deepest(&parsed).unwrap_or_default();
    Ok(Found { roots, intermediates, issuer, ignored })
}

/// Subject of the authority that is furthest from its root.
fn deepest(parsed: &[X509Certificate<'_>]) -> Option<Vec<u8>> {
    let authorities = || parsed.iter().filter(|it| it.is_ca());
    let depth = |from: &X509Certificate<'_>| {
        let mut at = from;
        // Two that have signed each other lead nowhere.
        for depth in 0..parsed.len() {
            if at.subject() == at.issuer() {
                return Some(depth);
            }
            at = authorities().find(|it| it.subject() == at.issuer())?;
        }
        None
    };
    let mut best: Option<(usize, &X509Certificate<'_>)> = None;
    for authority in authorities() {
        let Some(depth) = depth(authority) else { continue };
        if best.is_none_or(|(most, _)| depth > most) {
            best = Some((depth, authority));
        }
    }
    best.map(|(_, it)| it.subject().as_raw().to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    fn params(name: &str, ca: bool) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn chain() -> (Issuer, Issuer, rcgen::Certificate) {
        let root = CertifiedIssuer::self_signed(params("root", true), KeyPair::generate().unwrap())
            .unwrap();
        let middle =
            CertifiedIssuer::signed_by(params("middle", true), KeyPair::generate().unwrap(), &root)
                .unwrap();
        let leaf = params("leaf", false).signed_by(&KeyPair::generate().unwrap(), &middle).unwrap();
        (root, middle, leaf)
    }

    #[test]
    fn roots_and_those_below_are_told_apart_and_a_leaf_is_passed_over() {
        let (root, middle, leaf) = chain();
        let text = [leaf.pem(), middle.pem(), root.pem()].concat();
        let found = read(text.as_bytes()).unwrap();
        assert_eq!(found.roots, [root.der().to_vec()]);
        assert_eq!(found.intermediates, [middle.der().to_vec()]);
        assert_eq!(found.ignored, 1);
        let (_, parsed) = X509Certificate::from_der(middle.der()).unwrap();
        assert_eq!(found.issuer, parsed.subject().as_raw());
    }

    #[test]
    fn one_root_in_der_is_enough_and_issues_itself() {
        let (root, ..) = chain();
        let found = read(root.der()).unwrap();
        let (_, parsed) = X509Certificate::from_der(root.der()).unwrap();
        assert_eq!(found.issuer, parsed.subject().as_raw());
        assert!(found.intermediates.is_empty());
    }

    #[test]
    fn what_vouches_for_nobody_is_refused() {
        let (root, middle, _) = chain();
        let key = KeyPair::generate().unwrap();
        let alone = params("alone", false).self_signed(&key).unwrap();
        assert_eq!(read(alone.pem().as_bytes()), Err(AuthorityError::NotAnAuthority));
        assert_eq!(read(middle.pem().as_bytes()), Err(AuthorityError::NoRoot));
        assert_eq!(read(b"nothing"), Err(AuthorityError::NoCertificate));
        assert_eq!(read(b""), Err(AuthorityError::NoCertificate));
        let secret = [root.pem(), key.serialize_pem()].concat();
        assert_eq!(read(secret.as_bytes()), Err(AuthorityError::PrivateKey));
        let broken = root.pem().replace("MII", "!!!");
        assert_eq!(read(broken.as_bytes()), Err(AuthorityError::NoCertificate));
    }
}
