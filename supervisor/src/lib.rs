//! Configuration and processes of the gateway. The supervisor owns what is in force and reads no byte of a
//! client or a backend.

pub mod compile;
pub mod config;
