//! The sending half of a connection to a backend, and what the log tells of it. It only carries the two together, wherever
//! the connection waits between its requests.

use std::ops::{Deref, DerefMut};

use hyper::client::conn::http1::SendRequest;

/// A connection to a backend, to send requests on.
#[derive(Debug)]
pub struct Sender<B> {
    half: SendRequest<B>,
    source_port: Option<u16>,
}

// === impl Sender ===

impl<B> Sender<B> {
    /// Of a connection that goes out from this port of the gateway.
    pub fn new(half: SendRequest<B>, source_port: Option<u16>) -> Self {
        Self { half, source_port }
    }

    /// The gateway's own port of the connection, if the kernel has told it.
    pub fn source_port(&self) -> Option<u16> {
        self.source_port
    }
}

impl<B> Deref for Sender<B> {
    type Target = SendRequest<B>;

    fn deref(&self) -> &Self::Target {
        &self.half
    }
}

impl<B> DerefMut for Sender<B> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.half
    }
}
