//! Between the table's rows and the domain's messages.

use super::entity::Model;
use crate::domain::event::{MessageKind, StoredMessage};
use crate::domain::ids::{EventId, MemberId, MemberKey};
use crate::domain::message::Priority;
use crate::domain::time::UnixMillis;

/// A stored row as a message. Rows are written by this daemon alone; a value
/// that is not of its kind after all is shown as the nearest one.
pub(super) fn stored(row: Model, generation: &str) -> StoredMessage {
    StoredMessage {
        id: row.id,
        event_id: EventId { generation: generation.to_owned(), seq: row.seq.unsigned_abs() },
        client_message_id: row.client_message_id,
        broker_message_id: row.broker_message_id.unwrap_or_default(),
        history_id: row.history_id,
        mesh: row.mesh,
        topic: row.topic,
        sender_member_id: MemberId::parse(row.sender_member_id)
            .or_else(|_| MemberId::parse("unknown"))
            .expect("a literal of visible ASCII is a member id"),
        sender_key: MemberKey::parse(&row.sender_pubkey).unwrap_or(MemberKey([0; 32])),
        sender_name: row.sender_name,
        body: row.body.unwrap_or_default(),
        meta: row.meta,
        reply_to_id: row.reply_to_id,
        mentions: row.mentions.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
        priority: Priority::from_name(&row.priority).unwrap_or_default(),
        sent_at: row.sent_at.map(UnixMillis),
        received_at: UnixMillis(row.received_at),
        kind: MessageKind::from_name(&row.kind).unwrap_or(MessageKind::Direct),
        unencrypted: row.unencrypted,
        stale: row.stale,
        before_recovery: row.before_recovery,
        auto_hops: row.auto_hops.map_or(0, |hops| u32::try_from(hops).unwrap_or(0)),
    }
}
