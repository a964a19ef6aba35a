//! The broker link, frame by frame, as any client sees it.

mod admin;
mod api_keys;
mod certificates;
mod command_line;
mod concurrency;
mod dedupe;
mod delivery;
mod devices;
mod disk_full;
mod handshake;
mod history;
mod join;
mod lifecycle;
mod limits;
mod members;
mod multicast;
mod negotiation;
mod nodes;
mod outcomes;
mod retention;
mod schema;
mod send;
mod session;
mod topics;
mod upgrade;
mod wakeups;
