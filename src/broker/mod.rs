//! The broker role.
pub mod accept;
pub mod fanout;
pub mod files;
pub mod metrics;
pub mod roster;
pub mod session;
pub mod shared;
pub mod store;
