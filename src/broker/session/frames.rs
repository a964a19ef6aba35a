//! What each frame of an open connection does.

use std::sync::Arc;

use sea_orm::DbErr;
use serde_json::{Map, Value};

use super::handshake::{short, short_groups};
use super::peer::Peer;
use super::push::Pusher;
use super::terms::Reply;
use super::{admission, negotiate, presence, rotation, shown};
use crate::broker::accept::commit::Settle;
use crate::broker::accept::writer::Command;
use crate::broker::fanout::Audience;
use crate::broker::roster::Member;
use crate::broker::shared::Shared;
use crate::broker::store::{deliveries, members, messages};
use crate::broker::{accept, admin, certificates, departures, endings, history, topics};
use crate::domain::names;
use crate::domain::time::UnixMillis;
use crate::wire::codec::{DecodeError, DecodeErrorKind};
use crate::wire::delivery::{Ack, MessageStatus, MessageStatusResult, RecipientStatus};
use crate::wire::event::{MemberRenamed, SystemEvent};
use crate::wire::features::{Feature, NegotiationRequest};
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::hello::Group;
use crate::wire::presence::SetProfile;
use crate::wire::refusal::Refusal;
use crate::wire::text;

/// Largest profile or statistics value of a connection, as JSON bytes.
const MAX_VALUE_BYTES: usize = 8 * 1024;
/// Receivers named in the answer about one message.
const MAX_RECEIVERS: u64 = 200;

/// Does what a frame asks for. Types without a meaning after the hello are
/// ignored, as old brokers do.
pub async fn handle(shared: &Arc<Shared>, peer: &Arc<Peer>, pusher: &mut Pusher, frame: ClientFrame) {
    match frame {
        ClientFrame::Send(send) => accept::submit(shared, peer, *send).await,
        ClientFrame::ClientAck(ack) => {
            let req_id = ack.req_id.clone().filter(|_| peer.has(Feature::DeliveryOutcome));
            match pusher.acknowledged(peer, ack) {
                Some(settle) => {
                    let answer = req_id.map(|req_id| (Arc::clone(peer), req_id));
                    // Refused only while the broker stops; the copy comes again.
                    let _ = shared.writer.submit(Command::Settle(Settle { answer, ..settle })).await;
                }
                None if req_id.is_some() => done(peer, req_id, None),
                None => {}
            }
        }
        ClientFrame::NegotiationRequest(request) => negotiation(shared, peer, pusher, &request).await,
        ClientFrame::ListPeers(request) => {
            peer.reply(Reply::frame(ServerFrame::PeersList(presence::peers_list(shared, peer, request))));
        }
        ClientFrame::MemberList(request) => {
            peer.reply(Reply::frame(ServerFrame::MembersList(presence::members_list(&peer.mesh, request))))
        }
        ClientFrame::MessageStatus(request) => {
            if let Some(result) = message_status(shared, peer, request).await {
                peer.reply(Reply::frame(ServerFrame::MessageStatusResult(result)));
            }
        }
        ClientFrame::MemberRename(rename) => {
            let outcome = rename_member(shared, peer, rename.display_name).await;
            done(peer, rename.req_id, outcome.err());
        }
        ClientFrame::MemberRotate(request) => {
            let req_id = request.req_id.clone();
            match rotation::rotate(shared, peer, request.statement, request.req_id).await {
                Ok(rotated) => peer.reply(Reply::frame(ServerFrame::MemberRotated(rotated))),
                Err(refusal) => done(peer, req_id, Some(refusal)),
            }
        }
        ClientFrame::MemberCertificatePut(request) => {
            let outcome = certificates::put(shared, peer, &request.certificate).await;
            done(peer, request.req_id, outcome.err());
        }
        ClientFrame::MemberCertificateGet(request) => {
            let found = Box::new(certificates::get(&peer.mesh, request));
            peer.reply(Reply::frame(ServerFrame::MemberCertificate(found)));
        }
        ClientFrame::MemberLeave(request) => {
            let left = Box::pin(departures::end(shared, &peer.mesh, &peer.member_id, "itself")).await;
            if let Err(error) = &left {
                tracing::warn!(error = %error, "Cannot end a membership: {error}");
            }
            done(peer, request.req_id, left.err().map(|_| Refusal::Internal));
        }
        ClientFrame::HistoryGet(request) => peer.reply(Reply::frame(history::answer(shared, peer, request).await)),
        ClientFrame::SetStatus(set) => shown::set_status(shared, peer, &set.status),
        ClientFrame::SetSummary(set) => shown::set_summary(shared, peer, set.summary),
        ClientFrame::SetStats(set) => {
            if set.stats.to_string().len() <= MAX_VALUE_BYTES {
                peer.profile().stats = Some(set.stats);
            }
        }
        ClientFrame::SetVisible(set) => {
            let outcome = shown::set_visible(shared, peer, set.visible).await;
            done(peer, set.req_id, outcome.err());
        }
        ClientFrame::SetProfile(set) => {
            let req_id = set.req_id.clone();
            set_profile(peer, set);
            done(peer, req_id, None);
        }
        ClientFrame::JoinGroup(join) => {
            let mut profile = peer.profile();
            profile.groups.retain(|group| group.name != join.name);
            profile.groups.push(Group { name: join.name, role: join.role });
            profile.groups = short_groups(std::mem::take(&mut profile.groups));
        }
        ClientFrame::LeaveGroup(leave) => peer.profile().groups.retain(|group| group.name != leave.name),
        ClientFrame::CloseReason(reason) => {
            tracing::info!(
                member_id = peer.member_id,
                kind = reason.kind,
                "The client closes: {}",
                short(reason.detail)
            );
        }
        // Pieces count only on connections that negotiated them, and are put together there.
        ClientFrame::Hello(_) | ClientFrame::SessionHello(_) | ClientFrame::Piece(_) | ClientFrame::Unknown(_) => {}
        request => {
            if let Some(request) = topics::on_link(shared, peer, request).await {
                admin::on_link(shared, peer, request).await;
            }
        }
    }
}

