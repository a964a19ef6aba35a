//! claudemesh: a mesh of AI sessions, scripts and services, one daemon a host.
//!
//! The folders, by rank. A folder imports only folders of lower rank;
//! `tests/architecture.rs` holds the table and the reasons.
//!
//! | rank | folder | what it is |
//! |---:|---|---|
//! | 0 | `domain` | pure decisions and vocabulary |
//! | 1 | `crypto`, `wire`, `config`, `runtime` | ciphers, frames, settings, process tools |
//! | 2 | `db` | connections, schemas, checks of the databases |

pub mod broker;
pub mod config;
pub mod crypto;
pub mod db;

pub mod domain;
pub mod runtime;
pub mod wire;
