//! `OutboxService`: what waits, what failed, and what operators do about it.

use super::Services;
use super::control::saturated;
use crate::api::convert::{self, timestamp};
use crate::api::page::{Encoding, Page};
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::ids::ClientMessageId;
use crate::domain::outbox::OutboxState;
use crate::domain::provenance::Judge;
use crate::domain::time::UnixMillis;
use crate::outbox::repo::operator::Entry;
use crate::outbox::{self, operator::Requeue};
use crate::proto::admin::requeue_entry_request::Successor;
use crate::proto::wkt::Timestamp;
use crate::proto::{admin, pb};

/// What a list shows when nobody says which states.
const LISTED: [OutboxState; 3] = [OutboxState::Pending, OutboxState::Inflight, OutboxState::Dead];

// === impl Services ===

impl Services {
    /// A page of entries (R167, R170).
    pub async fn list_outbox(
        &self,
        mut request: admin::ListOutboxRequest,
        encoding: Encoding,
    ) -> Result<admin::ListOutboxResponse, Failure> {
        let page = Page::of(&mut request, encoding)?;
        let states = if request.statuses.is_empty() {
            LISTED.to_vec()
        } else {
            request.statuses.iter().map(|number| state(*number)).collect::<Result<Vec<_>, _>>()?
        };
        let found = self.0.deps.outbox.entries(&states, page.after.as_deref().unwrap_or_default(), page.limit).await?;
        let judge = self.0.deps.peers.judge();
        let items = found.entries.into_iter().map(|row| (row.id.clone(), entry(row, &judge)));
        let (entries, next_page_token) = page.fill(items, found.next_page_token.is_some());
        Ok(admin::ListOutboxResponse { entries, next_page_token })
    }

    /// One entry with its content.
    pub async fn outbox_entry(
        &self,
        request: admin::GetOutboxEntryRequest,
    ) -> Result<admin::GetOutboxEntryResponse, Failure> {
        let (found, message, meta) = self.0.deps.outbox.content(&request.id).await?;
        // It was canonical JSON when it was stored.
        let meta = meta.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Ok(admin::GetOutboxEntryResponse { entry: Some(self.entry(found)), message, meta })
    }

    /// Queues an entry again (R168).
    pub async fn requeue_entry(
        &self,
        request: admin::RequeueEntryRequest,
    ) -> Result<admin::RequeueEntryResponse, Failure> {
        let mut how = Requeue { patched: request.patched_message, ..Requeue::default() };
        match request.successor {
            None => {}
            Some(Successor::AutoClientMessageId(true)) => how.mint_id = true,
            Some(Successor::AutoClientMessageId(false)) => {
                return Err(Failure::field("auto_client_message_id", "it must be true or left out"));
            }
            Some(Successor::NewClientMessageId(id)) => {
                let id = ClientMessageId::parse(id)
                    .map_err(|error| Failure::field("new_client_message_id", error.to_string()))?;
                how.new_id = Some(id);
            }
        }
        let (queued, superseded) = self.0.deps.outbox.requeue(&request.id, how).await?;
        Ok(admin::RequeueEntryResponse {
            entry: Some(self.entry(queued)),
            superseded: superseded.map(|old| self.entry(old)),
        })
    }

    /// How far a send has come, without its text.
    pub async fn get_send(&self, request: pb::GetSendRequest) -> Result<pb::GetSendResponse, Failure> {
        let id = convert::client_message_id("client_message_id", request.client_message_id)?;
        self.0.deps.outbox.sent(&id).await?.map(|row| sent(row, &self.0.deps.peers.judge())).ok_or_else(|| {
            let text = format!(
                "no send was made under the id {id} here; `claudemesh outbox list --all` shows those that were"
            );
            Failure::new(ErrorCode::SendNotFound, text).with("client_message_id", id.as_str())
        })
    }

    /// Retires an entry (R169).
    pub async fn drop_entry(&self, request: admin::DropEntryRequest) -> Result<admin::DropEntryResponse, Failure> {
        let dropped = self.0.deps.outbox.drop_entry(&request.id).await?;
        Ok(admin::DropEntryResponse { entry: Some(self.entry(dropped)) })
    }

    /// Frees space, or tells how much could be freed (R171).
    pub async fn prune_outbox(
        &self,
        request: admin::PruneOutboxRequest,
    ) -> Result<admin::PruneOutboxResponse, Failure> {
        let cleared = self.0.deps.outbox.prune(request.confirm).await?;
        Ok(admin::PruneOutboxResponse {
            entries: saturated(cleared.rows),
            freed_bytes: cleared.bytes,
            confirmed: request.confirm,
        })
    }

    fn entry(&self, row: Entry) -> admin::OutboxEntry {
        entry(row, &self.0.deps.peers.judge())
    }
}

