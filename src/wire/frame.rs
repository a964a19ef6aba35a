//! Every frame of the link, as one type per direction.

use serde::Serialize;

use super::admin::{
    ApiKeyCreate, ApiKeyCreated, ApiKeyList, ApiKeyRevoke, ApiKeysList, InviteCreate, InviteList, InviteRevoke,
    InvitesList, MemberRevoke, MembersGet, MeshPolicy, MeshPolicyGet, MeshPolicySet,
};
use super::certificate::{MemberCertificateFound, MemberCertificateGet, MemberCertificatePut};
use super::delivery::{Ack, ClientAck, DeliveryStatus, MessageStatus, MessageStatusResult, Push, ReceiverReady, Send};
use super::features::{CloseReason, Drain, NegotiationRequest, NegotiationResponse};
use super::hello::{ErrorFrame, Hello, HelloAck, SessionHello};
use super::history::{HistoryGet, HistoryPage};
use super::pieces::Piece;
use super::presence::{JoinGroup, LeaveGroup, SetProfile, SetStats, SetStatus, SetSummary, SetVisible};
use super::roster::{Bare, ListRequest, MemberRename, MemberRotate, MemberRotated, MembersList, PeersList};
use super::topics::{
    TopicCreate, TopicCreated, TopicEpoch, TopicEpochNew, TopicHistory, TopicHistoryGet, TopicKeyGet, TopicKeyPut,
    TopicKeys, TopicList, TopicMembers, TopicPending, TopicRequest,
};

/// A frame whose type this version does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownFrame {
    /// The value of `type`.
    pub kind: String,
    /// The value of `_reqId`, to answer with.
    pub req_id: Option<String>,
}

macro_rules! frames {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $tag:literal => $variant:ident($body:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "type")]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $tag)] $variant($body),)*
            /// A frame of another version; never sent.
            #[serde(skip)]
            Unknown(UnknownFrame),
        }

        impl $name {
            /// Every known value of `type`.
            pub const KINDS: &'static [&'static str] = &[$($tag,)*];

            /// The value of `type`.
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $tag,)*
                    Self::Unknown(unknown) => &unknown.kind,
                }
            }
        }

        impl super::codec::Frame for $name {
            fn body<'de, D: serde::Deserializer<'de>>(kind: &str, body: D) -> Result<Option<Self>, D::Error> {
                match kind {
                    $($tag => <$body as serde::Deserialize>::deserialize(body).map(|body| Some(Self::$variant(body))),)*
                    _ => Ok(None),
                }
            }

            fn unknown(frame: UnknownFrame) -> Self {
                Self::Unknown(frame)
            }
        }
    };
}

