//! What can go wrong with one request, and whose fault it is.
//!
//! A fault knows its side and whether another backend may be tried. What the client gets to see is decided in
//! `respond` and nowhere else; nothing here may hold addresses or certificates of backends that would leak there.

use std::error::Error;

use thiserror::Error as ThisError;

/// Whose misbehaviour or failure a fault is. Decides metric label and log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client broke a rule, was too slow, or went away.
    Client,
    /// The backend could not be reached, was too slow, or answered wrongly.
    Backend,
    /// The gateway itself: its configuration, its limits, or a defect.
    Gateway,
}

impl Side {
    /// The word for metric labels and log fields.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Gateway => "gateway",
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ThisError)]
pub enum FaultKind {
    /// No site of this listener has the request's host.
    #[error("no site matches the host")]
    NoSite,
    /// The pool is empty or none of its backends is in rotation.
    #[error("no backend in rotation")]
    NoBackend,
    /// No connection to the backend: refused, unreachable, not resolved, TLS failed, or too slow.
    #[error("the backend could not be reached")]
    ConnectFailed,
    /// The backend closed before its answer was complete.
    #[error("the backend closed the connection")]
    BackendClosed,
    /// The backend's answer is not HTTP, or breaks its rules.
    #[error("the backend's answer is not valid")]
    BackendProtocol,
    /// The backend did not answer within the request timeout.
    #[error("the backend did not answer in time")]
    BackendTimeout,
    /// The request breaks a rule, named here.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The client did not complete its request in time.
    #[error("the request did not arrive in time")]
    RequestTimeout,
    /// The request target is longer than allowed.
    #[error("the request target is too long")]
    UriTooLong,
    /// The request's header fields are larger than allowed.
    #[error("the request header is too large")]
    HeaderTooLarge,
    /// The request's body is larger than allowed.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// TRACE and CONNECT are not served.
    #[error("the method is not allowed")]
    MethodNotAllowed,
    /// Plain HTTP arrived on a TLS site's port.
    #[error("plain HTTP was sent to an HTTPS port")]
    HttpToHttps,
    /// The site demands a certificate of its clients, and this one has shown none.
    #[error("the client has shown no certificate")]
    NoClientCertificate,
    /// The site demands a certificate of its clients, and this one's does not pass.
    #[error("the client's certificate does not pass")]
    BadClientCertificate,
    /// The site asks for certificates in another way than the client of this connection was asked.
    #[error("the host is not the one that the connection was opened for")]
    Misdirected,
    /// A defect of the gateway.
    #[error("internal fault")]
    Internal,
    /// A rewrite has made of a request or an answer what cannot be sent.
    #[error("a rewrite failed: {0}")]
    Rewrite(&'static str),
    /// A resource of the gateway (descriptors, ports, connections) is used up.
    #[error("the gateway is out of resources")]
    Busy,
}

impl FaultKind {
    /// Whose fault this is.
    pub const fn side(self) -> Side {
        match self {
            Self::NoSite
            | Self::BadRequest(_)
            | Self::RequestTimeout
            | Self::UriTooLong
            | Self::HeaderTooLarge
            | Self::BodyTooLarge
            | Self::MethodNotAllowed
            | Self::HttpToHttps
            | Self::NoClientCertificate
            | Self::BadClientCertificate
            | Self::Misdirected => Side::Client,
            Self::NoBackend
            | Self::ConnectFailed
            | Self::BackendClosed
            | Self::BackendProtocol
            | Self::BackendTimeout => Side::Backend,
            Self::Internal | Self::Rewrite(_) | Self::Busy => Side::Gateway,
        }
    }

    /// The word for metric labels and log fields.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoSite => "no_site",
            Self::NoBackend => "no_backend",
            Self::ConnectFailed => "connect_failed",
            Self::BackendClosed => "backend_closed",
            Self::BackendProtocol => "backend_protocol",
            Self::BackendTimeout => "backend_timeout",
            Self::BadRequest(_) => "bad_request",
            Self::RequestTimeout => "request_timeout",
            Self::UriTooLong => "uri_too_long",
            Self::HeaderTooLarge => "header_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::HttpToHttps => "http_to_https",
            Self::NoClientCertificate => "no_client_certificate",
            Self::BadClientCertificate => "bad_client_certificate",
            Self::Misdirected => "misdirected",
            Self::Internal => "internal",
            Self::Rewrite(_) => "rewrite",
            Self::Busy => "busy",
        }
    }
}

/// One failed request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("{kind}")]
pub struct Fault {
    /// Whose fault it is.
    pub side: Side,
    /// What happened.
    pub kind: FaultKind,
}

// === impl Fault ===

impl Fault {
    /// A fault of the side that its kind implies.
    pub const fn new(kind: FaultKind) -> Self {
        Self { side: kind.side(), kind }
    }

    /// The client's request breaks the rule that `reason` names.
    pub const fn bad_request(reason: &'static str) -> Self {
        Self::new(FaultKind::BadRequest(reason))
    }

    /// Whether another backend may be tried: only when no byte of the request can have reached one.
    pub const fn retryable(&self) -> bool {
        matches!(self.kind, FaultKind::ConnectFailed)
    }

    /// Classifies an error of a backend connection that had been established.
    pub fn of_backend(error: &hyper::Error) -> Self {
        // A request body that failed on its way is the client's doing, and hyper reports it here.
        let kind = if let Some(fault) = buried(error) {
            return fault;
        } else if error.is_timeout() {
            FaultKind::BackendTimeout
        } else if error.is_parse() {
            FaultKind::BackendProtocol
        } else {
            FaultKind::BackendClosed
        };
        Self::new(kind)
    }

    /// Classifies an error of a client connection.
    pub fn of_client(error: &hyper::Error) -> Self {
        if let Some(fault) = buried(error) {
            fault
        } else if error.is_timeout() {
            Self::new(FaultKind::RequestTimeout)
        } else if error.is_parse_too_large() {
            Self::new(FaultKind::HeaderTooLarge)
        } else {
            Self::bad_request("the request is not valid HTTP")
        }
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self::new(kind)
    }
}

/// Finds a fault that a body of ours raised beneath other errors.
fn buried(error: &hyper::Error) -> Option<Fault> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(fault) = cause.downcast_ref::<Fault>() {
            return Some(*fault);
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_connect_is_retried() {
        assert!(Fault::new(FaultKind::ConnectFailed).retryable());
        for kind in [
            FaultKind::BackendClosed,
            FaultKind::BackendTimeout,
            FaultKind::BackendProtocol,
            FaultKind::NoBackend,
            FaultKind::Busy,
            FaultKind::BadRequest("x"),
        ] {
            assert!(!Fault::new(kind).retryable(), "{kind:?}");
        }
    }

    #[test]
    fn a_fault_blames_the_side_of_its_kind() {
        assert_eq!(Fault::new(FaultKind::Busy).side, Side::Gateway);
        assert_eq!(Fault::new(FaultKind::BackendTimeout).side.label(), "backend");
        assert_eq!(Fault::bad_request("no Host").side, Side::Client);
        assert_eq!(Fault::bad_request("no Host").to_string(), "bad request: no Host");
    }
}
