//! The frames of a message's way: send, ack, push, client ack, status.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refusal::Refusal;

/// When a receiver wants to see a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// At once, whatever it does.
    Now,
    /// When it is idle.
    #[default]
    Next,
    /// When it is idle, after the others.
    Low,
}

/// `send`: a message on its way to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    /// 64 hex digits, `*`, `@all`, `@<group>` or `#<topicId>`.
    pub target_spec: String,
    /// When the receiver wants to see it.
    pub priority: Priority,
    /// 24 bytes, padded base64.
    pub nonce: String,
    /// Padded base64.
    pub ciphertext: String,
    /// Echoed in the ack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The sender's id of this send, equal on every retry (R147).
    #[serde(rename = "client_message_id", default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// 64 hex digits. Opaque to the broker, which only compares it.
    #[serde(rename = "request_fingerprint", default, skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<String>,
    /// Mentioned members, for topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mentions: Option<Vec<String>>,
    /// The message that this one answers, for legacy topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// 1 plain, 2 sealed under the topic key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_version: Option<u32>,
    /// The key that sealed it: a current or rotated-out key of this member.
    #[serde(rename = "sender_key", default, skip_serializing_if = "Option::is_none")]
    pub sender_key: Option<String>,
    /// The key that it is sealed for, when the target names the member.
    #[serde(rename = "recipient_key", default, skip_serializing_if = "Option::is_none")]
    pub recipient_key: Option<String>,
    /// Epoch of the topic key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<u32>,
    /// The topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `ack`: the broker's answer to `send` and to a few other frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The request's `id`, or empty.
    #[serde(default)]
    pub id: String,
    /// The broker's id of the message, or empty. On a key reuse: of the first one.
    #[serde(default)]
    pub message_id: String,
    /// `false` on failure. Answers to other frames say `false` without an error.
    #[serde(default = "queued_unless_said")]
    pub queued: bool,
    /// Failure text; legacy clients search it for words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
    /// The message's id in the history; the same as `message_id` at our broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_id: Option<String>,
    /// The broker had this id with the same fingerprint already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// Whether the history still holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_available: Option<bool>,
    /// When the broker first saw the id, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_at: Option<i64>,
    /// A [`Refusal`], or a code of a newer broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether the same request can succeed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// Milliseconds until a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// `push`: a message or an event on its way to a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// The broker's id of the message.
    pub message_id: String,
    /// The mesh by id.
    pub mesh_id: String,
    /// The key that sealed it, `system`, or `webhook:<name>`.
    pub sender_pubkey: String,
    /// When the receiver wants to see it.
    pub priority: Priority,
    /// 24 bytes, padded base64; empty on events.
    pub nonce: String,
    /// Padded base64; empty on events.
    pub ciphertext: String,
    /// When the broker accepted it, ISO 8601.
    pub created_at: String,
    /// The sender by member id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_id: Option<String>,
    /// The sender by member key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_pubkey: Option<String>,
    /// The sender's name, as the broker has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
    /// The sender's id of the message.
    #[serde(rename = "client_message_id", default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// Echo of the sender's fingerprint; legacy brokers only.
    #[serde(rename = "request_fingerprint", default, skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<String>,
    /// `*`, `@all` or `@<group>` on a multicast, whose text is not sealed.
    /// Extension: without it a receiver could not tell it from a message to
    /// itself alone, and clear text is never accepted as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_spec: Option<String>,
    /// The topic's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The topic by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The message that this one answers, for legacy topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// 1 plain, 2 sealed under the topic key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_version: Option<u32>,
    /// Epoch of the topic key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<u32>,
    /// Names this receiver's copy; what `client_ack` settles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
    /// The message's id in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_id: Option<String>,
    /// The key that the sender sealed it for; absent on multicasts and events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_key: Option<String>,
    /// The copy was pushed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redelivery: Option<bool>,
    /// `system`, `webhook` or `reminder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<String>,
    /// The event's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The event's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_data: Option<Value>,
}

/// What the receiver did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// It was opened and is in the inbox.
    Stored,
    /// It is kept sealed until its key comes; another acknowledgement follows. Only
    /// on connections that negotiated `delivery_outcome`.
    Waiting,
    /// It could not be opened or checked; kept aside.
    Quarantined,
}

/// Why a receiver's daemon could not use a message. It says nothing of the
/// receiver's keys beyond that none of them opened it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// No key that the receiver has opens it, or nobody that it knows sealed it.
    /// Stands also for a reason that was not given or is not known.
    #[default]
    Unreadable,
    /// It is malformed, or what is inside does not fit what is outside.
    Invalid,
    /// It is of a topic that the receiver is not subscribed to any more.
    NotSubscribed,
}

