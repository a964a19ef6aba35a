//! The requests that older clients know: who is in which topic, and what was
//! posted. A topic that they make has no keys.

use std::sync::Arc;

use super::{Answered, Denied, done, epoch_of, tell};
use crate::broker::session::peer::Peer;
use crate::broker::shared::Shared;
use crate::broker::store::entity::{topic, topic_member};
use crate::broker::store::topics as store;
use crate::domain::time::UnixMillis;
use crate::wire::event::SystemEvent;
use crate::wire::features::Feature;
use crate::wire::frame::ServerFrame;
use crate::wire::history::MAX_HISTORY_LIMIT;
use crate::wire::refusal::Refusal;
use crate::wire::text;
use crate::wire::topics::{
    MAX_TOPIC_MEMBERS, TopicHistory, TopicHistoryGet, TopicHistoryRow, TopicList, TopicMemberRow, TopicMembers,
    TopicRow,
};

/// Posts of a page that names no limit.
const DEFAULT_LIMIT: u32 = 50;
/// Ciphertext of one page, in bytes, so that the frame stays below the limit of
/// the link.
const MAX_PAGE_BYTES: usize = 700_000;

/// Lists the topics of the mesh.
pub(super) async fn list(shared: &Shared, peer: &Peer) -> Answered {
    let db = shared.store.readers();
    let topics = store::list(db, &peer.mesh.id).await?;
    let counts = store::counts(db, &peer.mesh.id).await?;
    let joined = store::joined(db, &peer.member_id).await?;
    let row = |topic: topic::Model| {
        let count = counts.get(&topic.id).copied().unwrap_or(0);
        let joined = joined.contains(&topic.id);
        row(topic, count, joined)
    };
    Ok(Some(ServerFrame::TopicList(TopicList { topics: topics.into_iter().map(row).collect(), req_id: None })))
}

/// Brings the asker into a topic.
pub(super) async fn join(shared: &Arc<Shared>, peer: &Peer, topic: &str, role: Option<String>) -> Answered {
    let topic = find(shared, peer, topic).await?;
    let role = role.unwrap_or_else(|| "member".to_owned());
    // Who leads a topic is decided at its making.
    if !matches!(role.as_str(), "lead" | "member" | "observer") {
        return Err(Refusal::Invalid.into());
    }
    let role = if role == "lead" { "member".to_owned() } else { role };
    let now = shared.store.now().0;
    let transaction = shared.store.begin().await?;
    let members = store::members(&transaction, &topic.id).await?;
    let is_new = !members.iter().any(|member| member.member_id == peer.member_id);
    if is_new && members.len() >= MAX_TOPIC_MEMBERS {
        return Err(Refusal::TopicFull.into());
    }
    let row = topic_member::Model {
        topic_id: topic.id.clone(),
        member_id: peer.member_id.clone(),
        role,
        joined_at: now,
        last_read_at: None,
    };
    store::join(&transaction, row).await?;
    if is_new {
        store::touch(&transaction, &topic.id, now).await?;
    }
    transaction.commit().await?;
    if is_new {
        tell(shared, &topic, members.into_iter().map(|one| one.member_id), SystemEvent::TopicMembersChanged);
    }
    Ok(answer_if_known(peer))
}

/// Takes the asker out of a topic.
pub(super) async fn leave(shared: &Arc<Shared>, peer: &Peer, topic: &str) -> Answered {
    let topic = find(shared, peer, topic).await?;
    let now = shared.store.now().0;
    let transaction = shared.store.begin().await?;
    let left = store::leave(&transaction, &topic.id, &peer.member_id).await?;
    if left {
        store::touch(&transaction, &topic.id, now).await?;
    }
    let members = store::members(&transaction, &topic.id).await?;
    transaction.commit().await?;
    if left {
        tell(shared, &topic, members.into_iter().map(|one| one.member_id), SystemEvent::TopicMembersChanged);
    }
    Ok(answer_if_known(peer))
}

