//! Durable receiving, as seen from outside.

mod filters;
mod hostile;
mod keep;
mod receive;
mod replay;
mod salvage;
