//! stub
pub mod backoff;
pub mod directories;
pub mod health;
pub mod ledger;
pub mod lock;
pub mod metrics;
pub mod status;
