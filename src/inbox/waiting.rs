//! Messages whose key is not here yet: kept sealed, tried again at every change.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Error;
use super::open::Refused;
use super::pipeline::{Origin, Pipeline, Work};
use super::repo::{self, Waiting};
use crate::domain::time::UnixMillis;
use crate::wire::delivery::Push;

/// How long sealed bytes wait for a key.
const GRACE: Duration = Duration::from_secs(7 * 86_400);
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
        let reason = if *refused == Refused::NoTopicKey { "no_topic_key" } else { "unknown_sender" };
        let waiting = Waiting {
            id: self.deps.ids.ulid(),
            reason: reason.to_owned(),
            frame: serde_json::to_string(push).unwrap_or_default(),
            grace_until: now.plus(GRACE),
        };
        Ok(repo::wait_for_key(db, &waiting, push, now).await?)
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
        let mut after = String::new();
        loop {
            let waiting = repo::waiting(self.db.readers(), &after, WAITING_PAGE).await?;
            let Some(last) = waiting.last() else { return Ok(()) };
            after.clone_from(&last.id);
            self.open_page(waiting, now).await?;
        }
    }

    async fn open_page(&self, waiting: Vec<Waiting>, now: UnixMillis) -> Result<(), Error> {
        let opener = self.opener();
        let mut work = Vec::new();
        for row in waiting {
            let is_over = now > row.grace_until && self.deps.guard.may_destroy();
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
