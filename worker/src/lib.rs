//! One process of one Holdfast listener, in the order in which a connection travels: [`snapshot`] holds what is
//! served, [`route`] chooses, [`pool`] reaches a backend, [`headers`] and [`respond`] keep HTTP honest, [`fault`]
//! says who is to blame. An opening handshake goes by [`websocket`] through the [`gate`] and becomes a [`tunnel`].

pub mod fault;
pub mod gate;
pub mod headers;
pub mod pool;
pub mod respond;
pub mod route;
pub mod snapshot;
pub mod tunnel;
pub mod websocket;
