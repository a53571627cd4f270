//! What is said to an OCSP responder, and by it (RFC 6960, sections 4.1 and 4.2), in DER.
//!
//! It is only read and written here: nothing in a response is believed before `judge` has looked at it. What a response
//! signs is kept as the bytes that came, since a signature is over bytes.

use std::time::Duration;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, Null, ObjectIdentifier};
use der::{Decode, Encode, ErrorKind, Reader, SliceReader, Tag, TagNumber, Tagged};

/// The digest by which certificates are named: the one that every responder knows. It guards nothing.
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// The only kind of response that there is (section 4.2.1, `id-pkix-ocsp-basic`).
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// `responseStatus` of a response that says something.
const SUCCESSFUL: &[u8] = &[0];

/// A certificate as responders name it: digests of its issuer's name and key, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateId {
    pub(super) name_hash: [u8; 20],
    pub(super) key_hash: [u8; 20],
    /// An INTEGER's content.
    pub(super) serial: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(super) struct Response<'a> {
    /// What the signature is over.
    pub(super) signed: &'a [u8],
    /// Content of an `AlgorithmIdentifier`.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    /// Of who may have signed it.
    pub(super) certificates: Vec<&'a [u8]>,
    pub(super) answers: Vec<Answer>,
}

/// What is said of one certificate.
#[derive(Debug)]
pub(super) struct Answer {
    /// None: it is named in another way than it was asked about.
    pub(super) id: Option<CertificateId>,
    pub(super) status: Status,
    /// Seconds since 1970.
    pub(super) this_update: u64,
    pub(super) next_update: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Good,
    Revoked,
    Unknown,
}

/// Why a response cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it is not an OCSP response")]
    Der(#[from] der::Error),
    /// `tryLater`, `unauthorized` and the like.
    #[error("the responder refuses, with its status {0:?}")]
    Refused(Vec<u8>),
    #[error("it is of an unknown kind")]
    Kind,
    #[error("it has an extension that must be understood, and is not")]
    Critical,
}

// === impl CertificateId ===

impl CertificateId {
    /// The whole request about this certificate.
    pub(super) fn request(&self) -> der::Result<Vec<u8>> {
        let digest = sequence(&[SHA1.to_der()?, Null.to_der()?])?;
        let octets = |bytes| AnyRef::new(Tag::OctetString, bytes)?.to_der();
        let serial = AnyRef::new(Tag::Integer, &self.serial)?.to_der()?;
        let id = sequence(&[digest, octets(&self.name_hash)?, octets(&self.key_hash)?, serial])?;
        // OCSPRequest, TBSRequest, requestList, Request.
        (0..4).try_fold(id, |inner, _| sequence(&[inner]))
    }

    fn read(field: AnyRef<'_>) -> der::Result<Option<Self>> {
        field.sequence(|fields| {
            let digest: AnyRef<'_> = fields.decode()?;
            let digest = digest.sequence(|fields| {
                let digest: ObjectIdentifier = fields.decode()?;
                let parameters: Option<AnyRef<'_>> = fields.decode()?;
                Ok::<_, der::Error>(digest == SHA1 && parameters.is_none_or(AnyRef::is_null))
            })?;
            let [name, key] =
                [expected(fields, Tag::OctetString)?, expected(fields, Tag::OctetString)?];
            let serial = expected(fields, Tag::Integer)?.to_vec();
            let hashes = name.try_into().ok().zip(key.try_into().ok()).filter(|_| digest);
            Ok(hashes.map(|(name_hash, key_hash)| Self { name_hash, key_hash, serial }))
        })
    }
}

fn sequence(fields: &[Vec<u8>]) -> der::Result<Vec<u8>> {
    AnyRef::new(Tag::Sequence, &fields.concat())?.to_der()
}

// === impl Response ===

