//! The broker's tables as sea-orm entities, one file for each.
//!
//! What it is for: the columns and their types, once.
//! What runs here: nothing.
//! What it guarantees: a field of a row is a column of the newest migration.
//! What it must not do: hold a statement; those are in the folder above.

pub mod api_key;
pub mod audit;
pub mod dedupe;
pub mod delivery;
pub mod history;
pub mod invite;
pub mod member;
pub mod member_key;
pub mod mesh;
pub mod message;
pub mod node;
pub mod presence;
pub mod state;
pub mod topic;
pub mod topic_epoch;
pub mod topic_key;
pub mod topic_member;
pub mod topic_message;
