//! Who is in the mesh: the pinned roster and who is connected now.
//!
//! What it is for: destinations resolve over the list of all members that this
//! daemon has pinned, hidden and offline ones included, also without a link.
//! What runs here: one task (`follower.rs`) that follows the link's news.
//! What it guarantees: a member keeps the key of its first sight and a name its
//! first bearer (`domain::pinning`), whatever the broker says later.
//! What it must not do: ask the broker who a destination means.

pub mod entity;
mod error;
mod follower;
mod repo;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub use self::error::Error;
use self::follower::Follower;
use crate::broker_client;
use crate::db::connect::Sqlite;
use crate::domain::ids::MemberKey;
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::identity::Identity;
use crate::runtime::clock::Clock;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};

/// How long a caller waits for a fresh roster.
const REFRESH_LIMIT: Duration = Duration::from_secs(2);

/// A connection of some member, as the broker shows it. Information for people:
/// nothing is decided by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    /// The key that the connection is reached by.
    pub key: MemberKey,
    /// The member's key.
    pub member_key: MemberKey,
    /// The connection's name.
    pub display_name: String,
    /// `idle`, `working` or `dnd`.
    pub status: String,
    /// What it is doing, in its own words.
    pub summary: Option<String>,
    /// Names of its groups.
    pub groups: Vec<String>,
    /// `control-plane`, `session` or `service`.
    pub role: String,
    /// Its host.
    pub hostname: Option<String>,
    /// When it connected, RFC 3339.
    pub connected_at: String,
    /// The broker's id of the session.
    pub session_id: String,
    /// Whether others see it.
    pub visible: bool,
}

/// When the broker told of presence, and of whom.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    /// When it last told who is connected.
    pub as_of: Option<UnixMillis>,
    /// When it last told that a member is connected, since the start.
    pub last_seen: BTreeMap<MemberKey, UnixMillis>,
}

/// The roster for the rest of the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    members: watch::Receiver<Arc<Vec<PinnedMember>>>,
    presence: watch::Receiver<Arc<Vec<Presence>>>,
    sightings: watch::Receiver<Arc<Sightings>>,
    refresh: mpsc::Sender<oneshot::Sender<()>>,
}

/// The roster's task, built but not started.
#[derive(Debug)]
pub struct Parts {
    follower: Follower,
    handle: Handle,
}

/// Reads the pinned members.
pub async fn prepare(
    db: Sqlite,
    identity: Identity,
    link: broker_client::Handle,
    hub: Hub,
    clock: Clock,
    supervisor: &Supervisor,
) -> Result<Parts, Error> {
    let pinned = repo::all(db.readers()).await?;
    let (members_tx, members) = watch::channel(Arc::new(pinned));
    let (presence_tx, presence) = watch::channel(Arc::default());
    let (sightings_tx, sightings) = watch::channel(Arc::default());
    let (refresh, requests) = mpsc::channel(64);
    let follower = Follower {
        db,
        identity,
        link,
        hub,
        clock,
        members: members_tx,
        presence: presence_tx,
        sightings: sightings_tx,
        requests,
        stop: supervisor.token(Phase::Workers),
    };
    Ok(Parts { follower, handle: Handle { members, presence, sightings, refresh } })
}

// === impl Parts ===

impl Parts {
    /// The handle, also before the task runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the task.
    pub fn spawn(self, news: mpsc::Receiver<broker_client::News>, supervisor: &Supervisor) {
        supervisor.spawn(TaskKind::Peers, "peers", self.follower.run(news));
    }
}

// === impl Handle ===

impl Handle {
    /// All pinned members.
    pub fn members(&self) -> Arc<Vec<PinnedMember>> {
        Arc::clone(&self.members.borrow())
    }

    /// A signal for each change of the pinned members.
    pub fn changes(&self) -> watch::Receiver<Arc<Vec<PinnedMember>>> {
        self.members.clone()
    }

    /// Who is connected, as the broker said last.
    pub fn presence(&self) -> Arc<Vec<Presence>> {
        Arc::clone(&self.presence.borrow())
    }

    /// When presence was told of, and of whom. It outlives the link.
    pub fn sightings(&self) -> Arc<Sightings> {
        Arc::clone(&self.sightings.borrow())
    }

    /// Whether some connection of this member is live, as the broker said last.
    pub fn is_online(&self, key: MemberKey) -> bool {
        self.presence.borrow().iter().any(|peer| peer.member_key == key)
    }

    /// The pinned member with this key.
    pub fn by_key(&self, key: MemberKey) -> Option<PinnedMember> {
        self.members.borrow().iter().find(|member| member.key == key).cloned()
    }

    /// Asks the broker for the roster now and waits for it, at most two seconds.
    /// False when it did not come.
    pub async fn refresh(&self) -> bool {
        let (reply, done) = oneshot::channel();
        if self.refresh.send(reply).await.is_err() {
            return false;
        }
        tokio::time::timeout(REFRESH_LIMIT, done).await.is_ok_and(|done| done.is_ok())
    }
}
