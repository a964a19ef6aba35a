//! What the daemon tells its subscribers.

use std::sync::Arc;

use super::error_code::ErrorCode;
use super::ids::{EventId, MemberId, MemberKey};
use super::message::Priority;
use super::pressure::Pressure;
use super::time::UnixMillis;

/// How a message was addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// To this member alone.
    Direct,
    /// To a topic.
    Topic,
    /// To everybody.
    Broadcast,
    /// To a group.
    Group,
    /// The announcement of a shared file.
    File,
}

/// A message as the inbox holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    /// The row's own id, a ULID.
    pub id: String,
    /// Its place in the inbox.
    pub event_id: EventId,
    /// The sender's id of the message; `b:<broker id>` for senders without one.
    pub client_message_id: String,
    /// The broker's id of the message.
    pub broker_message_id: String,
    /// The broker's id in its history.
    pub history_id: Option<String>,
    /// The mesh's slug.
    pub mesh: String,
    /// The topic's name.
    pub topic: Option<String>,
    /// Who sent it, from the pinned roster.
    pub sender_member_id: MemberId,
    /// The key that opened it.
    pub sender_key: MemberKey,
    /// The sender's name.
    pub sender_name: String,
    /// The text.
    pub body: String,
    /// Canonical JSON.
    pub meta: Option<String>,
    /// The message that this one answers.
    pub reply_to_id: Option<String>,
    /// Ids of mentioned members.
    pub mentions: Vec<String>,
    /// How urgent.
    pub priority: Priority,
    /// When the sender's daemon accepted it, by the sender's clock.
    pub sent_at: Option<UnixMillis>,
    /// When it was stored here.
    pub received_at: UnixMillis,
    /// How it was addressed.
    pub kind: MessageKind,
    /// It came in clear text.
    pub unencrypted: bool,
    /// It is older than what this inbox remembers; no hook runs for it.
    pub stale: bool,
    /// It was written before the inbox was made anew after damage; no hook runs
    /// for it.
    pub before_recovery: bool,
    /// How many automatic sends led to it.
    pub auto_hops: u32,
}

/// What happened. Stored messages have a place in the inbox and can be replayed;
/// all else is live only.
#[derive(Clone, Debug, PartialEq)]
pub enum MeshEvent {
    /// A message was stored.
    Message(Arc<StoredMessage>),
    /// A peer came.
    PeerJoin(PeerChange),
    /// A peer left.
    PeerLeave(PeerChange),
    /// The link to the broker was lost.
    DaemonDisconnect {
        /// Why, for people.
        reason: String,
        /// The code of the WebSocket's close; 0 when there was none.
        close_code: u16,
    },
    /// The link to the broker is back.
    DaemonReconnect {
        /// How long it was away.
        away_ms: u64,
    },
    /// A hook run ended.
    HookExecuted(Box<HookRun>),
    /// The broker lacks what this daemon requires; the daemon ends.
    FeatureNegotiationFailed {
        /// Which feature.
        feature: String,
        /// What is wrong with it.
        detail: String,
        /// Every required feature that is missing.
        missing: Vec<String>,
    },
    /// An own send changed its state.
    DeliveryStatus(DeliveryStatus),
    /// The outbox has reached a step of being full (R194).
    OutboxPressureHigh(Pressure),
    /// The outbox is below its first step again.
    OutboxPressureCleared(Pressure),
    /// The broker shows another key for a known member.
    MemberKeyChanged {
        /// The member.
        member_id: MemberId,
        /// Its name.
        display_name: String,
        /// The pinned key.
        pinned: MemberKey,
        /// The key that the broker shows.
        shown: MemberKey,
    },
    /// A member claims a name that is bound to another one.
    NameBindingChanged {
        /// The name.
        name: String,
        /// Whose it is.
        bound_to: MemberId,
        /// Who claims it.
        claimed_by: MemberId,
    },
    /// A member has a new key, by a statement that its old key signed.
    MemberKeypairRotated {
        /// The member.
        member_id: MemberId,
        /// Its name.
        display_name: String,
        /// The key before.
        old: MemberKey,
        /// The key from now on.
        new: MemberKey,
    },
    /// A member has another name.
    MemberRenamed {
        /// The member.
        member_id: MemberId,
        /// Its key.
        key: MemberKey,
        /// The name before.
        old_name: String,
        /// The name from now on.
        new_name: String,
    },
    /// A member was removed from the mesh.
    MemberRevoked {
        /// The member.
        member_id: MemberId,
        /// Its key.
        key: MemberKey,
        /// Its name.
        display_name: String,
        /// It is this daemon's own.
        is_self: bool,
    },
    /// The broker shows a member without what its key has signed for.
    PeerFeatureDowngrade {
        /// The member.
        member_id: MemberId,
        /// Its name.
        display_name: String,
        /// What is missing.
        missing: Vec<String>,
    },
}

