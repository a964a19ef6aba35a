//! Schema migrations of the three databases: outbox, inbox and broker.
//!
//! What it is for: the ordered list of changes that turns an empty file into
//! the schema of this release. The rules for changing it are in `README.md`.
//! What runs here: nothing on its own; `db::migrate` of the main crate runs a
//! migrator at start-up.
//! What it guarantees: each migration is one transaction on every engine.
//! What it must not do: read or write rows on behalf of a feature.

#![expect(elided_lifetimes_in_paths, reason = "the trait's async signatures cannot name the manager's lifetime")]

pub mod broker;
pub mod inbox;
pub mod outbox;

pub use broker::BrokerMigrator;
pub use inbox::InboxMigrator;
pub use outbox::OutboxMigrator;