/// Answers what can be answered of a frame that is none. A send with a field
/// that does not fit is refused, so that its sender need not wait for an answer
/// that never comes; anything else is dropped without a word.
pub fn undecodable(shared: &Shared, peer: &Peer, error: DecodeError) {
    let correlation = *error.correlation;
    let answerable = matches!(error.kind, DecodeErrorKind::BadField(_) | DecodeErrorKind::NulCharacter);
    if answerable && correlation.kind.as_deref() == Some("send") {
        shared.metrics.refused.inc();
        let ack = Ack::refused(correlation.id.unwrap_or_default(), Refusal::Invalid);
        peer.reply(ack_reply(Ack { req_id: correlation.req_id, ..ack }));
    }
}

/// Frames that change something are answered by an ack that is neither queued
/// nor failed.
fn done(peer: &Peer, req_id: Option<String>, refusal: Option<Refusal>) {
    let ack = match refusal {
        Some(refusal) => Ack::refused("", refusal),
        None => Ack { queued: false, ..Ack::default() },
    };
    peer.reply(ack_reply(Ack { req_id, ..ack }));
}

fn ack_reply(ack: Ack) -> Reply {
    Reply::frame(ServerFrame::Ack(Box::new(ack)))
}

async fn negotiation(shared: &Arc<Shared>, peer: &Arc<Peer>, pusher: &mut Pusher, request: &NegotiationRequest) {
    let bound_before = peer.has(Feature::ConcurrentConnectionPolicy);
    let response = negotiate::answer(shared, peer, request);
    if !bound_before && let Err(end) = negotiate::contest(shared, peer).await {
        shared.registry.remove(peer);
        admission::note_refused(shared, peer).await;
        peer.finish(end);
        return;
    }
    let missing = response.missing_required.first().cloned();
    peer.reply(Reply::frame(ServerFrame::NegotiationResponse(response)));
    match missing {
        Some(feature) => pusher.lacks(feature),
        None if pusher.is_held() => pusher.release(peer),
        None => {}
    }
    if peer.has(Feature::DeliveryAck) {
        endings::tell_returned(shared, peer).await;
    }
}

