//! What a user would pick instead, started on loopback by the run itself.

pub mod nats;
pub mod postgres;
pub mod redis;
