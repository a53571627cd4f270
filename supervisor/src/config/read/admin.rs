//! Admin over the network: `admin` of the gateway's `holdfast` object. Half of it is refused, for there is no admin over
//! the network without a certificate on either side.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::identity;
use super::tls::authorities;
use crate::config::certificate::{self, Identity};
use crate::config::gateway::{AdminClient, AdminIdentity, AdminNetwork, AdminRole, Listener};
use crate::config::json::Value;
use crate::config::report::{Place, Report};
use crate::config::shape::{Placed, Shape};

/// Looked through for every call.
const MOST_CLIENTS: usize = 1000;
/// Longest name of a client, characters: a URI's in a certificate.
const LONGEST_NAME: usize = 1024;

/// Of the gateway's `holdfast` object. Of a document that has been in force (`again`), files that can no longer be used are
/// a warning: nothing that runs, or is to run again, stops over its operators' certificates.
pub(super) fn read(
    own: &Shape<'_>,
    base: &Path,
    again: bool,
    report: &mut Report,
) -> Option<Arc<AdminNetwork>> {
    let admin = own.inner("admin", report)?;
    let listen = listen(&admin, report);
    let mut file = |name: &str| {
        let reason = format!(
            "admin has no {name}: it is served to clients that show a certificate, or not at all"
        );
        let mend = format!("add \"{name}\": \"FILE.pem\", or take admin out");
        needed(&admin, name, &reason, &mend, report)
    };
    let certificate = file("certificateFile");
    let key = file("privateKeyFile");
    let authority = file("clientCertificateAuthorityFile");
    let clients = clients(&admin, report);
    admin.finish(report);
    let own = certificate.clone().zip(key.clone());
    let own = own.and_then(|(certificate, key)| pair(certificate, key, base, again, report));
    let found = authority.as_ref().and_then(|file| authorities(file, base, again, report));

    let whole = |file: &Placed<String>| base.join(&file.value).display().to_string();
    let (certificate_file, private_key_file) = (whole(&certificate?), whole(&key?));
    let (listen, authority_file) = (listen?, whole(&authority?));
    let identity = own.zip(found).map(|(own, authorities_der)| {
        let Identity { chain_der, key_der, .. } = own;
        Arc::new(AdminIdentity { chain_der, key_der, authorities_der })
    });
    Some(Arc::new(AdminNetwork {
        listen,
        certificate_file,
        private_key_file,
        authority_file,
        identity,
        clients,
    }))
}

/// A text that must be there.
fn needed(
    shape: &Shape<'_>,
    name: &str,
    reason: &str,
    mend: &str,
    report: &mut Report,
) -> Option<Placed<String>> {
    let found = shape.text(name, report);
    let is_told = |value: &Value| matches!(value, Value::List(_) | Value::Object(_));
    if found.is_none() && !shape.get(name).is_some_and(|(node, _)| is_told(&node.value)) {
        report.error(shape.place_of(name), reason, mend);
    }
    found
}

fn listen(admin: &Shape<'_>, report: &mut Report) -> Option<SocketAddr> {
    const MEND: &str = "write IP:PORT, such as \"192.0.2.4:9443\" or \"[::]:9443\"";
    let reason = "admin has no address to listen on";
    let Placed { value, place } = needed(admin, "listen", reason, MEND, report)?;
    let address = value.trim().parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    if address.is_none() {
        report.error(&place, format!("{value:.80?} is no address with a port"), MEND);
    }
    address
}

/// An error, or a warning of a document that has been in force already.
fn tell(at: &Place, reason: String, mend: &str, again: bool, report: &mut Report) {
    if again {
        let reason = format!("{reason}; admin over the network is as it was, or not served");
        report.warn(at, reason, mend);
    } else {
        report.error(at, reason, mend);
    }
}

