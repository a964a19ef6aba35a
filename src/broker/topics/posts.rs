//! Posts: to whom they go, and whether their key is new enough.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sea_orm::DbErr;

use super::{Denied, epoch_of};
use crate::broker::session::negotiate::MAX_CONCURRENT_EPOCHS;
use crate::broker::session::peer::Peer;
use crate::broker::shared::Shared;
use crate::broker::store::topics as store;
use crate::wire::delivery::Send;
use crate::wire::refusal::Refusal;

/// Where a post goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `#` and the topic's id.
    pub spec: String,
    /// The epoch of its key; `None` in a topic of the first version.
    pub key_epoch: Option<i64>,
    /// Who is in it beside the sender, by member id.
    pub recipients: Vec<String>,
    /// Those of them who have no copy of the key: they hold nobody up.
    pub keyless: Vec<String>,
}

/// What topics are called, for the pushes of their posts. A topic keeps its name.
#[derive(Debug, Default)]
pub struct Names(RwLock<HashMap<String, String>>);

// === impl Names ===

impl Names {
    /// The name of a topic that was learned.
    pub fn of(&self, topic_id: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(topic_id).cloned()
    }

    /// Learns the names of topics that are about to be pushed.
    pub async fn learn(&self, shared: &Shared, targets: impl Iterator<Item = &str>) -> Result<(), DbErr> {
        for topic_id in targets.filter_map(|target| target.strip_prefix('#')) {
            if self.of(topic_id).is_none()
                && let Some(topic) = store::by_id(shared.store.readers(), topic_id).await?
            {
                self.note(topic.id, topic.name);
            }
        }
        Ok(())
    }

    fn note(&self, topic_id: String, name: String) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(topic_id, name);
    }
}

/// Looks up where a post goes. Only who is in a topic posts to it.
pub async fn find(shared: &Shared, peer: &Arc<Peer>, send: &Send) -> Result<Target, Denied> {
    let id = send.target_spec.strip_prefix('#').unwrap_or_default();
    let db = shared.store.readers();
    let topic = store::find(db, &peer.mesh.id, id).await?.filter(|topic| topic.id == id);
    let topic = topic.ok_or(Refusal::TopicNotFound)?;
    if send.topic_id.as_ref().is_some_and(|other| *other != topic.id) {
        return Err(Refusal::Invalid.into());
    }
    let members = store::members(db, &topic.id).await?;
    if !members.iter().any(|member| member.member_id == peer.member_id) {
        return Err(Refusal::TopicNotJoined.into());
    }
    let newest = epoch_of(&topic);
    let key_epoch = match (newest, send.key_epoch) {
        (0, None) => None,
        // Epochs begin with 1.
        (0, Some(_)) | (_, Some(0)) => return Err(Refusal::Invalid.into()),
        (_, None) => return Err(Refusal::Unencrypted.into()),
        // Newer than what a restored database knows: perhaps it is told again.
        (newest, Some(epoch)) if epoch > newest => return Err(Refusal::KeyEpochStale.into()),
        (newest, Some(epoch)) if newest - epoch >= MAX_CONCURRENT_EPOCHS => return Err(Refusal::KeyEpochStale.into()),
        (_, Some(epoch)) => Some(i64::from(epoch)),
    };
    let recipients: Vec<String> = members
        .into_iter()
        .map(|member| member.member_id)
        .filter(|id| *id != peer.member_id)
        .filter(|id| peer.mesh.member(id).is_none_or(|member| member.revoked_at.is_none()))
        .collect();
    let keyless = match key_epoch {
        None => Vec::new(),
        Some(epoch) => {
            let holders = store::holders(db, &topic.id, epoch).await?;
            recipients.iter().filter(|id| !holders.contains(id)).cloned().collect()
        }
    };
    shared.topic_names.note(topic.id.clone(), topic.name);
    Ok(Target { spec: format!("#{}", topic.id), key_epoch, recipients, keyless })
}
