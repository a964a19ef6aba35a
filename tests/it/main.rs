//! The integration tests: the real binary, seen from outside.
//!
//! Folders follow the product: `broker` speaks raw frames to a broker,
//! `cli` types commands and reads what they say, `dev` runs throw-away meshes,
//! `process` looks at files and exit codes, `outbox` and `inbox` at what the daemon keeps, `upgrade` at what
//! earlier versions kept, `roster` at whom it trusts, `api` at its local
//! surface, `topics` at who reads what is posted and `hostile_topics` at what a
//! daemon takes from brokers and members that lie about it, `hostile` lets a member
//! take all that it can, `faults` kills
//! processes and checks that nothing acknowledged was lost, `hooks` runs scripts
//! for events, `failures` provokes every failure that a user can meet and keeps the
//! texts.

#![allow(
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::print_stderr,
    reason = "tests run outside the supervised process: they read the clock, spawn, draw random bytes, print and have stack enough"
)]

mod api;
mod broker;
mod cli;
mod dev;
mod failures;
mod faults;
mod hooks;
mod hostile;
mod hostile_topics;
mod inbox;
mod interop;
mod links;
mod outbox;
mod process;
mod roster;
mod support;
mod topics;
mod upgrade;