/// How far a send has come, by its entry.
fn sent(row: Entry, judge: &Judge) -> pb::GetSendResponse {
    let delivered_count = row.delivered_count();
    let entry = entry(row, judge);
    let is_post = entry.kind() == pb::MessageKind::Topic;
    let failed =
        |code: ErrorCode, text: String| Failure::new(code, text).with("client_message_id", &entry.client_message_id);
    let (status, failure) = match entry.status() {
        admin::OutboxStatus::Pending | admin::OutboxStatus::Unspecified => (pb::SendStatus::Queued, None),
        admin::OutboxStatus::Inflight => (pb::SendStatus::Inflight, None),
        // Of many receivers each has an end of its own; the count tells.
        admin::OutboxStatus::Done if is_post => (pb::SendStatus::Accepted, None),
        admin::OutboxStatus::Done if entry.delivered_at.is_some() => (pb::SendStatus::Delivered, None),
        admin::OutboxStatus::Done if entry.rejected_at.is_some() => {
            let failure = outbox::rejected(&entry.reject_reason);
            let failure = failed(failure.code, failure.text).with("reason", &entry.reject_reason);
            (pb::SendStatus::Rejected, Some(failure))
        }
        admin::OutboxStatus::Done if entry.expired_at.is_some() => {
            let failure = outbox::expired();
            (pb::SendStatus::Expired, Some(failed(failure.code, failure.text)))
        }
        admin::OutboxStatus::Done => (pb::SendStatus::Accepted, None),
        admin::OutboxStatus::Dead => {
            let failure = outbox::dead(entry.dead_reason.clone());
            (pb::SendStatus::Dead, Some(failed(failure.code, failure.text).with("reason", &entry.dead_reason)))
        }
        admin::OutboxStatus::Aborted => {
            let failure = failed(ErrorCode::OutboxAbortedFingerprintMatch, "the message was retired".to_owned())
                .with("aborted_by", &entry.aborted_by);
            (pb::SendStatus::Aborted, Some(failure))
        }
    };
    pb::GetSendResponse {
        status: status.into(),
        error: failure.map(|failure| failure.to_detail()),
        client_message_id: entry.client_message_id,
        broker_message_id: entry.broker_message_id,
        history_id: entry.history_id,
        degraded: entry.degraded,
        recipient: entry.recipient,
        queued_at: entry.queued_at,
        accepted_at: entry.accepted_at,
        delivered_at: entry.delivered_at.filter(|_| !is_post),
        delivered_count,
        attempts: entry.attempts,
        last_error: entry.last_error,
    }
}

fn state(number: i32) -> Result<OutboxState, Failure> {
    match admin::OutboxStatus::try_from(number) {
        Ok(admin::OutboxStatus::Pending) => Ok(OutboxState::Pending),
        Ok(admin::OutboxStatus::Inflight) => Ok(OutboxState::Inflight),
        Ok(admin::OutboxStatus::Done) => Ok(OutboxState::Done),
        Ok(admin::OutboxStatus::Dead) => Ok(OutboxState::Dead),
        Ok(admin::OutboxStatus::Aborted) => Ok(OutboxState::Aborted),
        Ok(admin::OutboxStatus::Unspecified) | Err(_) => {
            Err(Failure::field("statuses", format!("{number} is no state of an entry")))
        }
    }
}

fn status(name: &str) -> admin::OutboxStatus {
    match OutboxState::from_name(name) {
        Some(OutboxState::Pending) => admin::OutboxStatus::Pending,
        Some(OutboxState::Inflight) => admin::OutboxStatus::Inflight,
        Some(OutboxState::Done) => admin::OutboxStatus::Done,
        Some(OutboxState::Dead) => admin::OutboxStatus::Dead,
        Some(OutboxState::Aborted) => admin::OutboxStatus::Aborted,
        None => admin::OutboxStatus::Unspecified,
    }
}

fn at(time: Option<i64>) -> Option<Timestamp> {
    time.map(|time| timestamp(UnixMillis(time)))
}

fn list(json: Option<&str>) -> Vec<String> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

fn entry(row: Entry, judge: &Judge) -> admin::OutboxEntry {
    let kind = match row.destination_kind.as_str() {
        "topic" => pb::MessageKind::Topic,
        "broadcast" => pb::MessageKind::Broadcast,
        "group" => pb::MessageKind::Group,
        _ => pb::MessageKind::Direct,
    };
    let (key, name) = (row.target_key.unwrap_or_default(), row.target_name.unwrap_or_default());
    let priority = match row.priority.as_str() {
        "now" => pb::Priority::Now,
        "low" => pb::Priority::Low,
        _ => pb::Priority::Next,
    };
    let fingerprint = row.request_fingerprint.as_slice().try_into().map(LocalFingerprint);
    let status = status(&row.status);
    let is_pending = status == admin::OutboxStatus::Pending;
    let number = |number: i32| u32::try_from(number).unwrap_or(0);
    admin::OutboxEntry {
        id: row.id,
        client_message_id: row.client_message_id,
        status: status.into(),
        kind: kind.into(),
        to: row.destination_ref,
        recipient: Some(convert::recipient(judge, kind, row.target_id, key, name)),
        priority: priority.into(),
        reply_to_id: row.reply_to_id.unwrap_or_default(),
        mentions: list(row.mentions.as_deref()),
        auto_hops: number(row.auto_hops),
        allow_unencrypted: row.allow_unencrypted,
        size_bytes: u32::try_from(row.size_bytes).unwrap_or(u32::MAX),
        degraded: list(row.degraded.as_deref()),
        sender_pubkey: row.sender_key,
        fingerprint: fingerprint.map(|fingerprint| fingerprint.prefix()).unwrap_or_default(),
        attempts: number(row.attempts),
        last_error: row.last_error.unwrap_or_default(),
        broker_message_id: row.broker_message_id.unwrap_or_default(),
        history_id: row.history_id.unwrap_or_default(),
        queued_at: at(Some(row.enqueued_at)),
        next_attempt_at: at(Some(row.next_attempt_at).filter(|_| is_pending)),
        first_transmit_at: at(row.first_transmit_at),
        accepted_at: at(row.accepted_at),
        rejected_at: at(row.rejected_at),
        expired_at: at(row.expired_at),
        reject_reason: row.reject_reason.unwrap_or_default(),
        delivered_at: at(row.receiver_stored_at),
        requeued_at: at(row.requeued_at),
        dead_at: at(row.dead_at),
        dead_reason: row.dead_reason.unwrap_or_default(),
        aborted_at: at(row.aborted_at),
        aborted_by: row.aborted_by.unwrap_or_default(),
        superseded_by: row.superseded_by.unwrap_or_default(),
    }
}
