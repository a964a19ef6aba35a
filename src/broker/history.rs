//! `history_get`: older messages of the caller, sealed as they came.

use std::sync::Arc;

use sea_orm::DbErr;

use super::session::peer::Peer;
use super::session::push::frame;
use super::shared::Shared;
use super::store::entity::topic_message;
use super::store::{deliveries, messages, topics};
use crate::wire::delivery::{Ack, Push};
use crate::wire::frame::ServerFrame;
use crate::wire::history::{HistoryGet, HistoryPage, MAX_HISTORY_LIMIT};
use crate::wire::refusal::Refusal;

/// Messages of a page that names no limit.
const DEFAULT_LIMIT: u32 = 50;
/// Ciphertext of one page, in bytes, so that the frame stays below the limit of
/// the link.
const MAX_PAGE_BYTES: i64 = 700_000;

/// Answers a request.
pub async fn answer(shared: &Shared, peer: &Arc<Peer>, request: HistoryGet) -> ServerFrame {
    let req_id = request.req_id.clone();
    let refused = |refusal| ServerFrame::Ack(Box::new(Ack { req_id: req_id.clone(), ..Ack::refused("", refusal) }));
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_HISTORY_LIMIT).contains(&limit) {
        return refused(Refusal::Invalid);
    }
    let page = match &request.topic_id {
        None => page(shared, peer, &request, limit).await.map(Some),
        Some(topic_id) => posts(shared, peer, topic_id, request.before.as_deref(), limit).await,
    };
    match page {
        Ok(None) => refused(Refusal::TopicNotFound),
        Ok(Some(page)) => ServerFrame::HistoryPage(HistoryPage { req_id, ..page }),
        Err(error) => {
            tracing::warn!(error = %error, "Cannot read the history of a member: {error}");
            refused(Refusal::Internal)
        }
    }
}

async fn page(shared: &Shared, peer: &Arc<Peer>, request: &HistoryGet, limit: u32) -> Result<HistoryPage, DbErr> {
    let db = shared.store.readers();
    let session_key = peer.facts.session_pubkey.as_deref();
    let before = request.before.as_deref();
    // One more than asked for tells whether there is another page.
    let mut rows = deliveries::history(db, &peer.member_id, session_key, before, u64::from(limit) + 1).await?;
    let mut more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let mut bytes = 0;
    let fitting = rows
        .iter()
        .take_while(|row| {
            let first = bytes == 0;
            bytes += row.bytes;
            first || bytes <= MAX_PAGE_BYTES
        })
        .count();
    more |= fitting < rows.len();
    rows.truncate(fitting);
    let next_before = rows.last().filter(|_| more).map(|row| row.broker_message_id.clone());
    let found = messages::load(db, rows.iter().map(|row| row.broker_message_id.as_str())).await?;
    shared.topic_names.learn(shared, found.values().map(|message| message.target_spec.as_str())).await?;
    let messages = rows
        .into_iter()
        .filter_map(|row| {
            let message = found.get(&row.broker_message_id)?;
            Some(frame(message, &shared.topic_names, row.id, row.claimed_at.is_some()))
        })
        .collect();
    Ok(HistoryPage { messages, next_before, req_id: None })
}

/// What was posted to a topic, whoever it was for; `None` where the asker is not in it.
async fn posts(
    shared: &Shared,
    peer: &Arc<Peer>,
    topic_id: &str,
    before: Option<&str>,
    limit: u32,
) -> Result<Option<HistoryPage>, DbErr> {
    let db = shared.store.readers();
    let topic = topics::find(db, &peer.mesh.id, topic_id).await?;
    let Some(topic) = topic else { return Ok(None) };
    if !topics::joined(db, &peer.member_id).await?.contains(&topic.id) {
        return Ok(None);
    }
    let mut rows = topics::posts(db, &topic.id, before, u64::from(limit) + 1).await?;
    let mut more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let mut bytes = 0;
    let fitting = rows
        .iter()
        .take_while(|row| {
            let first = bytes == 0;
            bytes += i64::try_from(row.ciphertext.len()).unwrap_or(i64::MAX);
            first || bytes <= MAX_PAGE_BYTES
        })
        .count();
    more |= fitting < rows.len();
    rows.truncate(fitting);
    let next_before = rows.last().filter(|_| more).map(|row| row.id.clone());
    shared.topic_names.learn(shared, std::iter::once(format!("#{}", topic.id).as_str())).await?;
    let post = |row: topic_message::Model| {
        let push = frame(&row.into(), &shared.topic_names, String::new(), false);
        // It is nobody's copy.
        Push { delivery_id: None, redelivery: None, ..push }
    };
    Ok(Some(HistoryPage { messages: rows.into_iter().map(post).collect(), next_before, req_id: None }))
}