/// Lists who is in a topic.
pub(super) async fn members(shared: &Shared, peer: &Peer, topic: &str) -> Answered {
    let topic = find(shared, peer, topic).await?;
    let rows = store::members(shared.store.readers(), &topic.id).await?;
    let members = rows
        .into_iter()
        .filter_map(|row| {
            let member = peer.mesh.member(&row.member_id).filter(|member| member.revoked_at.is_none())?;
            Some(TopicMemberRow {
                member_id: row.member_id,
                pubkey: member.pubkey.clone(),
                display_name: member.display_name.clone(),
                role: row.role,
                joined_at: text::to_iso(UnixMillis(row.joined_at)),
                last_read_at: row.last_read_at.map(|at| text::to_iso(UnixMillis(at))),
            })
        })
        .collect();
    Ok(Some(ServerFrame::TopicMembers(TopicMembers { topic: topic.id, members, req_id: None })))
}

/// Lists what was posted, sealed or plain as it came.
pub(super) async fn history(shared: &Shared, peer: &Peer, request: TopicHistoryGet) -> Answered {
    let topic = find(shared, peer, &request.topic).await?;
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_HISTORY_LIMIT).contains(&limit) {
        return Err(Refusal::Invalid.into());
    }
    let rows = store::posts(shared.store.readers(), &topic.id, request.before_id.as_deref(), limit.into()).await?;
    let mut bytes = 0;
    let fits = |size: usize| {
        let first = bytes == 0;
        bytes += size;
        first || bytes <= MAX_PAGE_BYTES
    };
    let mut fits = fits;
    let messages = rows
        .into_iter()
        .take_while(|row| fits(row.ciphertext.len()))
        .map(|row| TopicHistoryRow {
            id: row.id,
            sender_pubkey: row.sender_pubkey,
            sender_member_id: row.sender_member_id,
            sender_name: row.sender_name,
            nonce: text::to_base64(&row.nonce),
            ciphertext: text::to_base64(&row.ciphertext),
            body_version: u32::try_from(row.body_version).unwrap_or(1),
            key_epoch: row.key_epoch.and_then(|epoch| u32::try_from(epoch).ok()),
            reply_to_id: row.reply_to_id,
            created_at: text::to_iso(UnixMillis(row.created_at)),
        })
        .collect();
    Ok(Some(ServerFrame::TopicHistory(TopicHistory { topic: topic.id, messages, req_id: None })))
}

/// Notes that the asker has read everything.
pub(super) async fn mark_read(shared: &Shared, peer: &Peer, topic: &str) -> Answered {
    let topic = find(shared, peer, topic).await?;
    let transaction = shared.store.begin().await?;
    store::mark_read(&transaction, &topic.id, &peer.member_id, shared.store.now().0).await?;
    transaction.commit().await?;
    Ok(answer_if_known(peer))
}

/// The topic that is meant, by id or name.
pub(super) async fn find(shared: &Shared, peer: &Peer, topic: &str) -> Result<topic::Model, Denied> {
    let topic = topic.strip_prefix('#').unwrap_or(topic);
    let found = store::find(shared.store.readers(), &peer.mesh.id, topic).await?;
    found.ok_or_else(|| Refusal::TopicNotFound.into())
}

/// A topic as answers show it.
pub(super) fn row(topic: topic::Model, member_count: i64, joined: bool) -> TopicRow {
    TopicRow {
        epoch: epoch_of(&topic),
        id: topic.id,
        name: topic.name,
        description: topic.description,
        visibility: topic.visibility,
        member_count: u32::try_from(member_count).unwrap_or(u32::MAX),
        created_at: text::to_iso(UnixMillis(topic.created_at)),
        joined,
    }
}

/// Older clients expect no answer.
fn answer_if_known(peer: &Peer) -> Option<ServerFrame> {
    peer.has(Feature::TopicE2e).then(done)
}
