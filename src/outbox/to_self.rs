//! Sends of this member to itself.
//!
//! What it is for: a note to oneself is in the own inbox, under the rules of every
//! other send, and never leaves this host.
//! What runs here: one task. It works without a link.
//! What it guarantees: a row is done only after the inbox has stored its message. One
//! that is brought twice, since the process ended in between, is recognised there.
//! What it must not do: go to the broker, or wait for the sends that do.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::repo::{self, Only};
use super::reporter::Reporter;
use crate::domain::ids::MemberId;
use crate::domain::message::{OwnMessage, Priority};
use crate::domain::time::UnixMillis;

/// Rows that one claim takes at most.
const CLAIM: u32 = 128;
/// How often due rows are looked for without a wake-up.
const IDLE: Duration = Duration::from_secs(30);
/// Pause after a read that failed.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Stores messages in the own inbox, each once; an error says that it did not.
#[derive(Clone)]
pub struct Keep(pub Arc<dyn Fn(Vec<OwnMessage>) -> Kept + Send + Sync>);
/// The end of it.
pub type Kept = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Brings rows into the own inbox. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ToSelf {
    pub(super) reporter: Reporter,
    pub(super) keep: Keep,
    pub(super) member_id: MemberId,
    pub(super) stop: CancellationToken,
}

// === impl Keep ===

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keep")
    }
}

// === impl ToSelf ===

impl ToSelf {
    pub(super) async fn run(self) {
        let handle = self.reporter.handle.clone();
        loop {
            let pause = match handle.claim(CLAIM, Only::OwnMember).await {
                None => return,
                Some(Ok(claimed)) if claimed.rows.is_empty() => self.until_due().await,
                Some(Ok(claimed)) => {
                    self.bring(claimed.rows).await;
                    continue;
                }
                Some(Err(error)) => {
                    tracing::error!(error = %error, "Due sends could not be read: {error}");
                    READ_PAUSE
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = handle.shared.wake_to_self.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether a row goes to this member, however it was queued.
    pub(super) fn is_own(&self, row: &Model) -> bool {
        row.destination_kind == "dm" && row.target_id == self.member_id.as_str()
    }

    /// Brings one row; gives when it is due again, if it could not be stored.
    pub(super) async fn bring_one(self, row: Model) -> Option<UnixMillis> {
        self.bring(vec![row]).await
    }

    async fn bring(&self, rows: Vec<Model>) -> Option<UnixMillis> {
        let kept = (self.keep.0)(rows.iter().map(message).collect()).await;
        // Together, so that they share a commit.
        let mut reports: FuturesUnordered<_> = rows
            .iter()
            .map(|row| async {
                match &kept {
                    Ok(()) => {
                        self.reporter.kept(row).await;
                        None
                    }
                    Err(error) => self.reporter.again(row, error.clone(), None).await,
                }
            })
            .collect();
        let mut due = None;
        while let Some(at) = reports.next().await {
            due = due.max(at);
        }
        due
    }

    async fn until_due(&self) -> Duration {
        let handle = &self.reporter.handle;
        match repo::next_due_to_self(handle.db.readers()).await {
            Ok(Some(at)) => at.since(self.reporter.clock.now()).clamp(Duration::from_millis(5), IDLE),
            Ok(None) => IDLE,
            Err(_) => READ_PAUSE,
        }
    }
}

/// The message of a row. Rows are written by this daemon alone.
fn message(row: &Model) -> OwnMessage {
    OwnMessage {
        client_message_id: row.client_message_id.clone(),
        sender_name: row.target_name.clone().unwrap_or_default(),
        body: String::from_utf8_lossy(&row.payload).into_owned(),
        meta: row.meta.clone(),
        reply_to_id: row.reply_to_id.clone(),
        mentions: row.mentions.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
        priority: Priority::from_name(&row.priority).unwrap_or_default(),
        sent_at: UnixMillis(row.enqueued_at),
        auto_hops: u32::try_from(row.auto_hops).unwrap_or(u32::MAX),
    }
}