fn set_profile(peer: &Peer, set: SetProfile) {
    let mut profile = peer.profile();
    let mut merged = match profile.profile.clone() {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    for (key, value) in [("avatar", set.avatar), ("title", set.title), ("bio", set.bio)] {
        if let Some(value) = value {
            merged.insert(key.to_owned(), Value::String(short(value)));
        }
    }
    if let Some(capabilities) = set.capabilities {
        let texts = capabilities.into_iter().take(64).map(|text| Value::String(short(text))).collect();
        merged.insert("capabilities".to_owned(), Value::Array(texts));
    }
    let merged = Value::Object(merged);
    if merged.to_string().len() <= MAX_VALUE_BYTES {
        profile.profile = Some(merged);
    }
}

async fn rename_member(shared: &Arc<Shared>, peer: &Arc<Peer>, name: String) -> Result<(), Refusal> {
    // Whether peers call it so is theirs to decide: they keep a name for its
    // first bearer.
    let name = names::check(&name).map_err(|_| Refusal::Invalid)?;
    let changing = shared.roster.changing().await;
    let member = peer.mesh.member(&peer.member_id).ok_or(Refusal::Forbidden)?;
    let written = async {
        let transaction = shared.store.begin().await?;
        members::set_display_name(&transaction, &member.id, &name, shared.store.now().0).await?;
        transaction.commit().await
    };
    if let Err(error) = written.await {
        tracing::warn!(error = %error, "Cannot store a member's name: {error}");
        return Err(Refusal::Internal);
    }
    peer.mesh.put(&changing, Member { display_name: name.clone(), ..(*member).clone() });
    drop(changing);
    let renamed = MemberRenamed {
        member_id: member.id.clone(),
        pubkey: member.pubkey.clone(),
        old_name: member.display_name.clone(),
        display_name: name,
    };
    let audience = Audience::OtherMembers(member.id.clone());
    presence::send_event(shared, &peer.mesh.id, &audience, SystemEvent::MemberRenamed(renamed));
    Ok(())
}

/// Tells a sender about its own message; `None` when there is no such message,
/// which old clients expect to be silence.
async fn message_status(shared: &Shared, peer: &Peer, request: MessageStatus) -> Option<MessageStatusResult> {
    let id = request.message_id.to_ascii_uppercase();
    if !(8..=32).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let found = async {
        let db = shared.store.readers();
        let Some(message) = messages::of_sender(db, &peer.mesh.id, &peer.member_id, &id).await? else {
            return Ok::<_, DbErr>(None);
        };
        let copies = deliveries::of_message(db, &message.id, MAX_RECEIVERS).await?;
        Ok(Some((message, copies)))
    };
    let (message, copies) = match found.await {
        Ok(found) => found?,
        Err(error) => {
            tracing::warn!(error = %error, "Cannot read the status of a message: {error}");
            return None;
        }
    };
    let delivered_at = copies.iter().filter_map(|copy| copy.delivered_at).min();
    let recipients = copies
        .iter()
        .map(|copy| {
            let member = peer.mesh.member(&copy.recipient_member_id);
            // Who hides from others is not there for them.
            let is_seen =
                |other: &Arc<Peer>| other.is_online() && (other.is_visible() || other.member_id == peer.member_id);
            let online = || shared.registry.of_member(&peer.mesh.id, &copy.recipient_member_id).iter().any(is_seen);
            let status = match (copy.delivered_at, copy.expired_at) {
                (Some(_), _) => "delivered",
                (None, Some(_)) if copy.reject_reason.is_some() => "rejected",
                (None, Some(_)) => "expired",
                (None, None) if online() => "held",
                (None, None) => "disconnected",
            };
            RecipientStatus {
                name: member.as_ref().map(|member| member.display_name.clone()).unwrap_or_default(),
                pubkey: copy
                    .target_session_key
                    .clone()
                    .or_else(|| member.map(|member| member.pubkey.clone()))
                    .unwrap_or_default(),
                status: status.to_owned(),
            }
        })
        .collect();
    Some(MessageStatusResult {
        message_id: message.id,
        target_spec: message.target_spec,
        delivered: delivered_at.is_some(),
        delivered_at: delivered_at.map(|at| text::to_iso(UnixMillis(at))),
        recipients,
        req_id: request.req_id,
    })
}
