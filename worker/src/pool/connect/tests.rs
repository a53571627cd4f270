//! Real sockets on the loopback.
