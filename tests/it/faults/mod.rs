//! Processes that are killed while they work: what was acknowledged arrives,
//! and arrives once.

mod kill_broker;
mod kill_receiver;
mod kill_sender;
mod kill_two;
mod load;

/// One load at a time: each keeps every core busy, and two would wait for each
/// other instead of for what they test.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
