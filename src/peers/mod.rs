//! Who is in the mesh: the pinned roster and who is connected now.
//!
//! What it is for: destinations resolve over the list of all members that this
//! daemon has pinned, hidden and offline ones included, also without a link.
//! What runs here: two tasks, one that follows the link's news (`follower.rs`), and
//! one that tells the broker what this member shows of itself (`profile.rs`).
//! What it guarantees: a member keeps the key of its first sight and a name its
//! first bearer (`domain::pinning`), whatever the broker says later; a member
//! counts as certified by the owner's signature alone (`certified.rs`).
//! What it must not do: ask the broker who a destination means.

mod certified;
pub mod entity;
mod error;
mod follower;
mod profile;
mod repo;
mod shown;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::certified::Certificates;
pub use self::certified::{Certified, Trust};
pub use self::error::Error;
use self::follower::Follower;
pub use self::profile::OwnProfile;
use crate::broker_client;
use crate::db::connect::Sqlite;
use crate::domain::certificate::CertifiedRole;
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::key_chain::{self, PreviousKey};
use crate::domain::provenance::Judge;
use crate::domain::roster::{self, Holder, PinnedMember};
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::identity::Identity;
use crate::runtime::clock::Clock;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};

/// Sessions that hide themselves which are remembered.
const MAX_HIDDEN: usize = 1_024;
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
    /// Over which connection to the broker.
    told_over: Option<u64>,
    /// Members that hide themselves.
    pub hidden: BTreeSet<MemberId>,
    /// When it last told that a member is connected, since the start.
    pub last_seen: BTreeMap<MemberKey, UnixMillis>,
}

/// The roster for the rest of the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    members: watch::Receiver<Arc<Vec<PinnedMember>>>,
    presence: watch::Receiver<Arc<Vec<Presence>>>,
    sightings: watch::Receiver<Arc<Sightings>>,
    certified: watch::Receiver<Arc<Certified>>,
    requests: mpsc::Sender<Request>,
    disk_full: Arc<AtomicBool>,
    judge: Arc<Mutex<Option<Arc<Judge>>>>,
    /// Keys of sessions that are in no list, and whose they are.
    hidden: Arc<Mutex<HashMap<MemberKey, MemberKey>>>,
    link: broker_client::Handle,
    profile: OwnProfile,
    clock: Clock,
    grace: Duration,
}

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Pin the key that the broker shows.
    AcceptKey {
        /// Of this member.
        member_id: MemberId,
        /// The key, so that none is accepted that was not looked at.
        key: MemberKey,
    },
    /// Give a name to the member that claims it.
    AcceptName {
        /// This member.
        member_id: MemberId,
        /// The name.
        name: String,
    },
    /// The safety number was compared.
    Verify {
        /// With the owner of this member.
        member_id: MemberId,
        /// For this key.
        key: MemberKey,
    },
}

/// What the task is asked for.
#[derive(Debug)]
enum Request {
    /// A fresh roster.
    Refresh(oneshot::Sender<()>),
    /// A change of the pinned list.
    Change(Change, oneshot::Sender<Result<PinnedMember, Error>>),
}

/// What is known of a key that opened a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is or was lately the key of this member.
    Member(Box<PinnedMember>),
    /// The member rotated it out longer ago than messages may be on their way.
    Retired,
    /// Nobody's.
    Nobody,
}

/// The roster's task, built but not started.
#[derive(Debug)]
pub struct Parts {
    follower: Follower,
    handle: Handle,
}

/// What the roster needs of the rest of the daemon.
#[derive(Debug)]
pub struct Setup {
    /// Where members are pinned.
    pub db: Sqlite,
    /// Who this daemon is.
    pub identity: Identity,
    /// Where the roster comes from.
    pub link: broker_client::Handle,
    /// Where news go.
    pub hub: Hub,
    /// Dates them.
    pub clock: Clock,
    /// How long messages may be on their way under a key that was rotated out.
    pub grace: Duration,
    /// What certificates are checked against.
    pub trust: Trust,
    /// What this member shows of itself.
    pub profile: OwnProfile,
}

/// Reads the pinned members.
pub async fn prepare(setup: Setup, supervisor: &Supervisor) -> Result<Parts, Error> {
    let Setup { db, identity, link, hub, clock, grace, trust, profile } = setup;
    let pinned = repo::all(db.readers()).await?;
    let (certificates, certified) =
        Certificates::new(identity.mesh_id().clone(), identity.member_id().clone(), trust, &pinned);
    let (members_tx, members) = watch::channel(Arc::new(pinned));
    let (presence_tx, presence) = watch::channel(Arc::default());
    let (sightings_tx, sightings) = watch::channel(Arc::default());
    let (requests_tx, requests) = mpsc::channel(64);
    let disk_full = Arc::default();
    let follower = Follower {
        db,
        identity,
        link: link.clone(),
        hub,
        clock: clock.clone(),
        members: members_tx,
        presence: presence_tx,
        sightings: sightings_tx,
        certificates,
        requests,
        disk_full: Arc::clone(&disk_full),
        newcomers: Vec::new(),
        stop: supervisor.token(Phase::Workers),
    };
    let (requests, judge, hidden) = (requests_tx, Arc::default(), Arc::default());
    let handle = Handle {
        members,
        presence,
        sightings,
        certified,
        requests,
        disk_full,
        judge,
        hidden,
        link,
        profile,
        clock,
        grace,
    };
    Ok(Parts { follower, handle })
}

// === impl Parts ===

