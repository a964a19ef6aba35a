//! Topics: which this member is subscribed to, and the keys to read them with.
//!
//! What it is for: posts are sealed with the newest key of their topic and opened
//! with the key of their epoch; keys are made, sealed for each other member and
//! renewed here.
//! What runs here: one task (`follower.rs`) that keeps up with the broker's news.
//! What it guarantees: a key is on disk before anybody hears of it; it is given to
//! nobody whom neither the mesh's owner nor the operator vouches for; an epoch
//! counts only when a trusted member signed it and it follows the one before
//! (`domain::topics`). A topic that was seen encrypted takes no plaintext.
//! What it must not do: take the broker's word for who may read.

mod chain;
mod error;
mod files;
mod follower;
mod keys;
mod manage;
mod table;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use self::error::Error;
use self::files::Files;
pub use self::manage::Waiting;
use self::table::{Table, Topic};
use crate::broker_client;
use crate::config::paths::StateDir;
use crate::crypto::topic::TopicKey;
use crate::domain::ids::TopicId;
use crate::domain::topics::{Distrust, check_name};
use crate::identity::Identity;
use crate::peers;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::private_file::FileError;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};

/// What topics work with.
#[derive(Debug)]
pub struct Deps {
    /// Where the state lies.
    pub state: StateDir,
    /// Who makes, seals and opens keys.
    pub identity: Identity,
    /// Who is vouched for.
    pub peers: peers::Handle,
    /// The link.
    pub link: broker_client::Handle,
    /// Ids and random bytes.
    pub ids: IdSource,
    /// Now.
    pub clock: Clock,
}

/// A topic as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The broker's id of it.
    pub topic_id: String,
    /// Without `#`.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// This member is subscribed.
    pub subscribed: bool,
    /// It has no keys.
    pub unencrypted: bool,
    /// The newest epoch that this member knows of.
    pub epoch: u32,
    /// Its key is not here yet.
    pub waiting_for_key: bool,
    /// How many are in it.
    pub member_count: u32,
}

/// How a post is to be sealed now.
#[derive(Debug)]
pub enum Sealing {
    /// With this key.
    Key {
        /// Its epoch.
        epoch: u32,
        /// The key.
        key: TopicKey,
    },
    /// Not at all: the topic has no keys.
    Plain,
    /// Not yet, for this reason.
    NotYet(String),
    /// Never: this member is not subscribed any more.
    Gone,
}

/// What is known of the topic that a push names.
#[derive(Debug)]
pub enum Opening {
    /// The key is here.
    Key {
        /// The topic's name, as this daemon knows it.
        name: String,
        /// The key of the epoch.
        key: TopicKey,
    },
    /// The key is not here yet.
    NotYet,
    /// A topic without keys.
    Plain {
        /// Its name.
        name: String,
    },
    /// This member is not subscribed.
    NotSubscribed,
    /// It came without a key, and the topic has keys.
    ClearText,
}

/// Topics for the rest of the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    deps: Deps,
    files: Files,
    // A std lock: held to look something up, never across an await.
    table: RwLock<Table>,
    /// Held by whoever is about to change a topic.
    busy: tokio::sync::Mutex<()>,
    /// Held while the files are written, which goes on when who asked for it has gone.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// It is not known any more to which topics this member is subscribed, until the
    /// broker has told.
    unsettled: AtomicBool,
    /// The link over which the roster was read last; 0 before the first.
    roster_of: AtomicU64,
    /// Counts changes of what posts are sealed with.
    changed: watch::Sender<u64>,
    /// Counts changes of what posts are opened with.
    keys: watch::Sender<u64>,
}

/// How long a call waits while others change topics.
const BUSY_LIMIT: Duration = Duration::from_secs(15);

/// Topics, built but not started.
#[derive(Debug)]
pub struct Parts(Handle);

