//! With which certificate a gateway is called over the network, and whose certificate it must show itself.

use std::path::PathBuf;

use clap::Args;

/// Files of a caller over the network.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_field_names, reason = "as the options are called")]
pub(crate) struct Passport {
    /// With https: the PEM file of the certificate to show
    #[arg(long, value_name = "FILE", env = "HOLDFAST_ADMIN_CERTIFICATE")]
    pub(crate) admin_certificate: Option<PathBuf>,
    /// With https: the PEM file of the key to it
    #[arg(long, value_name = "FILE", env = "HOLDFAST_ADMIN_KEY")]
    pub(crate) admin_key: Option<PathBuf>,
    /// With https: the PEM file of the authority that has signed the gateway's certificate
    #[arg(long, value_name = "FILE", env = "HOLDFAST_ADMIN_AUTHORITY")]
    pub(crate) admin_authority: Option<PathBuf>,
}
