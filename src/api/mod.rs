//! The local interface: gRPC and REST on one Unix socket and one loopback port.

pub mod lenient;