impl<'a> Response<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let (status, inner) = AnyRef::from_der(bytes)?.sequence(|fields| {
            let status = expected(fields, Tag::Enumerated)?;
            Ok::<_, der::Error>((status, explicit(fields, 0)?))
        })?;
        if status != SUCCESSFUL {
            return Err(Unreadable::Refused(status.to_vec()));
        }
        let inner = inner.ok_or(Unreadable::Kind)?;
        let (kind, basic) = AnyRef::from_der(inner)?.sequence(|fields| {
            let kind: ObjectIdentifier = fields.decode()?;
            Ok::<_, der::Error>((kind, expected(fields, Tag::OctetString)?))
        })?;
        if kind != BASIC {
            return Err(Unreadable::Kind);
        }
        AnyRef::from_der(basic)?.sequence(|fields| {
            let signed = fields.tlv_bytes()?;
            let algorithm = expected(fields, Tag::Sequence)?;
            let signature: BitStringRef<'_> = fields.decode()?;
            let signature = signature.as_bytes().ok_or_else(|| unexpected(Tag::BitString))?;
            let certificates = match explicit(fields, 0)? {
                Some(list) => each(AnyRef::from_der(list)?, Reader::tlv_bytes)?,
                None => Vec::new(),
            };
            let answers = answers(signed)?;
            Ok(Self { signed, algorithm, signature, certificates, answers })
        })
    }
}

/// `ResponseData`.
fn answers(signed: &[u8]) -> Result<Vec<Answer>, Unreadable> {
    AnyRef::from_der(signed)?.sequence(|fields| {
        if let Some(version) = explicit(fields, 0)?
            && u8::from_der(version)? != 0
        {
            return Err(Unreadable::Kind);
        }
        // Who it says it is; its signature tells who it is.
        fields.tlv_bytes()?;
        let _produced_at: GeneralizedTime = fields.decode()?;
        let list: AnyRef<'_> = fields.decode()?;
        let answers = each(list, Answer::read)?;
        understood(explicit(fields, 1)?)?;
        Ok(answers)
    })
}

// === impl Answer ===

impl Answer {
    fn read(fields: &mut SliceReader<'_>) -> Result<Self, Unreadable> {
        let whole: AnyRef<'_> = fields.decode()?;
        whole.sequence(|fields| {
            let id = CertificateId::read(fields.decode()?)?;
            let status: AnyRef<'_> = fields.decode()?;
            let status = match status.tag() {
                Tag::ContextSpecific { constructed: false, number: TagNumber(0) } => Status::Good,
                Tag::ContextSpecific { constructed: true, number: TagNumber(1) } => Status::Revoked,
                Tag::ContextSpecific { constructed: false, number: TagNumber(2) } => {
                    Status::Unknown
                }
                other => return Err(unexpected(other).into()),
            };
            let this_update = seconds(fields.decode()?);
            let next_update = explicit(fields, 0)?.map(GeneralizedTime::from_der).transpose()?;
            understood(explicit(fields, 1)?)?;
            Ok(Self { id, status, this_update, next_update: next_update.map(seconds) })
        })
    }
}

fn seconds(time: GeneralizedTime) -> u64 {
    let since: Duration = time.to_unix_duration();
    since.as_secs()
}

/// Refuses extensions that change what is said in a way that is not known here.
fn understood(extensions: Option<&[u8]>) -> Result<(), Unreadable> {
    let Some(extensions) = extensions else { return Ok(()) };
    let critical = each(AnyRef::from_der(extensions)?, |fields| {
        let extension: AnyRef<'_> = fields.decode()?;
        extension.sequence(|fields| {
            let _what: ObjectIdentifier = fields.decode()?;
            let critical: Option<bool> = fields.decode()?;
            expected(fields, Tag::OctetString)?;
            Ok::<_, der::Error>(critical == Some(true))
        })
    })?;
    if critical.contains(&true) { Err(Unreadable::Critical) } else { Ok(()) }
}

/// Reads the members of a `SEQUENCE OF`.
fn each<'a, T, E: From<der::Error>>(
    list: AnyRef<'a>,
    mut read: impl FnMut(&mut SliceReader<'a>) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    list.sequence(|members| {
        let mut all = Vec::new();
        while !members.is_finished() {
            all.push(read(members)?);
        }
        Ok(all)
    })
}

/// The content of the next field, which must have this tag.
fn expected<'a>(fields: &mut SliceReader<'a>, tag: Tag) -> der::Result<&'a [u8]> {
    let field: AnyRef<'a> = fields.decode()?;
    field.tag().assert_eq(tag)?;
    Ok(field.value())
}

/// What an explicit tag is about, if that is the next one.
fn explicit<'a>(fields: &mut SliceReader<'a>, number: u32) -> der::Result<Option<&'a [u8]>> {
    let wanted = Tag::ContextSpecific { constructed: true, number: TagNumber(number) };
    if fields.is_finished() || Tag::peek(fields)? != wanted {
        return Ok(None);
    }
    expected(fields, wanted).map(Some)
}

fn unexpected(tag: Tag) -> der::Error {
    ErrorKind::Value { tag }.into()
}
