//! One process of one Holdfast listener, in the order in which a connection travels: [`snapshot`] holds what is
//! served, [`route`] chooses, [`pool`] reaches a backend, [`headers`] and [`respond`] keep HTTP honest, [`fault`]
//! says who is to blame.

pub mod fault;
pub mod headers;
pub mod pool;
pub mod respond;
pub mod route;
pub mod snapshot;
