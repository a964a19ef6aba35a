//! Messages whose key is not here yet: kept sealed, tried again at every change.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Error;
use super::open::{Opener, Refused};
use super::pipeline::{Origin, Pipeline, Work};
use super::repo::{self, Key, Waiting};
use super::shares::holder;
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::topics::Opening;
use crate::wire::delivery::Push;

/// How long sealed bytes wait for a key.
const GRACE: Duration = Duration::from_secs(7 * 86_400);
/// What a message waits for: the key of its sender, or that of its topic.
const UNKNOWN_SENDER: &str = "unknown_sender";
const NO_TOPIC_KEY: &str = "no_topic_key";
/// Waiting messages that are looked at at once.
const WAITING_PAGE: usize = 64;

// === impl Pipeline ===

impl Pipeline {
    /// Keeps the sealed bytes.
    pub(super) async fn wait_for_key(
        &self,
        db: &impl sea_orm::ConnectionTrait,
        push: &Push,
        refused: &Refused,
        now: UnixMillis,
    ) -> Result<(), Error> {
        tracing::info!(sender = push.sender_pubkey, topic_id = push.topic_id, "A message waits until its key is known");
        let waiting = Waiting {
            id: self.deps.ids.ulid(),
            frame: serde_json::to_string(push).unwrap_or_default(),
            grace_until: now.plus(GRACE),
        };
        let key = Key::of(push, *refused == Refused::NoTopicKey);
        Ok(repo::wait_for_key(db, &waiting, &key, &holder(push), &push.message_id, now).await?)
    }

    /// Opens what waited for a key, now that there may be one. What fails is done
    /// again a little later.
    pub(super) async fn try_waiting(&self) {
        let result = self.open_waiting().await;
        self.shared.waiting_failed.store(result.is_err(), Ordering::Relaxed);
        if let Err(error) = result {
            tracing::warn!(error = %error, "Waiting messages could not be opened: {error}");
        }
    }

    async fn open_waiting(&self) -> Result<(), Error> {
        let now = self.deps.clock.now();
        let opener = self.opener();
        let keys = repo::keys_waited_for(self.db.readers()).await?;
        let came: Vec<Key> = keys.into_iter().filter(|key| opener.has_come(key)).collect();
        // A clock that is not believed ends nobody's grace.
        let over = if self.deps.guard.may_destroy() { now } else { UnixMillis(0) };
        let mut after = String::new();
        loop {
            let waiting = repo::waiting(self.db.readers(), &came, over, &after, WAITING_PAGE).await?;
            let Some(last) = waiting.last() else { return Ok(()) };
            after.clone_from(&last.id);
            self.open_page(waiting, over).await?;
        }
    }

    async fn open_page(&self, waiting: Vec<Waiting>, over: UnixMillis) -> Result<(), Error> {
        let opener = self.opener();
        let mut work = Vec::new();
        for row in waiting {
            let is_over = over > row.grace_until;
            let Ok(push) = serde_json::from_str::<Push>(&row.frame) else {
                // Perhaps another version of this program reads it.
                if is_over {
                    repo::stop_waiting(self.db.writer(), &row.id).await?;
                }
                continue;
            };
            let mut result = opener.open(&push);
            if result.as_ref().is_err_and(Refused::waits) {
                if !is_over {
                    continue;
                }
                let reason = match result {
                    Err(Refused::NoTopicKey) => "topic_key_never_came",
                    _ => "sender_never_known",
                };
                result = Err(Refused::Quarantine(reason));
            }
            work.push(Work { push: Box::new(push), result, origin: Origin::Waited(row.id) });
        }
        if work.is_empty() { Ok(()) } else { self.store(&mut work).await }
    }
}

// === impl Key ===

impl Key {
    fn of(push: &Push, of_topic: bool) -> Self {
        if !of_topic {
            return Self { reason: UNKNOWN_SENDER.to_owned(), waits_for: push.sender_pubkey.clone() };
        }
        let epoch = push.key_epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        let waits_for = format!("{}:{epoch}", push.topic_id.as_deref().unwrap_or_default());
        Self { reason: NO_TOPIC_KEY.to_owned(), waits_for }
    }
}

// === impl Opener ===

impl Opener<'_> {
    /// Whether a message that waits for this may be opened, or be known to be none.
    fn has_come(&self, key: &Key) -> bool {
        if key.reason == UNKNOWN_SENDER {
            let sender = MemberKey::parse(&key.waits_for).ok();
            return sender.is_none_or(|key| !matches!(self.sender(key), Err(Refused::UnknownSender)));
        }
        let (topic_id, epoch) = key.waits_for.rsplit_once(':').unwrap_or_default();
        !matches!(self.topics.opening(topic_id, epoch.parse().ok()), Opening::NotYet)
    }
}