impl Parts {
    /// The handle, also before the task runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the task.
    pub fn spawn(self, news: mpsc::Receiver<broker_client::News>, supervisor: &Supervisor) {
        let Handle { link, profile, .. } = self.handle;
        let stop = supervisor.token(Phase::Workers);
        supervisor.spawn(TaskKind::Peers, "profile", profile::tell(profile, link, stop));
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

    /// What the mesh's owner let this member do; `None` when no certificate leads
    /// from its pinned key to the owner's, and for a member that was removed. Until
    /// the first roster after a start only this daemon's own member can have one.
    pub fn certified(&self, member_id: &MemberId) -> Option<CertifiedRole> {
        self.certified.borrow().get(member_id).copied()
    }

    /// Tells who stands behind messages and members, as of now. Made anew only when
    /// something has changed.
    pub fn judge(&self) -> Arc<Judge> {
        let (members, certified) = (self.members(), Arc::clone(&self.certified.borrow()));
        let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        match judge.as_ref().filter(|judge| judge.is_of(&members, &certified)) {
            Some(judge) => Arc::clone(judge),
            None => Arc::clone(judge.insert(Arc::new(Judge::new(members, certified)))),
        }
    }

    /// All members whose certificates hold; a signal for each change.
    pub fn certificates(&self) -> watch::Receiver<Arc<Certified>> {
        self.certified.clone()
    }

    /// Who is connected, as the broker said last. It outlives the link.
    pub fn presence(&self) -> Arc<Vec<Presence>> {
        Arc::clone(&self.presence.borrow())
    }

    /// When presence was told of, and of whom. It outlives the link.
    pub fn sightings(&self) -> Arc<Sightings> {
        Arc::clone(&self.sightings.borrow())
    }

    /// Whether the broker has told who is connected since the link is up.
    pub fn is_presence_known(&self) -> bool {
        let told_over = self.sightings.borrow().told_over;
        told_over.is_some() && told_over == self.link.session().map(|session| session.number)
    }

    /// What this member shows of itself.
    pub fn profile(&self) -> &OwnProfile {
        &self.profile
    }

    /// Whether some connection of this member is live; `None` while it is not known,
    /// as of a member that hides itself.
    pub fn is_online(&self, key: MemberKey) -> Option<bool> {
        if !self.is_presence_known() {
            return None;
        }
        let members = self.members.borrow();
        let member = members.iter().find(|member| member.key == key);
        let is_own = |one: MemberKey| one == key || member.is_some_and(|member| member.is_known_by(one));
        let is_hidden = member.is_some_and(|member| self.sightings.borrow().hidden.contains(&member.member_id));
        let is_there = self.presence.borrow().iter().any(|peer| is_own(peer.member_key));
        (is_there || !is_hidden).then_some(is_there)
    }

    /// Whose key it is or was.
    pub fn known(&self, key: MemberKey) -> Known {
        match roster::holder(&self.members.borrow(), key, self.clock.now(), self.grace) {
            Some(Holder::Current(member) | Holder::InGrace(member)) => Known::Member(Box::new(member.clone())),
            Some(Holder::Retired(_)) => Known::Retired,
            None => Known::Nobody,
        }
    }

    /// Whose session goes by that key, and by what name: shown to everybody, or named with
    /// a message because it hides itself. The broker's word.
    pub fn session(&self, key: MemberKey) -> Option<(MemberKey, Option<String>)> {
        if let Some(shown) = self.presence.borrow().iter().find(|one| one.key == key) {
            return Some((shown.member_key, Some(shown.display_name.clone())));
        }
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        hidden.get(&key).map(|member| (*member, None))
    }

    /// Notes whose session a key is by the broker's word, if it is a member's.
    pub fn note_session(&self, session: MemberKey, member: MemberKey) {
        if session == member || !matches!(self.known(member), Known::Member(_)) || self.session(session).is_some() {
            return;
        }
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        if hidden.len() >= MAX_HIDDEN {
            hidden.clear();
        }
        hidden.insert(session, member);
    }

    /// The member that a sender's doings count against: itself, or whose session it is.
    /// Sessions that nobody shows are one.
    pub fn accountable(&self, sender: &MemberId) -> String {
        let members = self.members.borrow();
        if members.iter().any(|member| member.member_id == *sender) {
            return sender.to_string();
        }
        let key = sender.as_str().split_once(':').and_then(|(_, key)| MemberKey::parse(key).ok());
        let session = key.and_then(|key| self.session(key)).map(|(member, _)| member);
        let member = members.iter().find(|member| Some(member.key) == session.or(key));
        member.map_or_else(String::new, |member| member.member_id.to_string())
    }

    /// Whether a key was this member's own and was rotated out.
    pub fn was_own(&self, member_id: &MemberId, key: MemberKey) -> bool {
        let members = self.members.borrow();
        let own = members.iter().find(|member| member.member_id == *member_id);
        own.is_some_and(|own| own.previous.iter().any(|previous| previous.key == key))
    }

    /// Changes the pinned list as the operator decided; the member as it is now.
    pub async fn change(&self, change: Change) -> Result<PinnedMember, Error> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Change(change, reply)).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// The pinned member with this key.
    pub fn by_key(&self, key: MemberKey) -> Option<PinnedMember> {
        self.members.borrow().iter().find(|member| member.key == key).cloned()
    }

    /// Whether the last roster could not be kept for want of room: then somebody may
    /// be a member and not be known here.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Whether a key that was rotated out still counts as its member's.
    pub fn is_in_grace(&self, previous: &PreviousKey) -> bool {
        key_chain::in_grace(previous, self.clock.now(), self.grace)
    }

    /// Asks the broker for the roster now and waits for it, at most two seconds.
    /// False when it did not come.
    pub async fn refresh(&self) -> bool {
        let (reply, done) = oneshot::channel();
        if self.requests.send(Request::Refresh(reply)).await.is_err() {
            return false;
        }
        tokio::time::timeout(REFRESH_LIMIT, done).await.is_ok_and(|done| done.is_ok())
    }
}
