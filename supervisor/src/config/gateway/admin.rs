//! Who may ask and change a gateway over the network. Without certificates on both sides there is no such thing.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The operators' service over TCP.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminNetwork {
    /// Where it listens.
    pub listen: SocketAddr,
    /// PEM file of the chain that it shows.
    pub certificate_file: String,
    /// PEM file of the key to it.
    pub private_key_file: String,
    /// PEM file of the authorities that sign its clients' certificates.
    pub authority_file: String,
    /// What the files hold. `None`: they were good once, and cannot be used now.
    pub identity: Option<Arc<AdminIdentity>>,
    /// Who is let in; of several that fit a certificate the first.
    pub clients: Vec<AdminClient>,
}

/// What the files of an [`AdminNetwork`] hold.
#[derive(Clone, PartialEq)]
pub struct AdminIdentity {
    /// Leaf first.
    pub chain_der: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key_der: Vec<u8>,
    /// Who signs certificates of clients.
    pub authorities_der: Vec<Vec<u8>>,
}

/// A client, by a name in its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminClient {
    /// A name of the subject alternative names, or the common name.
    pub name: String,
    /// What it may do.
    pub role: AdminRole,
}

/// What somebody may do. In order: each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Look at everything.
    Read,
    /// Change everything.
    Change,
}

// === impl AdminRole ===

impl AdminRole {
    /// The document's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
        }
    }
}

// === impl AdminIdentity ===

impl fmt::Debug for AdminIdentity {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminIdentity")
            .field("chain_length", &self.chain_der.len())
            .field("authorities", &self.authorities_der.len())
            .finish_non_exhaustive()
    }
}
