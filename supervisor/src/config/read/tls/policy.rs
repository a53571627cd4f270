//! TLS policies: Azure's names and what they mean, and what of that can be offered. Only TLS 1.2 and 1.3 are, with
//! ephemeral keys and authenticated ciphers: what a policy asks for beyond that is left out with a warning, and one
//! of which nothing is left is refused. Nothing is ever offered that a policy does not ask for.

use crate::config::gateway::{Suite, SuiteNeeds, TlsPolicy};
use crate::config::json::Value;
use crate::config::report::{Place, Report};
use crate::config::shape::{Placed, Shape};
use crate::config::spelling;

/// Everything that can be offered, best first.
const OFFERED: [Suite; 9] = [
    suite("TLS_AES_256_GCM_SHA384", 0x1302, SuiteNeeds::Tls13),
    suite("TLS_AES_128_GCM_SHA256", 0x1301, SuiteNeeds::Tls13),
    suite("TLS_CHACHA20_POLY1305_SHA256", 0x1303, SuiteNeeds::Tls13),
    suite("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xC02C, SuiteNeeds::Ecdsa),
    suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xC02B, SuiteNeeds::Ecdsa),
    suite("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xCCA9, SuiteNeeds::Ecdsa),
    suite("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xC030, SuiteNeeds::Rsa),
    suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xC02F, SuiteNeeds::Rsa),
    suite("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xCCA8, SuiteNeeds::Rsa),
];

/// Those that Azure's policies hold, in the order in which they are chosen: its own is not published.
const AZURES: [&str; 6] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
];

/// What else may stand in Azure's `cipherSuites`: static keys, CBC, 3DES.
const NOT_OFFERED: [&str; 24] = [
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_DHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_DHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_DHE_DSS_WITH_AES_256_CBC_SHA256",
    "TLS_DHE_DSS_WITH_AES_128_CBC_SHA256",
    "TLS_DHE_DSS_WITH_AES_256_CBC_SHA",
    "TLS_DHE_DSS_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_DHE_DSS_WITH_3DES_EDE_CBC_SHA",
];

/// One of Azure's predefined policies.
struct Predefined {
    name: &'static str,
    tls13: bool,
    /// What it asks for that is not offered, and the policy that asks for what is left.
    beyond: Option<(&'static str, &'static str)>,
}

const PREDEFINED: [Predefined; 5] = [
    Predefined {
        name: "AppGwSslPolicy20150501",
        tls13: false,
        beyond: Some(("TLS 1.0 and 1.1, static keys, CBC and 3DES", "AppGwSslPolicy20170401S")),
    },
    Predefined {
        name: "AppGwSslPolicy20170401",
        tls13: false,
        beyond: Some(("TLS 1.1, static keys and CBC", "AppGwSslPolicy20170401S")),
    },
    Predefined {
        name: "AppGwSslPolicy20170401S",
        tls13: false,
        beyond: Some(("static keys and CBC", "AppGwSslPolicy20220101S, which adds TLS 1.3")),
    },
    Predefined {
        name: "AppGwSslPolicy20220101",
        tls13: true,
        beyond: Some(("CBC", "AppGwSslPolicy20220101S")),
    },
    Predefined { name: "AppGwSslPolicy20220101S", tls13: true, beyond: None },
];

/// Azure's words for versions, oldest first.
const VERSIONS: [&str; 4] = ["TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"];

const fn suite(name: &'static str, number: u16, needs: SuiteNeeds) -> Suite {
    Suite { name, number, needs }
}

/// The names of predefined policies.
pub(in crate::config) fn policy_names() -> Vec<&'static str> {
    PREDEFINED.map(|it| it.name).to_vec()
}

/// The names of cipher suites that may stand in a policy, those that are offered first.
pub(in crate::config) fn suite_names() -> Vec<&'static str> {
    OFFERED.iter().map(|it| it.name).chain(NOT_OFFERED).collect()
}

/// The names of versions.
pub(in crate::config) fn version_names() -> Vec<&'static str> {
    VERSIONS.to_vec()
}

/// What applies where no policy is given: all that can be offered.
pub(super) fn everything() -> TlsPolicy {
    TlsPolicy {
        predefined: None,
        tls12: true,
        tls13: true,
        fingerprint: true,
        suites: OFFERED.to_vec(),
    }
}

