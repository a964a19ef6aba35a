//! What a connection is made of: who it is, what it says about itself, what is
//! sent to it, how it ends.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::broker::roster::Mesh;
use crate::broker::store::entity::message;
use crate::domain::time::UnixMillis;
use crate::wire::close;
use crate::wire::features::{CloseReason, Drain};
use crate::wire::frame::ServerFrame;
use crate::wire::hello::Group;

/// About how long a restart takes, in milliseconds. Clients come back then or a
/// little later.
const RESTART_MS: u64 = 1_000;

/// Which hello opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `hello`: a daemon or a CLI call, by the member key.
    Member,
    /// `session_hello`: one launched session, by its own key.
    Session,
}

/// What a connection says about itself and may change.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Name of the connection; the member's name if empty.
    pub display_name: Option<String>,
    /// `idle`, `working` or `dnd`.
    pub status: String,
    /// Free text.
    pub summary: Option<String>,
    /// A hidden peer is in nobody else's list and gets no multicast.
    pub visible: bool,
    /// Groups of this connection.
    pub groups: Vec<Group>,
    /// Counters.
    pub stats: Option<Value>,
    /// Avatar, title, bio, capabilities.
    pub profile: Option<Value>,
}

/// What a hello says about a connection and nothing changes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The client's session id.
    pub session_id: String,
    /// Routing key, if not the member key.
    pub session_pubkey: Option<String>,
    /// The state directory of our daemons.
    pub instance_id: Option<String>,
    /// The process of our daemons.
    pub boot_id: Option<String>,
    /// Asks not to evict anybody.
    pub yields: bool,
    /// A live connection has the same state directory: two hosts share it.
    pub second_host: bool,
    /// Working directory.
    pub cwd: String,
    /// Host name.
    pub hostname: Option<String>,
    /// `ai`, `human` or `connector`.
    pub peer_type: Option<String>,
    /// Kind of client.
    pub channel: Option<String>,
    /// Model name.
    pub model: Option<String>,
}

/// Which hello of which state directory a connection is. Whatever a connection
/// writes counts only while no newer hello of the directory was taken anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The mesh by id.
    pub mesh_id: String,
    /// The member by id.
    pub member_id: String,
    /// The state directory.
    pub instance_id: String,
    /// Counts its hellos.
    pub generation: i64,
}

/// A message on its way to this connection.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The receiver's copy.
    pub delivery_id: String,
    /// The message.
    pub message: Arc<message::Model>,
}

/// An answer or an event.
#[derive(Debug)]
pub enum Reply {
    /// To be written as a frame.
    Frame(Box<ServerFrame>),
    /// The answer to a send; frees its place among those in flight.
    Ack(Box<ServerFrame>),
    /// Written already, the same bytes for many connections.
    Shared(Utf8Bytes),
    /// How a message of this member ended: the copy's id, and the frame.
    Ending(String, Utf8Bytes),
}

/// How a connection ends by the broker's will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Close code; `None` cuts the connection without a word.
    pub code: Option<u16>,
    /// Close reason.
    pub reason: String,
    /// The frame that goes before, for clients that negotiate.
    pub why: Option<CloseReason>,
}

/// The receiving ends of a connection's queues.
#[derive(Debug)]
pub struct Queues {
    /// Answers and events.
    pub replies: mpsc::Receiver<Reply>,
    /// Live messages.
    pub copies: mpsc::Receiver<Copy>,
}

/// Who a new connection is.
#[derive(Debug)]
pub struct Identity {
    /// Names the connection.
    pub presence_id: String,
    /// The mesh.
    pub mesh: Arc<Mesh>,
    /// The member.
    pub member_id: String,
    /// The member's key.
    pub member_pubkey: String,
    /// Which hello.
    pub kind: Kind,
    /// What the hello said.
    pub facts: Facts,
    /// When it first connected.
    pub connected_at: UnixMillis,
    /// Counts the hellos of the instance; 0 without one.
    pub generation: i64,
    /// What it says about itself.
    pub profile: Profile,
}

// === impl Reply ===

impl Reply {
    /// A frame as an answer.
    pub fn frame(frame: ServerFrame) -> Self {
        Self::Frame(Box::new(frame))
    }
}

// === impl End ===

impl End {
    /// A close without a frame before it.
    pub fn close(code: u16, reason: impl Into<String>) -> Self {
        Self { code: Some(code), reason: reason.into(), why: None }
    }

    /// A cut without a closing handshake: nobody is there to shake hands.
    pub fn cut(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into(), why: None }
    }

    /// A close that says why in a frame first.
    pub fn explained(code: u16, kind: &str, detail: &str, retryable: bool) -> Self {
        let why = CloseReason { kind: kind.to_owned(), feature: None, detail: detail.to_owned(), code, retryable };
        Self { code: Some(code), reason: close::reason(code).to_owned(), why: Some(why) }
    }

    /// The frames before the close, for clients that negotiate.
    pub fn last_words(&self) -> Option<ServerFrame> {
        match (&self.why, self.code) {
            (Some(why), _) => Some(ServerFrame::CloseReason(why.clone())),
            (None, Some(close::GOING_AWAY)) => Some(ServerFrame::Drain(Drain { reconnect_after_ms: RESTART_MS })),
            _ => None,
        }
    }

    /// The close of a client that needs a feature that is not there.
    pub fn lacking(feature: &str) -> Self {
        let detail = format!("this broker does not have {feature}");
        let end = Self::explained(close::FEATURE_UNAVAILABLE, "feature_unavailable", &detail, false);
        let why = end.why.map(|why| CloseReason { feature: Some(feature.to_owned()), ..why });
        Self { why, ..end }
    }
}
