//! Who has to be told after a commit, wherever they are connected.
//!
//! What it is for: the accept path says what happened; a fan-out brings it to
//! the connections of this process and, where several brokers share a database,
//! to the others.
//! What runs here: nothing on its own.
//! What it guarantees: nothing that must arrive depends on it. The row in the
//! database is the truth; a copy that no fan-out brought is found by the scan.
//! What it must not do: wait for a slow connection.

pub mod local;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::session::terms::Copy;

/// Which connections of the receiving member get a copy at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Those opened by the member key, or its sessions if there are none.
    Member,
    /// The session with this key.
    Session(String),
    /// All visible ones.
    Everyone,
    /// All visible ones in this group.
    Group(String),
}

/// A committed copy on its way out.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// The receiver.
    pub member_id: String,
    /// Which of its connections.
    pub route: Arc<Route>,
    /// The copy.
    pub copy: Copy,
}

/// Who gets an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody in the mesh but this member.
    OtherMembers(String),
    /// Everybody in the mesh but this connection.
    OtherConnections(String),
    /// The connections of these members that negotiated `topic_e2e`.
    TopicMembers(BTreeSet<String>),
    /// Everybody in the mesh who knows the frames that came with negotiation.
    Negotiating,
    /// The connections of members who may administer the mesh, as far as they
    /// negotiated the concurrency policy.
    Admins,
}

/// Brings committed copies and events to connections.
pub trait Fanout: Debug + Send + Sync {
    /// Whether a copy would be taken at once; then it is written as pushed.
    /// Names the connection.
    fn taker(&self, mesh_id: &str, sender_id: &str, member_id: &str, route: &Route) -> Option<String>;

    /// Whether the receiver is connected, however slow it is.
    fn is_online(&self, mesh_id: &str, member_id: &str) -> bool;

    /// Brings copies of one mesh.
    fn copies(&self, mesh_id: &str, copies: Vec<Outbound>);

    /// Brings an event. Returns how many connections had no room for it.
    fn event(&self, mesh_id: &str, audience: &Audience, text: &Utf8Bytes) -> usize;
}