/// Reads an `sslPolicy`. `None`: wrong, and reported.
pub(super) fn read(shape: &Shape<'_>, report: &mut Report) -> Option<TlsPolicy> {
    let name = shape.text("policyName", report);
    let kind = shape.word("policyType", &["Predefined", "Custom", "CustomV2"], report);
    let least = shape.word("minProtocolVersion", &VERSIONS, report);
    let listed = suites(shape, report);
    let disabled = disabled(shape, report);
    shape.finish(report);
    let (kind, least, listed, disabled) = (kind.ok()?, least.ok()?, listed.ok()?, disabled.ok()?);
    let wanted = match (kind, name) {
        (Some("Predefined") | None, Some(name)) => predefined(&name, report)?,
        (Some("Predefined"), None) => {
            report.error(
                &shape.place,
                "the policy has no policyName",
                "write \"policyName\": \"AppGwSslPolicy20220101S\"",
            );
            return None;
        }
        (None, None) if listed.is_none() && least.is_none() => everything(),
        (kind, _) => custom(shape, kind == Some("CustomV2"), least, listed, report)?,
    };
    let left = without(&wanted, &disabled);
    if left.is_none() {
        report.error(
            &shape.place,
            "nothing is left of the policy: only TLS 1.2 and 1.3 are offered, with ECDHE and AES-GCM or ChaCha20",
            "write \"policyType\": \"Predefined\", \"policyName\": \"AppGwSslPolicy20220101S\"",
        );
    }
    left
}

fn predefined(name: &Placed<String>, report: &mut Report) -> Option<TlsPolicy> {
    let spelled = name.value.trim();
    let Some(found) = PREDEFINED.iter().find(|it| it.name.eq_ignore_ascii_case(spelled)) else {
        let names = PREDEFINED.map(|it| it.name);
        let near =
            spelling::nearest(spelled, names.into_iter()).unwrap_or("AppGwSslPolicy20220101S");
        report.error(
            &name.place,
            format!("{spelled:.80?} is no TLS policy that is known here"),
            format!("write {near}"),
        );
        return None;
    };
    if let Some((beyond, nearest)) = found.beyond {
        let left = if found.tls13 { "TLS 1.2 and 1.3" } else { "TLS 1.2" };
        report.warn(
            &name.place,
            format!("{} also has {beyond}, which are not offered: {left} with ECDHE and AES-GCM is left", found.name),
            format!("write {nearest}, or see to it that no client needs more"),
        );
    }
    let suites = OFFERED.into_iter().filter(|it| AZURES.contains(&it.name));
    let suites = suites.filter(|it| found.tls13 || it.needs != SuiteNeeds::Tls13).collect();
    let (predefined, tls13) = (Some(found.name), found.tls13);
    // The policies of 2022 are those that have TLS 1.3.
    Some(TlsPolicy { predefined, tls12: true, tls13, fingerprint: tls13, suites })
}

