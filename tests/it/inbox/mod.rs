//! Durable receiving, as seen from outside.

mod filters;
mod hostile;
mod receive;
mod replay;