frames! {
    /// What a client sends.
    ClientFrame {
        /// Opens a connection.
        "hello" => Hello(Box<Hello>),
        /// Opens a session's connection.
        "session_hello" => SessionHello(Box<SessionHello>),
        /// Asks for features.
        "feature_negotiation_request" => NegotiationRequest(NegotiationRequest),
        /// A message.
        "send" => Send(Box<Send>),
        /// A push is on disk.
        "client_ack" => ClientAck(ClientAck),
        /// Asks what became of a message.
        "message_status" => MessageStatus(MessageStatus),
        /// Asks who is connected.
        "list_peers" => ListPeers(ListRequest),
        /// Asks who is a member.
        "member_list" => MemberList(ListRequest),
        /// Registers a new key.
        "member_rotate" => MemberRotate(Box<MemberRotate>),
        /// Changes the own name.
        "member_rename" => MemberRename(MemberRename),
        /// Stores the own certificate.
        "member_certificate_put" => MemberCertificatePut(Box<MemberCertificatePut>),
        /// Asks for a member's certificate.
        "member_certificate_get" => MemberCertificateGet(MemberCertificateGet),
        /// Ends the own membership.
        "member_leave" => MemberLeave(Bare),
        /// Ends a membership.
        "member_revoke" => MemberRevoke(MemberRevoke),
        /// Asks who is a member, without a connection.
        "members_get" => MembersGet(MembersGet),
        /// Asks what the owner has set.
        "mesh_policy_get" => MeshPolicyGet(MeshPolicyGet),
        /// Changes it.
        "mesh_policy_set" => MeshPolicySet(MeshPolicySet),
        /// Stores an invite.
        "invite_create" => InviteCreate(InviteCreate),
        /// Asks for the invites.
        "invite_list" => InviteList(InviteList),
        /// Takes an invite back.
        "invite_revoke" => InviteRevoke(InviteRevoke),
        /// Makes an API key.
        "api_key_create" => ApiKeyCreate(ApiKeyCreate),
        /// Asks for the API keys.
        "api_key_list" => ApiKeyList(ApiKeyList),
        /// Ends an API key.
        "api_key_revoke" => ApiKeyRevoke(ApiKeyRevoke),
        /// Asks for older messages.
        "history_get" => HistoryGet(HistoryGet),
        /// Makes a topic.
        "topic_create" => TopicCreate(Box<TopicCreate>),
        /// Asks for the topics.
        "topic_list" => TopicList(Bare),
        /// Comes into a topic.
        "topic_join" => TopicJoin(TopicRequest),
        /// Goes out of a topic.
        "topic_leave" => TopicLeave(TopicRequest),
        /// Asks who is in a topic.
        "topic_members" => TopicMembers(TopicRequest),
        /// Asks for what was posted.
        "topic_history" => TopicHistory(TopicHistoryGet),
        /// Has read a topic.
        "topic_mark_read" => TopicMarkRead(TopicRequest),
        /// Begins an epoch of a topic's key.
        "topic_epoch_new" => TopicEpochNew(Box<TopicEpochNew>),
        /// Gives a topic's key to members.
        "topic_key_put" => TopicKeyPut(TopicKeyPut),
        /// Asks for a topic's keys.
        "topic_key_get" => TopicKeyGet(TopicKeyGet),
        /// Asks who waits for a key.
        "topic_key_pending" => TopicKeyPending(Bare),
        /// Sets the own status.
        "set_status" => SetStatus(SetStatus),
        /// Sets the own summary.
        "set_summary" => SetSummary(SetSummary),
        /// Shows or hides oneself.
        "set_visible" => SetVisible(SetVisible),
        /// Sets the own profile.
        "set_profile" => SetProfile(SetProfile),
        /// Sets the own counters.
        "set_stats" => SetStats(SetStats),
        /// Joins a group.
        "join_group" => JoinGroup(JoinGroup),
        /// Leaves a group.
        "leave_group" => LeaveGroup(LeaveGroup),
        /// The next part of a large frame.
        "piece" => Piece(Piece),
        /// Says why the client closes.
        "close_reason" => CloseReason(CloseReason),
    }
}

frames! {
    /// What a broker sends.
    ServerFrame {
        /// The connection is open.
        "hello_ack" => HelloAck(Box<HelloAck>),
        /// A refusal.
        "error" => Error(ErrorFrame),
        /// What the broker can do.
        "feature_negotiation_response" => NegotiationResponse(NegotiationResponse),
        /// The answer to a message.
        "ack" => Ack(Box<Ack>),
        /// A message or an event.
        "push" => Push(Box<Push>),
        /// How an own message ended.
        "delivery_status" => DeliveryStatus(DeliveryStatus),
        /// There is room for a receiver again.
        "receiver_ready" => ReceiverReady(ReceiverReady),
        /// What became of a message.
        "message_status_result" => MessageStatusResult(MessageStatusResult),
        /// Who is connected.
        "peers_list" => PeersList(PeersList),
        /// Who is a member.
        "members_list" => MembersList(MembersList),
        /// The new key is registered.
        "member_rotated" => MemberRotated(MemberRotated),
        /// A member's certificate.
        "member_certificate" => MemberCertificate(Box<MemberCertificateFound>),
        /// What the owner has set.
        "mesh_policy" => MeshPolicy(MeshPolicy),
        /// Invites.
        "invites_list" => InvitesList(InvitesList),
        /// API keys.
        "api_keys_list" => ApiKeysList(ApiKeysList),
        /// A new API key.
        "api_key_created" => ApiKeyCreated(ApiKeyCreated),
        /// Older messages.
        "history_page" => HistoryPage(HistoryPage),
        /// The topic.
        "topic_created" => TopicCreated(TopicCreated),
        /// Topics.
        "topic_list_response" => TopicList(TopicList),
        /// Who is in a topic.
        "topic_members_response" => TopicMembers(TopicMembers),
        /// What was posted.
        "topic_history_response" => TopicHistory(TopicHistory),
        /// The newest epoch of a topic's key.
        "topic_epoch" => TopicEpoch(Box<TopicEpoch>),
        /// Epochs and the asker's keys.
        "topic_keys" => TopicKeys(TopicKeys),
        /// Who waits for a key.
        "topic_pending" => TopicPending(TopicPending),
        /// The next part of a large frame.
        "piece" => Piece(Piece),
        /// Says why the broker closes.
        "close_reason" => CloseReason(CloseReason),
        /// The broker is about to restart.
        "drain" => Drain(Drain),
    }
}
