//! The local interface: gRPC and REST on one Unix socket and one loopback port.

pub mod auth;
pub mod call;
pub mod deadline;
pub mod first_bytes;
pub mod gate;
pub mod guard;
pub mod lenient;
pub mod limits;
pub mod server;
pub mod status;