fn pair(
    certificate: Placed<String>,
    key: Placed<String>,
    base: &Path,
    again: bool,
    report: &mut Report,
) -> Option<Identity> {
    let (place, loaded, _) = identity::from_pair(certificate, key, base);
    match loaded {
        Ok(own) => {
            if let Some(dates) = &own.out_of_date {
                report.warn(
                    &place,
                    format!("the certificate is not valid today, only from {dates}"),
                    "renew it; clients will refuse it",
                );
            }
            Some(own)
        }
        Err(error) => {
            tell(&place, error.to_string(), error.mend(), again, report);
            None
        }
    }
}

fn authorities(
    file: &Placed<String>,
    base: &Path,
    again: bool,
    report: &mut Report,
) -> Option<Vec<Vec<u8>>> {
    let bytes = match certificate::read(&base.join(&file.value)) {
        Ok(bytes) => bytes,
        Err(error) => {
            tell(&file.place, error.to_string(), error.mend(), again, report);
            return None;
        }
    };
    match authorities::read(&bytes) {
        Ok(found) => Some([found.roots, found.intermediates].concat()),
        Err(error) => {
            tell(&file.place, error.to_string(), error.mend(), again, report);
            None
        }
    }
}

fn clients(admin: &Shape<'_>, report: &mut Report) -> Vec<AdminClient> {
    let shapes = admin.shapes("clients", report);
    if shapes.len() > MOST_CLIENTS {
        report.error(
            admin.place_of("clients"),
            format!("there are more than {MOST_CLIENTS} clients"),
            "give those that do the same a name in common, as a subject alternative name",
        );
        return Vec::new();
    }
    if !admin.says("clients") {
        report.warn(
            admin.place_of("clients"),
            "admin has no clients, so nobody is let in over the network",
            "add \"clients\": [{\"name\": \"NAME IN A CERTIFICATE\", \"role\": \"read\"}]",
        );
    }
    let mut clients: Vec<AdminClient> = Vec::new();
    for shape in shapes {
        let mend = "write a name that stands in its certificate: a subject alternative name or the common name";
        let name = needed(&shape, "name", "the client has no name", mend, report);
        let role = shape.word("role", &["read", "change"], report);
        shape.finish(report);
        let Some(name) = name else { continue };
        let Placed { value: name, place } = name;
        if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            report.error(
                &place,
                format!("the name is longer than {LONGEST_NAME} characters, or holds a control character"),
                "write it as it stands in the certificate",
            );
            continue;
        }
        if clients.iter().any(|client| client.name == name) {
            report.error(
                &place,
                format!("clients has two entries for {name:?}"),
                "keep one of them; change may do what read may",
            );
            continue;
        }
        let role = match role {
            Ok(Some("change")) => AdminRole::Change,
            Ok(Some(_)) => AdminRole::Read,
            Ok(None) => {
                report.error(
                    shape.place_of("role"),
                    format!("the client {name:?} has no role"),
                    "write \"role\": \"read\" or \"role\": \"change\"",
                );
                continue;
            }
            Err(()) => continue,
        };
        clients.push(AdminClient { name, role });
    }
    clients
}

/// Where a document says on which address operators are served.
pub(super) fn place(root: &Shape<'_>) -> Place {
    let mut unheard = Report::default();
    let own = root.inner("holdfast", &mut unheard);
    let admin = own.as_ref().and_then(|own| own.inner("admin", &mut unheard));
    admin.map_or_else(|| root.place.clone(), |admin| admin.place_of("listen").clone())
}

/// Operators and clients never share an address.
pub(super) fn apart(
    root: &Shape<'_>,
    admin: Option<&AdminNetwork>,
    listeners: &[Listener],
    report: &mut Report,
) {
    let Some(admin) = admin else { return };
    let overlap = |one: SocketAddr, other: SocketAddr| {
        let any: IpAddr = match one {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let same_family = one.is_ipv4() == other.is_ipv4();
        let same = one.ip() == other.ip() || one.ip() == any || other.ip() == any;
        one.port() == other.port() && same_family && same
    };
    let taken = listeners.iter().find(|listener| overlap(listener.address, admin.listen));
    if let Some(taken) = taken {
        report.error(
            &place(root),
            format!("{} cannot be bound beside the listener {}", admin.listen, taken.address),
            "give admin a port of its own",
        );
    }
}
