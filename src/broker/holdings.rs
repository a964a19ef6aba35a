//! What each member of a mesh takes up at the broker, and how much it may.
//!
//! Whatever is bounded has a share per member, whatever the number of its connections:
//! one that uses all of its own leaves the others theirs.

use std::collections::HashMap;

use sea_orm::DbErr;

use super::roster::Mesh;
use super::shared::Shared;
use super::store::{api_keys, deliveries, topics};
use crate::wire::roster::Holds;

/// Connections and leases of one member at one broker.
pub const MEMBER_CONNECTIONS: usize = 64;
/// Changes of one member's key within [`ROTATION_WINDOW_MS`].
pub const MEMBER_ROTATIONS: u64 = 6;
/// An hour.
pub const ROTATION_WINDOW_MS: i64 = 3_600_000;
/// Times in a second that one member may show or hide itself, with ten times as many at
/// once.
pub const MEMBER_SHOWN_PER_S: u32 = 1;
/// Topics that one member has made.
pub const MEMBER_TOPICS: usize = 100;
/// API keys of one member that are in force.
pub const MEMBER_API_KEYS: u64 = 20;

/// What they hold, by member. Who holds nothing is left out.
pub async fn of_mesh(shared: &Shared, mesh: &Mesh) -> Result<HashMap<String, Holds>, DbErr> {
    let db = shared.store.readers();
    let mut all: HashMap<String, Holds> = HashMap::new();
    for peer in shared.registry.of_mesh(&mesh.id) {
        all.entry(peer.member_id.clone()).or_default().connections += 1;
    }
    for (member_id, rows, bytes) in deliveries::open_by_sender(db, &mesh.id).await? {
        let holds = all.entry(member_id).or_default();
        (holds.waiting, holds.waiting_bytes) = (rows.unsigned_abs(), bytes.unsigned_abs());
    }
    for (member_id, count) in topics::made(db, &mesh.id).await? {
        all.entry(member_id).or_default().topics = count.unsigned_abs();
    }
    for (member_id, count) in api_keys::in_force(db, &mesh.id).await? {
        all.entry(member_id).or_default().api_keys = count.unsigned_abs();
    }
    Ok(all)
}
