//! Certificates and keys: PFX data, PEM files, trusted roots. Reads files, decides nothing about the gateway; what
//! it returns is known to fit together. Neither key nor password ever gets into an error.

use std::path::Path;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use p12_keystore::Pkcs12Archive;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Larger than any chain; a device or a log file named by mistake must not be read whole.
const FILE_LIMIT: u64 = 1024 * 1024;

/// What errors call it.
const PFX: &str = "the PFX data";

/// Real data comes with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A chain, leaf first, and the key that fits it.
#[derive(Clone, PartialEq)]
pub(super) struct Identity {
    pub(super) chain_der: Vec<Vec<u8>>,
    pub(super) key_der: Vec<u8>,
    /// The leaf's dates, when today is outside of them.
    pub(super) out_of_date: Option<String>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("the data is not base64")]
    NotBase64,
    #[error("the password does not open the PFX data")]
    WrongPassword,
    #[error("the data is not a PFX archive that can be read ({0})")]
    NotPfx(String),
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{0} holds no certificate that can be read")]
    NoCertificate(String),
    #[error("{0} holds no private key that can be read")]
    NoKey(String),
    #[error("the private key is of a kind that is not supported")]
    UnsupportedKey,
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

// === impl CertificateError ===

impl CertificateError {
    /// What to do about it.
    pub(super) fn mend(&self) -> &'static str {
        match self {
            Self::NotBase64 | Self::NotPfx(_) => {
                "write the output of: openssl pkcs12 -export -inkey KEY -in CHAIN | base64 -w0"
            }
            Self::WrongPassword => "correct the password",
            Self::Unreadable { .. } => {
                "correct the path (it starts at the document's directory) or its permissions"
            }
            Self::NoCertificate(_) => {
                "give a PEM or DER certificate, in PEM files the leaf with its intermediates"
            }
            Self::NoKey(from) if from == PFX => {
                "export it with its key: openssl pkcs12 -export -inkey KEY -in CHAIN | base64 -w0"
            }
            Self::NoKey(_) => "give the PEM private key without a passphrase",
            Self::UnsupportedKey => {
                "use an RSA key of 2048 to 4096 bits, an EC key on P-256 or P-384, or Ed25519"
            }
            Self::Mismatch => "give the key and the certificate that were made for each other",
        }
    }
}

/// Base64 with any white space in it.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, CertificateError> {
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64.decode(compact).map_err(|_| CertificateError::NotBase64)
}

/// A chain and key from PFX data in base64.
pub(super) fn from_pfx(data: &str, password: &str) -> Result<Identity, CertificateError> {
    use p12_keystore::error::Error;
    let archive = Pkcs12Archive::from_pkcs12(&decode(data)?, password).map_err(|e| match e {
        // Without a MAC a wrong password shows only as garbage inside.
        Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) => {
            CertificateError::WrongPassword
        }
        other => CertificateError::NotPfx(other.to_string()),
    })?;
    let key = archive.keys.first().ok_or_else(|| CertificateError::NoKey(PFX.into()))?;
    let certificates: Vec<_> = archive.certs.iter().map(|c| c.cert.as_der().to_vec()).collect();
    fit(&certificates, key.key.as_der().to_vec(), PFX)
}

/// A chain and key from two PEM files.
pub(super) fn from_files(certificate: &Path, key: &Path) -> Result<Identity, CertificateError> {
    let path = certificate.display().to_string();
    let pem = read(certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|_| CertificateError::NoCertificate(path.clone()))?;
    let key_path = key.display().to_string();
    let key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| CertificateError::NoKey(key_path.clone()))?;
    let key = match key {
        PrivateKeyDer::Pkcs8(der) => der.secret_pkcs8_der().to_vec(),
        PrivateKeyDer::Pkcs1(der) => pkcs8(RSA, der.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(der) => [P256, P384]
            .map(|algorithm| pkcs8(algorithm, der.secret_sec1_der()))
            .into_iter()
            .find(|key| public_key(key).is_some())
            .ok_or(CertificateError::UnsupportedKey)?,
        _ => return Err(CertificateError::UnsupportedKey),
    };
    let chain: Vec<_> = chain.iter().map(|der| der.to_vec()).collect();
    fit(&chain, key, &path)
}

