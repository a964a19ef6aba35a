//! Durable receiving, as seen from outside.

mod filters;
mod hostile;
mod keep;
mod lost_receipt;
mod outcomes;
mod receive;
mod replay;
mod salvage;
