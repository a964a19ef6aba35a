//! Meshes of this user: creating, inviting, joining, and the files that say so.
//!
//! What it is for: `<root>/config.json` with the joined meshes and their member
//! keys, `<root>/owners/` with the keys of the meshes that this user owns,
//! `<root>/certificates/` with the owners' word for the members, and the HTTP
//! calls around them. Commands write; daemons only read.
//! What runs here: nothing; the calls block and have time limits.
//! What it guarantees: an invite is verified before the first byte goes to the
//! network; a command that was cut off anywhere can be repeated and goes on
//! with the same keys; what other programs keep in config.json survives.
//! What it must not do: overwrite a file it could not read, print or log a key
//! or a token.

mod certificate;
pub mod config_json;
pub mod create;
mod error;
mod http;
pub mod invite;
pub mod join;
pub mod manage;
pub mod names;
pub mod owner;
mod route;
mod secret_hex;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use error::Error;
pub use route::route;

use crate::config::broker_client::BrokerLink;
use crate::config::paths::Root;
use crate::config::source::Source;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;

/// What every call here needs.
#[derive(Clone, Debug)]
pub struct Env {
    /// Where the files lie.
    pub root: Root,
    /// Tells whether an invite has expired, and when a member joined.
    pub clock: Clock,
    /// Where new keys come from.
    pub ids: IdSource,
    /// The way to the broker, which the environment adds to.
    pub link: BrokerLink,
    /// What names proxies.
    pub environment: Arc<dyn Source>,
}