/// Bytes of base64 of DER or PEM, or of PEM as it is.
pub(super) fn pem_or_der(data: &str) -> Result<Vec<u8>, CertificateError> {
    if data.contains("-----BEGIN") { Ok(data.as_bytes().to_vec()) } else { decode(data) }
}

/// A root for backends, from base64 of DER or PEM, or from PEM as it is.
pub(super) fn root(data: &str) -> Result<Vec<u8>, CertificateError> {
    let bytes = pem_or_der(data)?;
    let der = match CertificateDer::from_pem_slice(&bytes) {
        Ok(der) => der.to_vec(),
        Err(_) => bytes,
    };
    match X509Certificate::from_der(&der) {
        Ok(_) => Ok(der),
        Err(_) => Err(CertificateError::NoCertificate("the data".to_owned())),
    }
}

/// A file's contents, if it is one.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    use std::io::Read;
    let unreadable =
        |source| CertificateError::Unreadable { path: path.display().to_string(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        // Opening a pipe would wait for its writer.
        return Err(unreadable(std::io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_LIMIT {
        // Cut, it would lack certificates that nobody misses.
        return Err(unreadable(std::io::Error::other(format!(
            "it has more than {FILE_LIMIT} bytes"
        ))));
    }
    Ok(bytes)
}

/// Finds the leaf that the key belongs to and puts its issuers behind it.
fn fit(pool: &[Vec<u8>], key: Vec<u8>, from: &str) -> Result<Identity, CertificateError> {
    let public = public_key(&key).ok_or(CertificateError::UnsupportedKey)?;
    let parsed: Vec<(X509Certificate<'_>, &Vec<u8>)> =
        pool.iter().filter_map(|der| Some((X509Certificate::from_der(der).ok()?.1, der))).collect();
    if parsed.is_empty() {
        return Err(CertificateError::NoCertificate(from.to_owned()));
    }
    let leaf = parsed
        .iter()
        .find(|(c, _)| c.public_key().subject_public_key.data.as_ref() == public.as_slice())
        .ok_or(CertificateError::Mismatch)?;
    let mut chain = vec![leaf];
    let mut last = leaf;
    while let Some(issuer) = parsed.iter().find(|(c, der)| {
        c.subject() == last.0.issuer() && !chain.iter().any(|(_, known)| known == der)
    }) {
        chain.push(issuer);
        last = issuer;
    }
    let validity = leaf.0.validity();
    let out_of_date = (!validity.is_valid())
        .then(|| format!("{} to {}", validity.not_before, validity.not_after));
    let chain_der = chain.iter().map(|(_, der)| (*der).clone()).collect();
    Ok(Identity { chain_der, key_der: key, out_of_date })
}

/// The end of a certificate's time, in seconds of Unix time.
pub(super) fn expires(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Whether a PKCS#8 key is RSA's.
pub(super) fn is_rsa(pkcs8: &[u8]) -> bool {
    RsaKeyPair::from_pkcs8(pkcs8).is_ok()
}

/// The public half of a PKCS#8 key, as certificates hold it, when the key is of a supported kind.
fn public_key(pkcs8: &[u8]) -> Option<Vec<u8>> {
    if let Ok(key) = RsaKeyPair::from_pkcs8(pkcs8) {
        return Some(key.public_key().as_ref().to_vec());
    }
    let random = SystemRandom::new();
    for algorithm in
        [&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_ASN1_SIGNING]
    {
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random) {
            return Some(key.public_key().as_ref().to_vec());
        }
    }
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
    Some(key.public_key().as_ref().to_vec())
}

/// Algorithm identifiers in DER: rsaEncryption with NULL; id-ecPublicKey with prime256v1, secp384r1.
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";

/// Wraps a PKCS#1 or SEC 1 key as PKCS#8 (RFC 5208 section 5).
fn pkcs8(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let mut body = b"\x02\x01\x00".to_vec();
    body.extend(der(0x30, algorithm));
    body.extend(der(0x04, key));
    der(0x30, &body)
}

/// One DER element (X.690 section 8.1).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = vec![tag];
    let length = content.len().to_be_bytes();
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => element.push(short),
        _ => {
            let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            element.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            element.extend(significant);
        }
    }
    element.extend_from_slice(content);
    element
}
