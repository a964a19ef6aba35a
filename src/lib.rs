//! claudemesh: a mesh of AI sessions, scripts and services, one daemon a host.
//!
//! The folders, by rank. A folder imports only folders of lower rank;
//! `tests/architecture.rs` holds the table and the reasons.
//!
//! | rank | folder | what it is |
//! |---:|---|---|
//! | 0 | `domain` | pure decisions and vocabulary |
//! | 0 | `proto` | generated types of the local interface |
//! | 1 | `crypto` | ciphers and signatures over bytes |
//! | 1 | `wire` | frames between daemon and broker |
//! | 1 | `config` | settings and where files lie |
//! | 1 | `runtime` | tasks, clock, files, sockets: process tools |
//! | 2 | `telemetry` | logs and metrics |
//! | 2 | `db` | connections, schemas and checks of the databases |
//! | 3 | `identity` | the member key, the token, the host |
//! | 3 | `membership` | joined meshes, invites, joining |
//! | 3 | `events` | live events to subscribers |
//! | 4 | `broker_client` | the link to the broker |
//! | 5 | `peers` | the pinned roster and presence |
//! | 6 | `topics` | subscriptions and the keys of topics |
//! | 7 | `outbox` | durable sending |
//! | 7 | `inbox` | durable receiving |
//! | 8 | `hooks` | scripts that run for events |
//! | 9 | `api` | gRPC, REST and SSE on the local sockets |
//! | 9 | `broker` | the broker |
//! | 10 | `daemon` | puts the daemon together |
//! | 11 | `cli` | the command line |
//!
//! Cargo features: `postgres` (on by default) lets the broker keep its tables in
//! PostgreSQL; `failpoints` adds named points at which a test stops the process
//! and is never part of a shipped build.

pub mod api;
pub mod broker;
pub mod broker_client;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod daemon;
pub mod db;
pub mod domain;
pub mod events;
pub mod hooks;
pub mod identity;
pub mod inbox;
pub mod membership;
pub mod outbox;
pub mod peers;
pub mod proto;
pub mod runtime;
pub mod telemetry;
pub mod topics;
pub mod wire;
