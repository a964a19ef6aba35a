//! What this member shows of itself: kept on disk, told to the broker.
//!
//! It goes with each hello, and with frames of its own when it changes. Brokers
//! that do not read it in the hello get the frames after it as well.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::broker_client;
use crate::domain::profile::{Change, Profile};
use crate::runtime::private_file::{self, PRIVATE};
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::presence::{SetStatus, SetSummary, SetVisible, Shown};

/// How long the broker may take for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The own profile. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnProfile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    current: watch::Sender<Profile>,
    /// It was set at some time; before, no broker has to be told.
    is_set: AtomicBool,
    /// Held while it is changed.
    changing: Mutex<()>,
}

// === impl OwnProfile ===

impl OwnProfile {
    /// Reads what was set last. A file that cannot be read is an error: a member
    /// that hides itself must not be shown because of it.
    pub fn load(path: PathBuf) -> Result<Self, Error> {
        let damaged = |detail: String| Error::ProfileDamaged { path: path.clone(), detail };
        let stored = match private_file::read_optional(&path)? {
            None => None,
            Some(text) => {
                let shown: Shown = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
                Some(Profile::try_from(shown).map_err(damaged)?)
            }
        };
        let is_set = AtomicBool::new(stored.is_some());
        let current = watch::Sender::new(stored.unwrap_or_default());
        Ok(Self(Arc::new(Inner { path, current, is_set, changing: Mutex::default() })))
    }

    /// The profile now.
    pub fn get(&self) -> Profile {
        self.0.current.borrow().clone()
    }

    /// The profile, now and as it changes.
    pub fn watch(&self) -> watch::Receiver<Profile> {
        self.0.current.subscribe()
    }

    /// Changes it: disk first, then everybody else. The profile after the change.
    pub async fn change(&self, change: Change) -> Result<Profile, Error> {
        let _changing = self.0.changing.lock().await;
        let before = self.get();
        let after = before.changed(change)?;
        if after == before {
            return Ok(after);
        }
        // Texts and a truth value: it can be written.
        let json = serde_json::to_string(&Shown::from(&after)).unwrap_or_default();
        let path = self.0.path.clone();
        let written = tokio::task::spawn_blocking(move || private_file::write_atomic(&path, json.as_bytes(), PRIVATE));
        written.await.map_err(|_| Error::Stopping)??;
        self.0.is_set.store(true, Ordering::Release);
        self.0.current.send_replace(after.clone());
        Ok(after)
    }
}

/// Tells the broker, over each new link and at each change, until `stop`.
pub(super) async fn tell(own: OwnProfile, link: broker_client::Handle, stop: CancellationToken) {
    let (mut state, mut current) = (link.state(), own.watch());
    let mut told = None;
    loop {
        state.mark_unchanged();
        let profile = current.borrow_and_update().clone();
        if let Some(session) = link.session().filter(|_| own.0.is_set.load(Ordering::Acquire)) {
            let now = Some((session.number, profile.clone()));
            if told != now {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = say(&link, profile) => told = now,
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = state.changed() => if changed.is_err() { return },
            changed = current.changed() => if changed.is_err() { return },
        }
    }
}

/// Says all of it. What is lost with the link is said again over the next.
async fn say(link: &broker_client::Handle, profile: Profile) {
    let Shown { status, summary, visible } = Shown::from(&profile);
    // First: who hides says the rest to nobody.
    let set = |id| ClientFrame::SetVisible(SetVisible { visible, req_id: Some(id) });
    match link.request(set, LIMIT).await {
        Ok(ServerFrame::Ack(ack)) if ack.error.is_none() => {}
        Ok(answer) => {
            tracing::warn!("The broker did not take whether this member shows itself ({})", answer.kind());
        }
        Err(error) => {
            tracing::info!(error = %error, "The broker did not say that it took the profile: {error}");
        }
    }
    link.tell(ClientFrame::SetStatus(SetStatus { status, req_id: None })).await;
    link.tell(ClientFrame::SetSummary(SetSummary { summary, req_id: None })).await;
}
