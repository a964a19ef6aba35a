//! System events: pushes with `subtype: "system"` that carry news instead of a
//! message.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::delivery::{Priority, Push};
use super::features::ConcurrencyPolicy;
use super::hello::Group;
use super::roster::RotationStatement;
use super::topics::TopicChange;

/// The `subtype` of an event.
pub const SYSTEM: &str = "system";

/// A peer that came, went, showed or hid itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerEvent {
    /// The connection's name.
    pub name: String,
    /// Its routing key.
    pub pubkey: String,
    /// Its groups; written on joins and returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// ISO 8601, on returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<String>,
    /// Free text, on returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// A member that was revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRevoked {
    /// The member by id.
    pub member_id: String,
    /// Its key.
    pub pubkey: String,
    /// Unix ms.
    pub revoked_at: i64,
}

/// A member that changed its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRenamed {
    /// The member by id.
    pub member_id: String,
    /// Its key.
    pub pubkey: String,
    /// The name before.
    pub old_name: String,
    /// The name now.
    pub display_name: String,
}

/// A member that connected while it was connected; told to owners (R72).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrentConnection {
    /// The member by id.
    pub member_id: String,
    /// Its key.
    pub pubkey: String,
    /// The policy that decided.
    pub policy: ConcurrencyPolicy,
}

/// News from the broker. None of it is signed, except the rotation.
#[derive(Clone, Debug, PartialEq)]
pub enum SystemEvent {
    /// `peer_joined`.
    PeerJoined(PeerEvent),
    /// `peer_returned`: it joined and had been here before.
    PeerReturned(PeerEvent),
    /// `peer_left`.
    PeerLeft(PeerEvent),
    /// `peer_visible`.
    PeerVisible(PeerEvent),
    /// `peer_hidden`.
    PeerHidden(PeerEvent),
    /// `peers_changed`: what somebody shows of itself is another than before. It
    /// names nobody: it may be about one that hides itself.
    PeersChanged,
    /// `member_keypair_rotated`.
    MemberKeypairRotated(RotationStatement),
    /// `member_revoked`; some brokers say `keypair_revoked`.
    MemberRevoked(MemberRevoked),
    /// `member_renamed`.
    MemberRenamed(MemberRenamed),
    /// `member_concurrent_connection`.
    MemberConcurrentConnection(ConcurrentConnection),
    /// `topic_epoch`: a topic has a new key.
    TopicEpoch(TopicChange),
    /// `topic_key_available`: a copy of a key is there for the receiver.
    TopicKeyAvailable(TopicChange),
    /// `topic_members_changed`: somebody came or went.
    TopicMembersChanged(TopicChange),
    /// An event of another version, or data of another shape.
    Other {
        /// The event's name.
        event: String,
        /// Its data.
        data: Value,
    },
}

// === impl SystemEvent ===

impl SystemEvent {
    /// The event of a push; `None` when the push is not one.
    pub fn of(push: &Push) -> Option<Self> {
        if push.subtype.as_deref() != Some(SYSTEM) {
            return None;
        }
        let event = push.event.as_deref().unwrap_or_default();
        let data = push.event_data.as_ref().unwrap_or(&Value::Null);
        let typed = match event {
            "peer_joined" => PeerEvent::deserialize(data).map(Self::PeerJoined),
            "peer_returned" => PeerEvent::deserialize(data).map(Self::PeerReturned),
            "peer_left" => PeerEvent::deserialize(data).map(Self::PeerLeft),
            "peer_visible" => PeerEvent::deserialize(data).map(Self::PeerVisible),
            "peer_hidden" => PeerEvent::deserialize(data).map(Self::PeerHidden),
            "peers_changed" => Ok(Self::PeersChanged),
            "member_keypair_rotated" => RotationStatement::deserialize(data).map(Self::MemberKeypairRotated),
            "member_revoked" | "keypair_revoked" => MemberRevoked::deserialize(data).map(Self::MemberRevoked),
            "member_renamed" => MemberRenamed::deserialize(data).map(Self::MemberRenamed),
            "member_concurrent_connection" => {
                ConcurrentConnection::deserialize(data).map(Self::MemberConcurrentConnection)
            }
            "topic_epoch" => TopicChange::deserialize(data).map(Self::TopicEpoch),
            "topic_key_available" => TopicChange::deserialize(data).map(Self::TopicKeyAvailable),
            "topic_members_changed" => TopicChange::deserialize(data).map(Self::TopicMembersChanged),
            _ => Ok(Self::Other { event: event.to_owned(), data: data.clone() }),
        };
        Some(typed.unwrap_or_else(|_| Self::Other { event: event.to_owned(), data: data.clone() }))
    }

    /// The event's name.
    pub fn name(&self) -> &str {
        match self {
            Self::PeerJoined(_) => "peer_joined",
            Self::PeerReturned(_) => "peer_returned",
            Self::PeerLeft(_) => "peer_left",
            Self::PeerVisible(_) => "peer_visible",
            Self::PeerHidden(_) => "peer_hidden",
            Self::PeersChanged => "peers_changed",
            Self::MemberKeypairRotated(_) => "member_keypair_rotated",
            Self::MemberRevoked(_) => "member_revoked",
            Self::MemberRenamed(_) => "member_renamed",
            Self::MemberConcurrentConnection(_) => "member_concurrent_connection",
            Self::TopicEpoch(_) => "topic_epoch",
            Self::TopicKeyAvailable(_) => "topic_key_available",
            Self::TopicMembersChanged(_) => "topic_members_changed",
            Self::Other { event, .. } => event,
        }
    }

    /// The push that carries it. `created_at` is ISO 8601.
    pub fn into_push(self, message_id: String, mesh_id: String, created_at: String) -> Push {
        let event = self.name().to_owned();
        Push {
            message_id,
            mesh_id,
            sender_pubkey: SYSTEM.to_owned(),
            priority: Priority::Low,
            created_at,
            subtype: Some(SYSTEM.to_owned()),
            event: Some(event),
            event_data: Some(self.into_data()),
            ..Push::default()
        }
    }

    fn into_data(self) -> Value {
        let data = match self {
            Self::PeerJoined(peer)
            | Self::PeerReturned(peer)
            | Self::PeerLeft(peer)
            | Self::PeerVisible(peer)
            | Self::PeerHidden(peer) => serde_json::to_value(peer),
            Self::PeersChanged => Ok(Value::Object(serde_json::Map::new())),
            Self::MemberKeypairRotated(rotation) => serde_json::to_value(rotation),
            Self::MemberRevoked(revoked) => serde_json::to_value(revoked),
            Self::MemberRenamed(renamed) => serde_json::to_value(renamed),
            Self::MemberConcurrentConnection(second) => serde_json::to_value(second),
            Self::TopicEpoch(change) | Self::TopicKeyAvailable(change) | Self::TopicMembersChanged(change) => {
                serde_json::to_value(change)
            }
            Self::Other { data, .. } => Ok(data),
        };
        data.unwrap_or_default()
    }
}
