//! Admin over the network.

use super::property::{Object, list, text, word};

pub(super) static ADMIN: Object = Object {
    title: "admin",
    about: "The admin API over TCP, for clients that show a certificate.",
    named: false,
    properties: &[
        text("listen", "IP:PORT that it listens on, apart from every listener."),
        text("certificateFile", "PEM file of the chain that it shows; read again when it changes."),
        text("privateKeyFile", "PEM file of the key to it, without a passphrase."),
        text(
            "clientCertificateAuthorityFile",
            "PEM file of the authorities that sign its clients' certificates: one of your own, which signs nothing else.",
        ),
        list("clients", &CLIENT, "Who is let in; nobody else is."),
    ],
    own: &[],
    passed: &[],
};

static CLIENT: Object = Object {
    title: "adminClient",
    about: "A client of the admin API.",
    named: false,
    properties: &[
        text("name", "A subject alternative name of its certificate, or the common name."),
        word(
            "role",
            &["read", "change"],
            None,
            "read: looks at everything; change: may change everything, too.",
        ),
    ],
    own: &[],
    passed: &[],
};
