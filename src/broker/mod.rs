//! The broker role.
pub mod store;
