//! Durable receiving, as seen from outside.

mod filters;
mod hostile;
mod keep;
mod lost_receipt;
mod receive;
mod replay;
mod salvage;