/// Who came or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerChange {
    /// The member, when it is pinned here.
    pub member_id: Option<MemberId>,
    /// The key that it is reached by.
    pub key: MemberKey,
    /// Its name.
    pub display_name: String,
}

/// One ended run of a hook (R249).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookRun {
    /// The hook's name.
    pub hook: String,
    /// The event that started it.
    pub message_id: String,
    /// Its exit code; `None` when a signal ended it or it did not start.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// It took longer than it may.
    pub timed_out: bool,
    /// Milliseconds from start to end.
    pub duration_ms: u32,
    /// Bytes that it wrote to standard output, kept or not.
    pub stdout_bytes: u32,
    /// Bytes that it wrote to standard error, kept or not.
    pub stderr_bytes: u32,
    /// A reply was queued.
    pub replied: bool,
    /// Calls with its token.
    pub capability_calls: u32,
    /// Policies that could not be enforced.
    pub unenforced: Vec<String>,
    /// Why it did not start; empty when it did.
    pub start_error: String,
    /// When it started, or should have.
    pub started_at: UnixMillis,
}

/// The state of an own send after the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// Which send.
    pub client_message_id: String,
    /// What is known now.
    pub state: SendState,
    /// The broker's id, once it has one.
    pub broker_message_id: Option<String>,
    /// The broker's id in its history, once it has one.
    pub history_id: Option<String>,
    /// Where it was sent to; of a post that a receiver has stored or not, that
    /// receiver. `None` for a send that is not in the outbox.
    pub recipient: Option<SentTo>,
    /// When it happened.
    pub at: UnixMillis,
    /// Why it failed.
    pub failure: Option<SendFailure>,
}

/// Where an own send goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentTo {
    /// How it is addressed.
    pub kind: MessageKind,
    /// The member, where it is one.
    pub member_id: String,
    /// Its key: 64 hex digits, where it is known.
    pub key: String,
    /// The topic, where it is one.
    pub topic_id: String,
    /// The name of the member, topic or group.
    pub name: String,
}

/// Why an own send failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendFailure {
    /// The code that callers decide by.
    pub code: ErrorCode,
    /// For people.
    pub text: String,
    /// Why its receiver set it aside, by name.
    pub reason: Option<String>,
}

/// How far an own send has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendState {
    /// The broker has it.
    Accepted,
    /// The receiver's daemon has stored it. The broker's word.
    Delivered,
    /// The receiver's daemon could not use it. The broker's word.
    Rejected,
    /// Nobody took it in time. The broker's word.
    Expired,
    /// The daemon has given up.
    Dead,
}

// === impl MessageKind ===

impl MessageKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Direct, Self::Topic, Self::Broadcast, Self::Group, Self::File];

    /// The name in the database and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Broadcast => "broadcast",
            Self::Group => "group",
            Self::File => "file",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

// === impl MeshEvent ===

impl MeshEvent {
    /// The name in an event stream.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Message(message) if message.kind == MessageKind::File => "file_shared",
            Self::Message(_) => "message",
            Self::PeerJoin(_) => "peer_join",
            Self::PeerLeave(_) => "peer_leave",
            Self::DaemonDisconnect { .. } => "daemon_disconnect",
            Self::DaemonReconnect { .. } => "daemon_reconnect",
            Self::HookExecuted(_) => "hook_executed",
            Self::FeatureNegotiationFailed { .. } => "feature_negotiation_failed",
            Self::DeliveryStatus(_) => "delivery_status",
            Self::OutboxPressureHigh(_) => "outbox_pressure_high",
            Self::OutboxPressureCleared(_) => "outbox_pressure_cleared",
            Self::MemberKeyChanged { .. } => "member_key_changed",
            Self::NameBindingChanged { .. } => "name_binding_changed",
            Self::MemberKeypairRotated { .. } => "member_keypair_rotated",
            Self::MemberRenamed { .. } => "member_renamed",
            Self::MemberRevoked { .. } => "member_revoked",
            Self::PeerFeatureDowngrade { .. } => "peer_feature_downgrade",
        }
    }

    /// The place in the inbox, for events that have one.
    pub fn id(&self) -> Option<&EventId> {
        match self {
            Self::Message(message) => Some(&message.event_id),
            _ => None,
        }
    }
}

// === impl HookRun ===

impl HookRun {
    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        // One that ends with 0 because its time is up did not finish its work.
        self.exit_code == Some(0) && !self.timed_out
    }
}

// === impl SendState ===

impl SendState {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Dead => "dead",
        }
    }
}
