//! Durable sending, as seen from outside: what is on disk when, what an id
//! means, what a retry does.

mod accept_table;
mod disk_full;
mod durability;
mod ids;
mod limits;
mod operator;
mod outcomes;
mod pacing;
mod pressure;
mod recover;
mod replies;
mod requeue_private;
mod schema;
mod sent;
mod to_self;
mod transmit;