/// `receiver_ready`: a receiver for whom sends were refused with `recipient_queue_full` takes
/// messages again. Only on connections that negotiated `receiver_ready`; a hint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverReady {
    /// The member, for messages to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// The topic, for posts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
}

/// `client_ack`: the receiver has the message on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAck {
    /// The copy; preferred, because it names exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
    /// The sender's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// The broker's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_message_id: Option<String>,
    /// Absent means stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ReceiptState>,
    /// Why it was quarantined: a [`RejectReason`], or one of a newer client. Only on
    /// connections that negotiated `delivery_outcome`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Asks for an `ack` once the acknowledgement is noted. Only on connections that
    /// negotiated `delivery_outcome`.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// A receiver's daemon opened and stored it.
    Delivered,
    /// A receiver's daemon could not use it and set it aside. Only on connections
    /// that negotiated `delivery_outcome`.
    Rejected,
    /// Nobody fetched it in time.
    Expired,
}

/// `delivery_status`: the broker's word to the sender, unsigned. Only on
/// connections that negotiated `delivery_ack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// The sender's id of the message.
    pub client_message_id: String,
    /// How it ended.
    pub state: DeliveryState,
    /// When, Unix ms.
    pub at: i64,
    /// Why it was rejected: a [`RejectReason`], or one of a newer broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// At whose daemon, by member id. Only on connections that negotiated
    /// `delivery_outcome`.
    #[serde(rename = "recipientMemberId", default, skip_serializing_if = "Option::is_none")]
    pub recipient_member_id: Option<String>,
}

/// `message_status`: asks what became of an own message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatus {
    /// The broker's id or its first characters (8 to 32).
    pub message_id: String,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// One receiver in [`MessageStatusResult`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientStatus {
    /// The receiver's name.
    pub name: String,
    /// The receiver's routing key.
    pub pubkey: String,
    /// `delivered`, `rejected` or `expired`; while none of them, `held` at one that is
    /// seen to be there, else `disconnected`.
    pub status: String,
}

/// `message_status_result`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatusResult {
    /// The broker's id of the message.
    pub message_id: String,
    /// Where it was sent.
    pub target_spec: String,
    /// Whether a receiver stored it.
    pub delivered: bool,
    /// When, ISO 8601; written as `null` when it was not.
    #[serde(default)]
    pub delivered_at: Option<String>,
    /// The receivers.
    #[serde(default)]
    pub recipients: Vec<RecipientStatus>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// The failed half of an [`Ack`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckFailure<'a> {
    /// The code, if this version knows it.
    pub refusal: Option<Refusal>,
    /// Code or text as the broker wrote it; for people.
    pub text: &'a str,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// Milliseconds until a retry makes sense.
    pub retry_after_ms: Option<u64>,
}

// === impl RejectReason ===

impl RejectReason {
    /// The name in frames, in databases and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Invalid => "invalid",
            Self::NotSubscribed => "not_subscribed",
        }
    }

    /// The reason that another program names.
    pub fn from_name(name: Option<&str>) -> Self {
        let all = [Self::Unreadable, Self::Invalid, Self::NotSubscribed];
        all.into_iter().find(|reason| name == Some(reason.name())).unwrap_or_default()
    }
}

// === impl Ack ===

impl Ack {
    /// A refusal as our broker writes it: a code for our clients, and a text
    /// that makes legacy clients retry or give up as the code says.
    pub fn refused(id: impl Into<String>, refusal: Refusal) -> Self {
        Self {
            id: id.into(),
            queued: false,
            error: Some(refusal.legacy_text().to_owned()),
            code: Some(refusal.as_str().to_owned()),
            retryable: Some(refusal.retryable()),
            ..Self::default()
        }
    }

    /// The failure, if it is one. A broker without codes says nothing reliable
    /// about a retry, so its failures are worth one: no decision is ever made
    /// from the words of a text.
    pub fn failure(&self) -> Option<AckFailure<'_>> {
        let error = self.error.as_deref().filter(|text| !text.is_empty());
        let text = error.or(self.code.as_deref())?;
        let refusal = self.code.as_deref().and_then(Refusal::parse);
        let retryable = self.retryable.or(refusal.map(Refusal::retryable)).unwrap_or(true);
        Some(AckFailure { refusal, text, retryable, retry_after_ms: self.retry_after_ms })
    }
}

fn queued_unless_said() -> bool {
    true
}