/// Reads the topic state.
pub fn prepare(deps: Deps) -> Result<Parts, FileError> {
    let files = Files::of(&deps.state);
    let (table, unsettled) = files.load(deps.clock.now())?;
    if unsettled {
        // The next start has to know it too.
        files.save(&table, true)?;
    }
    let inner = Inner {
        deps,
        files,
        table: RwLock::new(table),
        busy: tokio::sync::Mutex::default(),
        writing: Arc::default(),
        unsettled: AtomicBool::new(unsettled),
        roster_of: AtomicU64::new(0),
        changed: watch::channel(0).0,
        keys: watch::channel(0).0,
    };
    Ok(Parts(Handle(Arc::new(inner))))
}

// === impl Parts ===

impl Parts {
    /// The handle, also before the task runs.
    pub fn handle(&self) -> Handle {
        self.0.clone()
    }

    /// Starts the task. `news` names topics that have changed.
    pub fn spawn(self, news: mpsc::Receiver<String>, supervisor: &Supervisor) {
        let stop = supervisor.token(Phase::Workers);
        supervisor.spawn(TaskKind::Peers, "topics", follower::run(self.0, news, stop));
    }
}

// === impl Handle ===

impl Handle {
    /// The topic that a post names. Only who is subscribed posts.
    pub fn resolve(&self, name: &str, allow_unencrypted: bool) -> Result<View, Error> {
        let name = check_name(name)?;
        let table = self.read();
        let topic = table.by_name(name).ok_or_else(|| Error::NotFound(format!("#{name}")))?;
        if !topic.subscribed {
            return Err(Error::NotSubscribed(format!("#{name}")));
        }
        if !topic.encrypted && !allow_unencrypted {
            return Err(Error::Unencrypted(format!("#{name}")));
        }
        Ok(view(topic))
    }

    /// Whether the daemon knows a topic of that name.
    pub fn knows(&self, name: &str) -> bool {
        self.read().by_name(name.strip_prefix('#').unwrap_or(name)).is_some()
    }

    /// Whether this member is subscribed to the topic of that name.
    pub fn subscribed_to(&self, name: &str) -> bool {
        self.read().by_name(name).is_some_and(|topic| topic.subscribed)
    }

    /// How a post to a topic is sealed at this moment.
    pub fn sealing(&self, topic_id: &str) -> Sealing {
        let table = self.read();
        let Some(topic) = table.by_text(topic_id).filter(|topic| topic.subscribed) else {
            let why = "it is not known yet whether this member is subscribed".to_owned();
            return if self.is_unsettled() { Sealing::NotYet(why) } else { Sealing::Gone };
        };
        if !topic.encrypted {
            return Sealing::Plain;
        }
        if let Some(why) = self.why_not(topic) {
            return Sealing::NotYet(format!("#{}: {why}", topic.name));
        }
        match topic.key(topic.epoch()) {
            Some(key) => Sealing::Key { epoch: topic.epoch(), key: key.clone() },
            None => Sealing::NotYet(format!("#{}: its key is not here yet", topic.name)),
        }
    }

    /// How a pushed post is opened.
    pub fn opening(&self, topic_id: &str, epoch: Option<u32>) -> Opening {
        let table = self.read();
        let Some(topic) = table.by_text(topic_id).filter(|topic| topic.subscribed) else {
            return if self.is_unsettled() { Opening::NotYet } else { Opening::NotSubscribed };
        };
        match epoch {
            None if !topic.encrypted => Opening::Plain { name: topic.name.clone() },
            None => Opening::ClearText,
            Some(epoch) => match topic.key(epoch) {
                Some(key) => Opening::Key { name: topic.name.clone(), key: key.clone() },
                None => Opening::NotYet,
            },
        }
    }

    /// A signal for each change of what posts are opened with.
    pub fn key_changes(&self) -> watch::Receiver<u64> {
        self.0.keys.subscribe()
    }

    /// Whether it is the id of a topic.
    pub fn has(&self, topic_id: &str) -> bool {
        self.read().by_text(topic_id).is_some()
    }