/// Suites as listed, and the names of those that are not offered.
type Listed = (Vec<Suite>, Vec<&'static str>, Place);

fn custom(
    shape: &Shape<'_>,
    second: bool,
    least: Option<&'static str>,
    listed: Option<Listed>,
    report: &mut Report,
) -> Option<TlsPolicy> {
    let only13 = least == Some("TLSv1_3");
    if only13 && !second {
        report.error(
            shape.place_of("minProtocolVersion"),
            "a Custom policy has no TLS 1.3, so nothing is left",
            "make the policyType CustomV2",
        );
        return None;
    }
    if let Some(old @ ("TLSv1_0" | "TLSv1_1")) = least {
        report.warn(
            shape.place_of("minProtocolVersion"),
            format!("{old} is not offered: TLS 1.2 is the least"),
            "write TLSv1_2, or see to it that no client needs less",
        );
    }
    if listed.is_none() && !only13 {
        report.error(
            &shape.place,
            "the policy has no cipherSuites",
            "list them, or write \"policyType\": \"Predefined\", \"policyName\": \"AppGwSslPolicy20220101S\"",
        );
        return None;
    }
    let (listed, beyond, place) =
        listed.unwrap_or_else(|| (Vec::new(), Vec::new(), shape.place.clone()));
    let is13 = |suite: &Suite| suite.needs == SuiteNeeds::Tls13;
    let mut suites: Vec<Suite> = Vec::new();
    if second {
        // Azure implies its two, and does not show them. Who lists any has said which.
        if listed.iter().any(is13) {
            suites.extend(listed.iter().filter(|it| is13(it)));
        } else {
            suites.extend(OFFERED.iter().filter(|it| is13(it) && AZURES.contains(&it.name)));
        }
    }
    if !only13 {
        suites.extend(listed.iter().filter(|it| !is13(it)));
    }
    if !beyond.is_empty() {
        let left: Vec<&str> = suites.iter().map(|it| it.name).collect();
        let left = if left.is_empty() { "nothing".to_owned() } else { left.join(", ") };
        report.warn(
            &place,
            format!("{} are not offered; what is left is {left}", beyond.join(", ")),
            "take them out; the nearest of Azure's policies is AppGwSslPolicy20220101S",
        );
    }
    Some(TlsPolicy { predefined: None, tls12: true, tls13: true, fingerprint: second, suites })
}

/// `None`: nothing is left.
fn without(policy: &TlsPolicy, disabled: &[&'static str]) -> Option<TlsPolicy> {
    let goes = |version: &str| disabled.contains(&version);
    let stays = |suite: &Suite| match suite.needs {
        SuiteNeeds::Tls13 => policy.tls13 && !goes("TLSv1_3"),
        _ => policy.tls12 && !goes("TLSv1_2"),
    };
    let suites: Vec<Suite> = policy.suites.iter().copied().filter(stays).collect();
    let tls13 = suites.iter().any(|it| it.needs == SuiteNeeds::Tls13);
    let tls12 = suites.iter().any(|it| it.needs != SuiteNeeds::Tls13);
    let predefined = policy.predefined.filter(|_| suites == policy.suites);
    let fingerprint = policy.fingerprint;
    (!suites.is_empty()).then_some(TlsPolicy { predefined, tls12, tls13, fingerprint, suites })
}

/// `Err`: some are wrong, and reported.
fn suites(shape: &Shape<'_>, report: &mut Report) -> Result<Option<Listed>, ()> {
    let texts = texts(shape, "cipherSuites", report)?;
    if texts.is_empty() {
        return Ok(None);
    }
    let (mut listed, mut beyond, mut sound): (Vec<Suite>, Vec<_>, _) =
        (Vec::new(), Vec::new(), true);
    for text in texts {
        let named = |name: &str| name.eq_ignore_ascii_case(text.value.trim());
        if let Some(suite) = OFFERED.iter().find(|it| named(it.name)) {
            if !listed.contains(suite) {
                listed.push(*suite);
            }
        } else if let Some(name) = NOT_OFFERED.iter().find(|it| named(it)) {
            beyond.push(*name);
        } else {
            let known = OFFERED.iter().map(|it| it.name);
            let near = spelling::nearest(text.value.trim(), known);
            let mend = near
                .map_or_else(|| "take it out".to_owned(), |near| format!("did you mean {near}?"));
            report.error(
                &text.place,
                format!("{:.80?} is no cipher suite that is known here", text.value),
                mend,
            );
            sound = false;
        }
    }
    let place = shape.place_of("cipherSuites").clone();
    if sound { Ok(Some((listed, beyond, place))) } else { Err(()) }
}

fn disabled(shape: &Shape<'_>, report: &mut Report) -> Result<Vec<&'static str>, ()> {
    let mut disabled = Vec::new();
    for text in texts(shape, "disabledSslProtocols", report)? {
        let found = VERSIONS.iter().find(|it| it.eq_ignore_ascii_case(text.value.trim()));
        let Some(version) = found else {
            report.error(
                &text.place,
                format!("{:.80?} is no version of TLS", text.value),
                format!("write {}", VERSIONS.join(" or ")),
            );
            return Err(());
        };
        disabled.push(*version);
    }
    Ok(disabled)
}

fn texts(shape: &Shape<'_>, name: &str, report: &mut Report) -> Result<Vec<Placed<String>>, ()> {
    let mut texts = Vec::new();
    let wrong = shape.get(name).is_some_and(|(node, _)| !matches!(node.value, Value::List(_)));
    let list = shape.list(name, report);
    if wrong {
        return Err(());
    }
    for (node, place) in list {
        let Value::Text(text) = &node.value else {
            report.error(
                &place,
                format!("{} stands where a string should", node.value.kind()),
                "write \"…\"",
            );
            return Err(());
        };
        texts.push(Placed { value: text.clone(), place });
    }
    Ok(texts)
}

#[cfg(test)]
mod tests;
