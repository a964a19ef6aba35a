//! Whose claims and acknowledgements still count.
//!
//! A daemon that comes back to another broker says hello there; its old socket
//! may live on here for a while. Each hello counts up the generation of its
//! state directory, and what an older one wrote is left out in the transaction
//! that would write it.

use std::collections::HashSet;
use std::sync::Arc;

use sea_orm::{DatabaseTransaction, DbErr};

use super::commit::Batch;
use crate::broker::session::terms::Holder;
use crate::broker::store::{Store, presence};

/// The connections of a batch that were replaced.
#[derive(Debug, Default)]
pub struct Fence(HashSet<Arc<Holder>>);

// === impl Fence ===

impl Fence {
    /// Compares the batch's connections with the newest hellos. A database that
    /// only one broker can use needs no look: there the registry knows.
    pub async fn read(db: &DatabaseTransaction, store: &Store, batch: &Batch<'_>) -> Result<Self, DbErr> {
        if !store.is_shared() {
            return Ok(Self::default());
        }
        let settling = batch.settles.iter().filter_map(|settle| settle.holder.as_ref());
        let claiming = batch.claims.iter().filter_map(|claim| claim.holder.as_ref());
        let holders: HashSet<&Arc<Holder>> = settling.chain(claiming).collect();
        if holders.is_empty() {
            return Ok(Self::default());
        }
        let members: HashSet<&str> = holders.iter().map(|holder| holder.member_id.as_str()).collect();
        let newest = presence::newest(db, &members.into_iter().collect::<Vec<_>>()).await?;
        let is_old = |holder: &&&Arc<Holder>| {
            let key = (holder.mesh_id.clone(), holder.member_id.clone(), holder.instance_id.clone());
            newest.get(&key).is_none_or(|generation| *generation != holder.generation)
        };
        Ok(Self(holders.iter().filter(is_old).map(|holder| Arc::clone(holder)).collect()))
    }

    /// Whether what this connection wrote counts. Clients without a state
    /// directory have no generation.
    pub fn admits(&self, holder: Option<&Arc<Holder>>) -> bool {
        holder.is_none_or(|holder| !self.0.contains(holder))
    }

    /// The connections that were replaced.
    pub fn replaced(self) -> Vec<Arc<Holder>> {
        self.0.into_iter().collect()
    }
}