    /// Whether a topic is known as encrypted.
    pub fn is_encrypted(&self, topic_id: &str) -> bool {
        self.read().by_text(topic_id).is_some_and(|topic| topic.encrypted)
    }

    /// A signal for each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Why nothing may be sealed with the newest key, if so.
    fn why_not(&self, topic: &Topic) -> Option<String> {
        if let Some(distrust) = topic.shown.distrust {
            return Some(distrust.to_string());
        }
        // Somebody may have gone while there was no link, or a moment ago.
        let session = self.0.deps.link.session();
        if session.is_none_or(|session| session.number != topic.shown.session) || self.removed() != topic.shown.removed
        {
            return Some("whether its key still holds is not known yet".to_owned());
        }
        if topic.shown.epoch > topic.epoch() {
            return Some("it has a newer key, which is on its way".to_owned());
        }
        // What is sealed for an epoch is read by all who hold its key.
        let members = self.0.deps.peers.members();
        let readers = topic.readers();
        let gone = members.iter().find(|member| member.revoked && readers.contains(member.member_id.as_str()))?;
        Some(format!("{} was removed from the mesh, and its key has to be renewed first", gone.display_name))
    }

    /// How many members are known to have been removed from the mesh.
    fn removed(&self) -> usize {
        self.0.deps.peers.members().iter().filter(|member| member.revoked).count()
    }

    fn is_unsettled(&self) -> bool {
        self.0.unsettled.load(Ordering::Acquire)
    }

    /// Waits for whoever changes topics now.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let turn = async {
            let turn = self.0.busy.lock().await;
            drop(self.0.writing.lock().await);
            turn
        };
        tokio::time::timeout(BUSY_LIMIT, turn).await.map_err(|_| Error::Busy)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes topics: disk first, then everybody else. Keys go before what names
    /// them.
    async fn change(&self, change: impl FnOnce(&mut Table)) -> Result<(), Error> {
        self.write(change, self.is_unsettled()).await
    }

    /// The same, when it is known to which topics this member is subscribed.
    async fn settle(&self, change: impl FnOnce(&mut Table)) -> Result<(), Error> {
        self.write(change, false).await
    }

    async fn write(&self, change: impl FnOnce(&mut Table), unsettled: bool) -> Result<(), Error> {
        let writing = Arc::clone(&self.0.writing).lock_owned().await;
        let mut table = self.read().clone();
        change(&mut table);
        let inner = Arc::clone(&self.0);
        let then = move |table| {
            *inner.table.write().unwrap_or_else(PoisonError::into_inner) = table;
            inner.unsettled.store(unsettled, Ordering::Release);
            inner.keys.send_modify(|count| *count += 1);
            inner.changed.send_modify(|count| *count += 1);
            drop(writing);
        };
        self.0.files.save_all(table, unsettled, then).await
    }

    /// Notes what the broker shows of a topic.
    fn note(&self, topic: Topic) {
        let mut table = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = table.get_mut(&topic.id) else { return };
        if known.shown == topic.shown && known.description == topic.description {
            return;
        }
        (known.shown, known.description) = (topic.shown, topic.description);
        drop(table);
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn view_of(&self, id: &TopicId) -> Option<View> {
        self.read().get(id).map(view)
    }

    fn distrust_of(&self, id: &TopicId) -> Option<Distrust> {
        self.read().get(id).and_then(|topic| topic.shown.distrust)
    }
}

fn view(topic: &Topic) -> View {
    View {
        topic_id: topic.id.to_string(),
        name: topic.name.clone(),
        description: topic.description.clone(),
        subscribed: topic.subscribed,
        unencrypted: !topic.encrypted,
        epoch: topic.epoch().max(topic.shown.epoch),
        waiting_for_key: topic.subscribed
            && topic.encrypted
            && (topic.shown.epoch > topic.epoch() || topic.key(topic.epoch()).is_none()),
        member_count: topic.shown.member_count,
    }
}
