//! The broker link, frame by frame, as any client sees it.

mod concurrency;
mod dedupe;
mod delivery;
mod handshake;
mod join;
mod lifecycle;
mod limits;
mod members;
mod multicast;
mod negotiation;
mod send;
mod session;
