//! Topics: named channels whose posts go to whoever is in them.
//!
//! What it is for: the broker keeps who is in a topic and passes on what is
//! posted, and for encrypted ones the signed epochs of their keys and a sealed
//! copy of each key for each member.
//! What runs here: nothing on its own; every request reads the tables, which are
//! the truth for all brokers of one database.
//! What it guarantees: an epoch follows its predecessor and no other; a copy that
//! a member has is not replaced by another one's.
//! What it must not do: make a key. Whom a key may be given to, and who may begin
//! an epoch, is checked by the members themselves; what is refused here only
//! spares them the work.

mod keys;
mod legacy;
mod posts;

use std::collections::BTreeSet;
use std::sync::Arc;

use sea_orm::DbErr;

pub use self::posts::{Names, Target, find as target};
use super::fanout::Audience;
use super::session::peer::Peer;
use super::session::presence::send_event;
use super::session::terms::Reply;
use super::shared::Shared;
use super::store::entity::topic;
use super::store::topics as store;
use crate::wire::delivery::Ack;
use crate::wire::event::SystemEvent;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::refusal::Refusal;
use crate::wire::topics::TopicChange;

/// Why a request about a topic is refused.
#[derive(Debug)]
pub enum Denied {
    /// For this reason.
    Refused(Refusal),
    /// The same, and a retry makes sense after so many milliseconds.
    Later(Refusal, u64),
    /// The database did not answer.
    Failed(DbErr),
}

/// An answer, if there is one: old clients get none to some requests.
type Answered = Result<Option<ServerFrame>, Denied>;

impl From<DbErr> for Denied {
    fn from(error: DbErr) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Answers a request about topics; gives any other frame back.
pub async fn on_link(shared: &Arc<Shared>, peer: &Arc<Peer>, frame: ClientFrame) -> Option<ClientFrame> {
    let (req_id, answer) = match frame {
        ClientFrame::TopicCreate(mut request) => {
            let req_id = request.req_id.take();
            (req_id, Box::pin(keys::create(shared, peer, *request)).await)
        }
        ClientFrame::TopicList(request) => (request.req_id, legacy::list(shared, peer).await),
        ClientFrame::TopicJoin(request) => {
            (request.req_id, legacy::join(shared, peer, &request.topic, request.role).await)
        }
        ClientFrame::TopicLeave(request) => (request.req_id, legacy::leave(shared, peer, &request.topic).await),
        ClientFrame::TopicMembers(request) => (request.req_id, legacy::members(shared, peer, &request.topic).await),
        ClientFrame::TopicHistory(mut request) => {
            let req_id = request.req_id.take();
            (req_id, legacy::history(shared, peer, request).await)
        }
        ClientFrame::TopicMarkRead(request) => (request.req_id, legacy::mark_read(shared, peer, &request.topic).await),
        ClientFrame::TopicEpochNew(mut request) => {
            let req_id = request.req_id.take();
            (req_id, Box::pin(keys::new_epoch(shared, peer, *request)).await)
        }
        ClientFrame::TopicKeyPut(mut request) => {
            let req_id = request.req_id.take();
            (req_id, keys::put(shared, peer, request).await)
        }
        ClientFrame::TopicKeyGet(mut request) => {
            let req_id = request.req_id.take();
            (req_id, Box::pin(keys::get(shared, peer, request)).await)
        }
        ClientFrame::TopicKeyPending(request) => (request.req_id, keys::pending(shared, peer).await),
        other => return Some(other),
    };
    match answer {
        Ok(Some(frame)) => peer.reply(Reply::frame(with_req_id(frame, req_id))),
        Ok(None) => {}
        Err(denied) => refuse(peer, req_id, denied),
    }
    None
}

/// Tells who is in a topic that it has changed, as far as they know such news.
pub fn tell(
    shared: &Shared,
    topic: &topic::Model,
    members: impl IntoIterator<Item = String>,
    event: impl FnOnce(TopicChange) -> SystemEvent,
) {
    let change = TopicChange { topic_id: topic.id.clone(), epoch: epoch_of(topic) };
    let members: BTreeSet<String> = members.into_iter().collect();
    send_event(shared, &topic.mesh_id, &Audience::TopicMembers(members), event(change));
}

/// Tells the members who are connected here what other brokers have changed.
pub async fn tell_changed(
    shared: &Shared,
    since: i64,
    mut is_told: impl FnMut(&topic::Model) -> bool,
) -> Result<(), DbErr> {
    let db = shared.store.readers();
    for topic in store::changed(db, since).await? {
        if is_told(&topic) {
            continue;
        }
        let members = store::members(db, &topic.id).await?;
        tell(shared, &topic, members.into_iter().map(|member| member.member_id), SystemEvent::TopicMembersChanged);
    }
    Ok(())
}

/// The newest epoch of a topic.
fn epoch_of(topic: &topic::Model) -> u32 {
    u32::try_from(topic.epoch).unwrap_or(u32::MAX)
}

/// An answer that says only that it was done.
fn done() -> ServerFrame {
    ServerFrame::Ack(Box::new(Ack { queued: false, ..Ack::default() }))
}

fn refuse(peer: &Peer, req_id: Option<String>, denied: Denied) {
    let (refusal, retry_after_ms) = match denied {
        Denied::Refused(refusal) => (refusal, None),
        Denied::Later(refusal, after) => (refusal, Some(after)),
        Denied::Failed(error) => {
            tracing::warn!(error = %error, "A request about a topic failed: {error}");
            (Refusal::Internal, Some(1_000))
        }
    };
    let ack = Ack { req_id, retry_after_ms, ..Ack::refused("", refusal) };
    peer.reply(Reply::frame(ServerFrame::Ack(Box::new(ack))));
}

fn with_req_id(mut frame: ServerFrame, req_id: Option<String>) -> ServerFrame {
    match &mut frame {
        ServerFrame::Ack(ack) => ack.req_id = req_id,
        ServerFrame::TopicCreated(answer) => answer.req_id = req_id,
        ServerFrame::TopicList(answer) => answer.req_id = req_id,
        ServerFrame::TopicMembers(answer) => answer.req_id = req_id,
        ServerFrame::TopicHistory(answer) => answer.req_id = req_id,
        ServerFrame::TopicEpoch(answer) => answer.req_id = req_id,
        ServerFrame::TopicKeys(answer) => answer.req_id = req_id,
        ServerFrame::TopicPending(answer) => answer.req_id = req_id,
        _ => {}
    }
    frame
}
