//! Admin over the network, as the effective configuration says it: where its files are, and nothing of what they hold.

use serde_json::{Value, json};

use crate::config::gateway::AdminNetwork;

pub(super) fn network(admin: &AdminNetwork) -> Value {
    let clients = admin.clients.iter();
    let clients = clients.map(|it| json!({ "name": it.name, "role": it.role.as_str() }));
    json!({
        "listen": admin.listen.to_string(),
        "certificateFile": admin.certificate_file,
        "privateKeyFile": admin.private_key_file,
        "clientCertificateAuthorityFile": admin.authority_file,
        "clients": clients.collect::<Vec<_>>(),
    })
}
