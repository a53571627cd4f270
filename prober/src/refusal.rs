//! Why a probe cannot be run: every reason, for [`crate::plan`] and the parts that it is made of.

/// Why a probe cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeRefusal {
    /// The target has no probe.
    #[error("the target has no probe")]
    NoProbe,
    /// Neither HTTP nor HTTPS.
    #[error("the probe's protocol is neither Http nor Https")]
    Scheme,
    /// No TCP port.
    #[error("{0} is not a TCP port")]
    Port(u32),
    /// Neither an IP literal nor a host name.
    #[error("the backend has no address")]
    NoAddress,
    /// Not usable as a Host header.
    #[error("{0:?} cannot be a Host header")]
    Host(String),
    /// Not usable as a request target.
    #[error("{0:?} cannot be a path")]
    Path(String),
    /// A range that holds no status.
    #[error("{first}-{last} is not a range of statuses")]
    Statuses {
        /// Its first status.
        first: u32,
        /// Its last status.
        last: u32,
    },
    /// Not usable in TLS.
    #[error("{0:?} cannot be the name of a TLS server")]
    ServerName(String),
    /// A trusted root is no certificate.
    #[error("a trusted root certificate cannot be read")]
    Root(#[source] rustls::Error),
    /// rustls refuses what it was given.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}
