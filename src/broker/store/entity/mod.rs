//! The broker's tables as sea-orm entities, one file for each.

pub mod audit;
pub mod dedupe;
pub mod delivery;
pub mod history;
pub mod invite;
pub mod member;
pub mod member_key;
pub mod mesh;
pub mod message;
pub mod presence;
