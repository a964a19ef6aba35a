//! Durable sending, as seen from outside: what is on disk when, what an id
//! means, what a retry does.

mod accept_table;
mod durability;
mod ids;
mod recover;
mod schema;
mod transmit;
