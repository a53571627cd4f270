//! What a client's first words say of the software that it is: its JA4 fingerprint (<https://github.com/FoxIO-LLC/ja4>,
//! `technical_details/JA4.md`).
//!
//! rustls reads the same message and is the one that refuses it, but does not tell which extensions it holds. So it is read
//! here once more, as far as the fingerprint asks: whatever is odd about it costs the fingerprint, never the connection.

use http::HeaderValue;
use ring::digest::{SHA256, digest};

use super::names::hex;

/// RFC 8446, section 4.
const CLIENT_HELLO: u8 = 1;

/// Extensions that are looked into, by IANA's numbers.
const SERVER_NAME: u16 = 0x0000;
const SIGNATURE_ALGORITHMS: u16 = 0x000D;
const PROTOCOLS: u16 = 0x0010;
const SUPPORTED_VERSIONS: u16 = 0x002B;

/// How many bytes of a hash are told.
const HASHED: usize = 6;

/// What of a `ClientHello` the fingerprint is made of. Values that are there to be passed over (GREASE, RFC 8701) are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hello<'a> {
    version: u16,
    suites: Vec<u16>,
    extensions: Vec<u16>,
    signatures: Vec<u16>,
    protocol: Option<&'a [u8]>,
}

/// The fingerprint of a client that opens with this handshake message; what follows the message does not count.
/// `None`: it is no `ClientHello`, or not a whole one.
pub(crate) fn of(message: &[u8]) -> Option<HeaderValue> {
    HeaderValue::try_from(Hello::read(message)?.fingerprint()).ok()
}

// === impl Hello ===

impl<'a> Hello<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut message = Bytes(message);
        if message.number(1)? != usize::from(CLIENT_HELLO) {
            return None;
        }
        let mut body = message.block(3)?;
        let mut hello = Self { version: body.code()?, ..Self::default() };
        let _random = body.take(32)?;
        let _session = body.block(1)?;
        hello.suites = body.block(2)?.codes()?;
        let _compression = body.block(1)?;
        // A client of TLS 1.2 need not have any.
        let mut extensions = if body.0.is_empty() { Bytes::default() } else { body.block(2)? };
        while !extensions.0.is_empty() {
            let kind = extensions.code()?;
            let content = extensions.block(2)?;
            if !is_grease(kind) {
                hello.extensions.push(kind);
                hello.look_into(kind, content)?;
            }
        }
        Some(hello)
    }

    fn look_into(&mut self, kind: u16, mut content: Bytes<'a>) -> Option<()> {
        match kind {
            SIGNATURE_ALGORITHMS => self.signatures = content.block(2)?.codes()?,
            PROTOCOLS => self.protocol = Some(content.block(2)?.block(1)?.0),
            SUPPORTED_VERSIONS => {
                let newest = content.block(1)?.codes()?.into_iter().max();
                self.version = newest.unwrap_or(self.version);
            }
            _ => {}
        }
        Some(())
    }

    fn fingerprint(&self) -> String {
        let version = match self.version {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let named = if self.extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
        let count = |of: &[u16]| of.len().min(99);
        let (suites, extensions) = (count(&self.suites), count(&self.extensions));
        let [first, last] = self.protocol.map_or(['0'; 2], ends);
        format!(
            "t{version}{named}{suites:02}{extensions:02}{first}{last}_{}_{}",
            self.suites_hash(),
            self.extensions_hash()
        )
    }

    fn suites_hash(&self) -> String {
        let mut suites = self.suites.clone();
        suites.sort_unstable();
        hash(&list(&suites))
    }

    /// The name and the protocols are told apart from the rest: they say where the client goes, not what it is.
    fn extensions_hash(&self) -> String {
        let counts = |kind: &u16| ![SERVER_NAME, PROTOCOLS].contains(kind);
        let mut extensions: Vec<u16> = self.extensions.iter().copied().filter(counts).collect();
        extensions.sort_unstable();
        let mut text = list(&extensions);
        if !text.is_empty() && !self.signatures.is_empty() {
            text.push('_');
            text.push_str(&list(&self.signatures));
        }
        hash(&text)
    }
}

/// The first and the last character of a protocol's name; of its hex digits, where either is no letter or digit.
fn ends(protocol: &[u8]) -> [char; 2] {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else { return ['0'; 2] };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [*first, *last].map(char::from);
    }
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 0xF)]
}

/// The first twelve hex digits of a text's SHA-256.
fn hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(2 * HASHED);
    }
    let digest = digest(&SHA256, text.as_bytes());
    hex(digest.as_ref().get(..HASHED).unwrap_or_default())
}

/// Four hex digits each, with commas between.
fn list(codes: &[u16]) -> String {
    codes.iter().map(|code| format!("{code:04x}")).collect::<Vec<_>>().join(",")
}

/// RFC 8701, section 2.
const fn is_grease(code: u16) -> bool {
    let [high, low] = code.to_be_bytes();
    high == low && low & 0xF == 0xA
}

/// What is left to read.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes<'a>(&'a [u8]);

// === impl Bytes ===

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    /// A number of one to three bytes.
    fn number(&mut self, width: usize) -> Option<usize> {
        let bytes = self.take(width)?;
        Some(bytes.iter().fold(0, |number, byte| (number << 8) | usize::from(*byte)))
    }

    /// What a length of so many bytes stands before.
    fn block(&mut self, width: usize) -> Option<Self> {
        let length = self.number(width)?;
        self.take(length).map(Self)
    }

    fn code(&mut self) -> Option<u16> {
        let (code, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*code))
    }

    /// All the codes that are left, without those that are there to be passed over. `None`: half a code is left, too.
    fn codes(mut self) -> Option<Vec<u16>> {
        let mut codes = Vec::with_capacity(self.0.len() / 2);
        while !self.0.is_empty() {
            let code = self.code()?;
            if !is_grease(code) {
                codes.push(code);
            }
        }
        Some(codes)
    }
}

#[cfg(test)]
mod tests;
