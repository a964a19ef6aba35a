//! What this member shows of itself: kept on disk, told to the broker.
//!
//! It goes with each hello, and with frames of its own when it changes, until the
//! broker has taken it. Brokers that do not read it in the hello get the frames after
//! it as well. What was never set is not told: another daemon of the member may have
//! set it.

use std::path::PathBuf;
use std::sync::Arc;
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
/// Pause before it is told again, when the broker did not take it.
const PAUSE: Duration = Duration::from_secs(10);

/// The own profile. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnProfile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// None before it was set for the first time.
    current: watch::Sender<Option<Profile>>,
    /// Held while it is changed.
    changing: Arc<Mutex<()>>,
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
        Ok(Self(Arc::new(Inner { path, current: watch::Sender::new(stored), changing: Arc::default() })))
    }

    /// The profile now.
    pub fn get(&self) -> Profile {
        self.0.current.borrow().clone().unwrap_or_default()
    }

    /// What was set, now and as it changes.
    pub fn watch(&self) -> watch::Receiver<Option<Profile>> {
        self.0.current.subscribe()
    }

    /// Changes it: disk first, then everybody else. The profile after the change.
    pub async fn change(&self, change: Change) -> Result<Profile, Error> {
        let changing = Arc::clone(&self.0.changing).lock_owned().await;
        let before = self.0.current.borrow().clone();
        let is_asked = change == Change::default();
        let after = before.clone().unwrap_or_default().changed(change)?;
        if is_asked || before.as_ref() == Some(&after) {
            return Ok(after);
        }
        // Texts and a truth value: it can be written.
        let json = serde_json::to_string(&Shown::from(&after)).unwrap_or_default();
        let inner = Arc::clone(&self.0);
        // To its end, also when the caller goes away in the middle.
        let written = tokio::task::spawn_blocking(move || {
            let _changing = changing;
            private_file::write_atomic(&inner.path, json.as_bytes(), PRIVATE)?;
            inner.current.send_replace(Some(after.clone()));
            Ok::<_, Error>(after)
        });
        written.await.map_err(|_| Error::Stopping)?
    }
}

/// Tells the broker, over each new link and at each change, until `stop`.
pub(super) async fn tell(own: OwnProfile, link: broker_client::Handle, stop: CancellationToken) {
    let (mut state, mut current) = (link.state(), own.watch());
    let mut told = None;
    loop {
        state.mark_unchanged();
        let profile = current.borrow_and_update().clone();
        let mut is_refused = false;
        if let (Some(session), Some(profile)) = (link.session(), profile) {
            let now = Some((session.number, profile.clone()));
            if told != now {
                tokio::select! {
                    () = stop.cancelled() => return,
                    is_taken = say(&link, profile) => if is_taken { told = now } else { is_refused = true },
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE), if is_refused => {}
            changed = state.changed() => if changed.is_err() { return },
            changed = current.changed() => if changed.is_err() { return },
        }
    }
}

/// Says all of it. False when the broker did not take whether the member shows itself;
/// what is lost with the link is said again over the next.
async fn say(link: &broker_client::Handle, profile: Profile) -> bool {
    let Shown { status, summary, visible } = Shown::from(&profile);
    // First: who hides says the rest to nobody.
    let set = |id| ClientFrame::SetVisible(SetVisible { visible, req_id: Some(id) });
    let is_taken = match link.request(set, LIMIT).await {
        Ok(ServerFrame::Ack(ack)) if ack.error.is_none() => true,
        Ok(answer) => {
            tracing::warn!("The broker did not take whether this member shows itself ({})", answer.kind());
            false
        }
        Err(error) => {
            tracing::info!(error = %error, "The broker did not say that it took the profile: {error}");
            false
        }
    };
    link.tell(ClientFrame::SetStatus(SetStatus { status, req_id: None })).await;
    link.tell(ClientFrame::SetSummary(SetSummary { summary, req_id: None })).await;
    is_taken
}
