//! Processes that are killed while they work: what was acknowledged arrives,
//! and arrives once.

mod kill_broker;
mod kill_receiver;
mod kill_sender;
mod load;
