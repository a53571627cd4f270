//! Functions that write a text in another alphabet, and those that make names out of other texts. Azure does not say how it
//! makes the latter: ours are as stable, but others, and the result of an import tells where one of them is left.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{Arguments, Function, plain_text};
use crate::config::import::context::{Context, Fault};
use crate::config::import::item::{Item, Value};

type Answer = Result<Value, Fault>;

pub(super) const TABLE: &[(&str, Function)] = &[
    ("base64", |a, _| Ok(Value::text(&STANDARD.encode(a.text(0)?)))),
    ("base64tostring", |a, _| Ok(Value::text(&decoded(a)?))),
    ("base64tojson", |a, context| {
        let text = [Item::text(&decoded(a)?)];
        super::call("json", &text, context)
    }),
    ("uri", uri),
    ("uricomponent", |a, _| Ok(Value::text(&escaped(&a.text(0)?)))),
    ("uricomponenttostring", unescaped),
    ("uniquestring", unique_string),
    ("guid", guid),
];

/// Digits of `uniqueString`: as many and of the same kind as Azure's.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const UNIQUE_LENGTH: usize = 13;

fn decoded(arguments: &Arguments<'_>) -> Result<String, Fault> {
    let bytes = STANDARD.decode(arguments.text(0)?.trim()).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Fault::new("the text is not base64 of a text", "give base64 of UTF-8"))
}

/// What is relative to a base: behind it when it ends in a slash, else in its last segment's place.
fn uri(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let (base, relative) = (arguments.text(0)?, arguments.text(1)?);
    let rest = base.find("://").map_or(0, |at| at + 3);
    let head = match base.get(rest..).and_then(|after| after.rfind('/')) {
        Some(slash) => base.get(..=rest + slash).unwrap_or(&base).to_owned(),
        None => format!("{base}/"),
    };
    Ok(Value::text(&format!("{head}{}", relative.trim_start_matches('/'))))
}

fn escaped(text: &str) -> String {
    let mut made = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            made.push(char::from(byte));
        } else {
            made.extend(["%", &format!("{byte:02X}")]);
        }
    }
    made
}

fn unescaped(arguments: &Arguments<'_>, _: &Context<'_>) -> Answer {
    let text = arguments.text(0)?;
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => {
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                }
                _ => return Err(Fault::new("a % has no two digits behind it", "write %25")),
            }
        } else {
            bytes.push(byte);
        }
    }
    Ok(Value::text(&String::from_utf8_lossy(&bytes)))
}

/// The caller's value for all of a function's results, where it has one.
fn given(context: &Context<'_>, name: &str) -> Option<Value> {
    context.given.any(name).map(|item| item.value)
}

fn digest(arguments: &Arguments<'_>, context: &Context<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for item in arguments.all() {
        // A hole's number depends on what was asked before it; its name does not.
        hash.update(context.shown(&plain_text(item).unwrap_or_default()));
        hash.update([0]);
    }
    hash.finalize().into()
}

#[expect(clippy::unnecessary_wraps, reason = "one of many functions, most of which can fail")]
fn unique_string(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    if let Some(given) = given(context, "uniqueString") {
        return Ok(given);
    }
    let bytes = digest(arguments, context);
    let letters = bytes
        .iter()
        .take(UNIQUE_LENGTH)
        .map(|byte| char::from(ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or(b'a')));
    let made: String = letters.collect();
    context.makes(&made);
    Ok(Value::text(&made))
}

#[expect(clippy::unnecessary_wraps, reason = "one of many functions, most of which can fail")]
fn guid(arguments: &Arguments<'_>, context: &Context<'_>) -> Answer {
    if let Some(given) = given(context, "guid") {
        return Ok(given);
    }
    let hex: Vec<String> =
        digest(arguments, context).iter().map(|byte| format!("{byte:02x}")).collect();
    let hex = hex.concat();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    // RFC 4122 section 4.3: version 5, variant 10.
    let made = [
        part(0, 8),
        part(8, 12),
        format!("5{}", part(13, 16)),
        format!("8{}", part(17, 20)),
        part(20, 32),
    ]
    .join("-");
    context.makes(&made);
    Ok(Value::text(&made))
}
