//! stub
pub mod gate;
pub mod tunnel;
pub mod websocket;
