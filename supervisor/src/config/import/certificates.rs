//! Keys and certificates that the document does not have: in a Key Vault, or never printed by Azure. Each that is used
//! becomes a pair of files that the caller names; one that nothing uses is left out.

use std::collections::BTreeSet;

use super::context::Context;
use super::findings::{FindingKind, Findings};
use super::frontends::put_own;
use super::item::{Item, Member, Value};

/// Fills in what certificates and roots lack.
pub(super) fn complete(gateway: &mut Item, context: &Context<'_>, findings: &mut Findings) {
    leave_out_first_generation(gateway, findings);
    let used = used(gateway, "httpListeners", "sslCertificate");
    each(gateway, "sslCertificates", &used, findings, |certificate, name| {
        certificate_files(certificate, name, used.contains(&name.to_lowercase()), context)
    });
    let used = used_roots(gateway);
    each(gateway, "trustedRootCertificates", &used, findings, |root, name| {
        root_data(root, name, context)
    });
}

/// Takes out what a gateway of the first generation trusts its backends by: nobody is to be asked for its data.
fn leave_out_first_generation(gateway: &mut Item, findings: &mut Findings) {
    const NAME: &str = "authenticationCertificates";
    let mut leave_out = |properties: &mut Item, path: String| {
        if let Some(taken) = properties.remove(NAME).filter(|taken| !taken.is_absent()) {
            findings.add(
                FindingKind::LeftOut,
                &format!("{path}.{NAME}"),
                (taken.line, taken.column),
                format!("{NAME} has no effect here"),
                "backends whose certificates no public authority has signed need trustedRootCertificates",
            );
        }
    };
    let Some(properties) = gateway.get_mut("properties") else { return };
    leave_out(properties, "properties".to_owned());
    let collection = "backendHttpSettingsCollection";
    let settings = properties.get_mut(collection).map_or(&mut [][..], Item::entries_mut);
    for (at, settings) in settings.iter_mut().enumerate() {
        if let Some(properties) = settings.get_mut("properties") {
            leave_out(properties, format!("properties.{collection}[{at}].properties"));
        }
    }
}

/// Completes a collection's entries; leaves out those that cannot be used and are not.
fn each(
    gateway: &mut Item,
    collection: &str,
    used: &BTreeSet<String>,
    findings: &mut Findings,
    complete: impl Fn(&mut Item, &str) -> bool,
) {
    let listed = gateway.get_mut("properties").and_then(|it| it.get_mut(collection));
    let Some(listed) = listed else { return };
    for (at, entry) in listed.entries_mut().iter_mut().enumerate() {
        let name = entry.word("name").unwrap_or_default().to_owned();
        let is_whole = complete(entry, &name);
        if !is_whole && !used.contains(&name.to_lowercase()) {
            findings.add(
                FindingKind::LeftOut,
                &format!("properties.{collection}[{at}]"),
                (entry.line, entry.column),
                format!(
                    "{name:?} is left out: nothing uses it, and its data is not in the document"
                ),
                "",
            );
            entry.value = Value::Null;
        }
    }
    listed.retain(|entry| !matches!(entry.value, Value::Null));
}

/// Whether nothing is missing any more, or never was.
fn certificate_files(
    certificate: &mut Item,
    name: &str,
    is_used: bool,
    context: &Context<'_>,
) -> bool {
    let asked = ["certificateFile", "privateKeyFile"]
        .map(|file| (file, format!("sslCertificates/{name}.{file}")));
    let given = asked.iter().any(|(_, name)| context.given.text(name).is_some());
    let properties = certificate.get("properties");
    let data = properties.and_then(|it| it.get("data")).map(|data| !data.has_hole());
    let password = properties.and_then(|it| it.get("password")).is_some_and(Item::has_hole);
    if !given && (certificate.get("holdfast").is_some() || (data == Some(true) && !password)) {
        return true;
    }
    let directory = context.given.certificates_dir.as_deref();
    // Either nobody needs it, or what the document would take the data from is asked for.
    if !given && (!is_used || (directory.is_none() && data.is_some())) {
        return false;
    }
    let place = (certificate.line, certificate.column);
    let vault = properties.and_then(|it| it.word("keyVaultSecretId"));
    let why = match vault {
        Some(_) => "which is in a Key Vault".to_owned(),
        None => "whose private key Azure does not print".to_owned(),
    };
    let mut is_whole = true;
    let files = asked.map(|(file, asked)| {
        let ending = if file == "certificateFile" { "pem" } else { "key" };
        let what = if file == "certificateFile" {
            "PEM file of the certificate"
        } else {
            "PEM file of the key"
        };
        let found = match (context.given.text(&asked), directory) {
            (Some(path), _) => Item::text(path),
            (None, Some(directory)) => Item::text(
                &directory.join(format!("{}.{ending}", plain(name))).display().to_string(),
            ),
            (None, None) => context.hole(&asked, || format!("{what} {name:?}, {why}")),
        };
        is_whole &= !found.has_hole();
        Member::new(file, found.at(place.0, place.1))
    });
    for name in ["data", "password", "keyVaultSecretId", "hsm"] {
        if let Some(properties) = certificate.get_mut("properties") {
            properties.remove(name);
        }
    }
    put_own(certificate, Item::new(Value::object(files.into())).at(place.0, place.1));
    is_whole
}

/// A name as a file's: it comes from the document, and must not lead elsewhere.
fn plain(name: &str) -> String {
    let kept = name.chars().map(|c| if c.is_control() || c == '/' { '_' } else { c });
    kept.collect::<String>().trim_start_matches('.').to_owned()
}

fn root_data(root: &mut Item, name: &str, context: &Context<'_>) -> bool {
    let place = (root.line, root.column);
    let Some(properties) = root.get_mut("properties") else { return true };
    let asked = format!("trustedRootCertificates/{name}.data");
    let given = context.given.any(&asked);
    let data = properties.get("data").map(|data| !data.has_hole());
    if given.is_none() && data.is_some() {
        return data == Some(true);
    }
    properties.remove("keyVaultSecretId");
    let is_whole = given.is_some();
    let data = given.unwrap_or_else(|| {
        context.hole(&asked, || format!("base64 or PEM of the root certificate {name:?}"))
    });
    properties.set("data", data.at(place.0, place.1));
    is_whole
}

/// Names that a collection's entries refer to, in lower case.
fn used(gateway: &Item, collection: &str, reference: &str) -> BTreeSet<String> {
    let properties = entries(gateway, collection).iter().filter_map(|it| it.get("properties"));
    properties.filter_map(|it| name_of(it.get(reference)?)).collect()
}

fn used_roots(gateway: &Item) -> BTreeSet<String> {
    let settings = entries(gateway, "backendHttpSettingsCollection").iter();
    let listed = settings
        .filter_map(|it| it.get("properties")?.get("trustedRootCertificates"))
        .flat_map(Item::entries);
    listed.filter_map(name_of).collect()
}

fn entries<'i>(gateway: &'i Item, collection: &str) -> &'i [Item] {
    let listed = gateway.get("properties").and_then(|it| it.get(collection));
    listed.map_or(&[], Item::entries)
}

fn name_of(reference: &Item) -> Option<String> {
    let id = reference.word("id")?;
    id.rsplit('/').next().map(str::to_lowercase)
}
