//! `history_get`: older messages of the caller, sealed as they came.

use std::sync::Arc;

use sea_orm::DbErr;

use super::session::peer::Peer;
use super::session::push::frame;
use super::shared::Shared;
use super::store::{deliveries, messages};
use crate::wire::delivery::Ack;
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
    if request.topic_id.is_some() {
        return refused(Refusal::TopicNotFound);
    }
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_HISTORY_LIMIT).contains(&limit) {
        return refused(Refusal::Invalid);
    }
    match page(shared, peer, &request, limit).await {
        Ok(page) => ServerFrame::HistoryPage(HistoryPage { req_id, ..page }),
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
    let messages = rows
        .into_iter()
        .filter_map(|row| {
            let message = found.get(&row.broker_message_id)?;
            Some(frame(message, row.id, row.claimed_at.is_some()))
        })
        .collect();
    Ok(HistoryPage { messages, next_before, req_id: None })
}
