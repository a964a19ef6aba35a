//! Takes due rows and transmits them.
//!
//! What it is for: what waits goes out over the one link, in the order of
//! accept, with a bounded number of answers awaited.
//! What runs here: one task.
//! What it guarantees: nothing is claimed while there is no link (a row is
//! `inflight` only when it was really handed to a connection); a row has at most
//! one transmit in flight (R140); each outcome is written before its place in
//! the window is free again.
//! What it must not do: decide from the text of an error.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::repo::Outcome;
use super::seal::{SealError, seal};
use super::{Handle, repo};
use crate::broker_client::{self, LinkState, Transmit};
use crate::domain::event::{DeliveryStatus, MeshEvent, SendState};
use crate::domain::retry::Backoff;
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::identity::Identity;
use crate::peers;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::telemetry::metrics::Metrics;
use crate::wire::delivery::{Ack, DeliveryState, DeliveryStatus as StatusFrame};

/// Rows that one claim takes at most.
const CLAIM: u32 = 128;
/// Delivery reports that are written together at most.
const STATUSES: usize = 256;
/// How often due rows are looked for without a wake-up.
const IDLE: Duration = Duration::from_secs(30);
/// How long a stop waits for answers that are on their way.
const DRAIN: Duration = Duration::from_secs(5);

/// What the sender works with.
#[derive(Debug)]
pub struct SenderDeps {
    /// The link.
    pub link: broker_client::Handle,
    /// Reports of what became of own sends at their receivers.
    pub statuses: mpsc::Receiver<StatusFrame>,
    /// Who may be sent to.
    pub peers: peers::Handle,
    /// Whose keys seal.
    pub identity: Identity,
    /// Nonces and jitter.
    pub ids: IdSource,
    /// Where outcomes are told.
    pub hub: Hub,
    /// What is counted.
    pub metrics: Metrics,
    /// `[reconnect]`, used for rows as well.
    pub backoff: Backoff,
}

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) handle: Handle,
    pub(super) deps: SenderDeps,
    pub(super) clock: Clock,
    pub(super) window: u32,
    pub(super) stop: CancellationToken,
}

/// A transmit that ended: its row, what the receiver could not be told, and the
/// broker's answer.
type Ended = (Model, Option<String>, Transmit);

type Answers = FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + std::marker::Send>>>;

// === impl Sender ===

impl Sender {
    pub(super) async fn run(mut self) {
        let mut link = self.deps.link.state();
        let mut answers: Answers = FuturesUnordered::new();
        let mut statuses = Vec::new();
        let mut look = true;
        loop {
            let up = matches!(&*link.borrow_and_update(), LinkState::Ready(_));
            if up && look && self.free(&answers) > 0 {
                // A full claim means that there is more.
                look = self.claim_and_transmit(&mut answers).await;
                if look {
                    tokio::task::yield_now().await;
                }
            }
            let next_due = if up && !look { self.next_due().await } else { IDLE };
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.handle.shared.wake.notified() => look = true,
                changed = link.changed() => {
                    if changed.is_err() { break }
                    look = true;
                }
                Some(first) = answers.next(), if !answers.is_empty() => {
                    self.finish_all(first, &mut answers).await;
                    look = true;
                }
                1.. = self.deps.statuses.recv_many(&mut statuses, STATUSES) => {
                    self.note_statuses(std::mem::take(&mut statuses)).await;
                }
                () = tokio::time::sleep(next_due), if !(up && look && self.free(&answers) > 0) => look = true,
                () = std::future::ready(()), if up && look && self.free(&answers) > 0 => {}
            }
        }
        // What is on its way may still be answered; the rest is found at the
        // next start.
        let drain = async {
            while let Some(first) = answers.next().await {
                self.finish_all(first, &mut answers).await;
            }
        };
        if tokio::time::timeout(DRAIN, drain).await.is_err() {
            tracing::info!("Some sends were still unanswered at the stop; the next start sends them again");
        }
    }

    fn free(&self, answers: &Answers) -> u32 {
        self.window.saturating_sub(u32::try_from(answers.len()).unwrap_or(u32::MAX))
    }

    /// Claims due rows and hands them to the link. True when there may be more.
    async fn claim_and_transmit(&self, answers: &mut Answers) -> bool {
        let limit = self.free(answers).min(CLAIM);
        let rows = match self.handle.claim(limit).await {
            Some(Ok(rows)) => rows,
            Some(Err(error)) => {
                tracing::error!(error = %error, "Due sends could not be read: {error}");
                return false;
            }
            None => return false,
        };
        let full = u32::try_from(rows.len()).unwrap_or(u32::MAX) == limit;
        let members = self.deps.peers.members();
        for row in rows {
            let nonce = match self.deps.ids.random() {
                Ok(random) => self.deps.identity.own_nonce(random),
                Err(error) => {
                    self.reschedule(&row, error.to_string(), None).await;
                    continue;
                }
            };
            match seal(&row, &members, &self.deps.identity, nonce) {
                Ok(sealed) => {
                    let answer = self.deps.link.transmit(sealed.frame).await;
                    answers.push(Box::pin(async move {
                        (row, sealed.degraded, answer.await.unwrap_or(Transmit::LinkLost))
                    }));
                }
                Err(SealError::ForNow(why)) => self.reschedule(&row, why, None).await,
                Err(SealError::ForGood(why)) => self.give_up(&row, why).await,
            }
        }
        full
    }

    /// Writes the outcomes of everything that has been answered by now, so that
    /// they share a commit: while one is synced the next answers arrive.
    async fn finish_all(&self, first: Ended, answers: &mut Answers) {
        let mut ended = vec![first];
        while let Some(Some(next)) = answers.next().now_or_never() {
            ended.push(next);
        }
        join_all(ended.into_iter().map(|(row, degraded, answer)| self.finish(row, degraded, answer))).await;
    }

    async fn finish(&self, row: Model, degraded: Option<String>, answer: Transmit) {
        match answer {
            Transmit::LinkLost => {
                self.reschedule(&row, "the link was lost before the broker answered".to_owned(), None).await
            }
            Transmit::Answered(ack) => match ack.failure() {
                None => self.accepted(&row, *ack, degraded).await,
                Some(failure) if failure.retryable => {
                    let after = failure.retry_after_ms.map(Duration::from_millis);
                    self.reschedule(&row, failure.text.to_owned(), after).await;
                }
                Some(failure) => self.give_up(&row, failure.text.to_owned()).await,
            },
        }
    }

    async fn accepted(&self, row: &Model, ack: Ack, degraded: Option<String>) {
        let outcome =
            Outcome::Accepted { broker_message_id: ack.message_id.clone(), history_id: ack.history_id, degraded };
        if self.handle.report(row.id.clone(), outcome).await {
            self.tell(row, SendState::Accepted, Some(ack.message_id), None);
        }
    }

    async fn reschedule(&self, row: &Model, error: String, after: Option<Duration>) {
        let attempts = u32::try_from(row.attempts).unwrap_or(u32::MAX);
        let pause = after.unwrap_or_else(|| self.deps.backoff.pause(attempts, self.deps.ids.jitter(1000)));
        let at = self.clock.now().plus(pause);
        tracing::debug!(id = row.client_message_id, error, "A send is tried again later");
        self.handle.report(row.id.clone(), Outcome::Retry { at, error }).await;
    }

    async fn give_up(&self, row: &Model, error: String) {
        tracing::warn!(id = row.client_message_id, error, "A send is dead: {error}");
        if self.handle.report(row.id.clone(), Outcome::Dead { error: error.clone() }).await {
            self.tell(row, SendState::Dead, None, Some(error));
        }
    }

    /// The pause until the next row is due.
    async fn next_due(&self) -> Duration {
        match repo::next_due(self.handle.db.readers()).await {
            Ok(Some(at)) => at.since(self.clock.now()).clamp(Duration::from_millis(5), IDLE),
            Ok(None) => IDLE,
            Err(_) => Duration::from_secs(1),
        }
    }

    async fn note_statuses(&self, statuses: Vec<StatusFrame>) {
        let mut delivered: BTreeMap<UnixMillis, Vec<String>> = BTreeMap::new();
        for status in statuses.iter().filter(|status| status.state == DeliveryState::Delivered) {
            delivered.entry(UnixMillis(status.at)).or_default().push(status.client_message_id.clone());
        }
        for (at, ids) in delivered {
            self.handle.note_delivered(ids, at).await;
        }
        for status in statuses {
            let at = UnixMillis(status.at);
            let state = match status.state {
                DeliveryState::Delivered => SendState::Delivered,
                DeliveryState::Expired => SendState::Expired,
            };
            let event = DeliveryStatus {
                client_message_id: status.client_message_id,
                state,
                broker_message_id: None,
                at,
                detail: None,
            };
            self.deps.hub.publish(self.clock.now(), MeshEvent::DeliveryStatus(event));
        }
    }

    fn tell(&self, row: &Model, state: SendState, broker_message_id: Option<String>, detail: Option<String>) {
        self.deps.metrics.sent(kind(&row.destination_kind), state.name());
        let at = self.clock.now();
        let client_message_id = row.client_message_id.clone();
        let event = DeliveryStatus { client_message_id, state, broker_message_id, at, detail };
        self.deps.hub.publish(at, MeshEvent::DeliveryStatus(event));
    }
}

/// The kind of a row as a metric's label.
fn kind(stored: &str) -> &'static str {
    match stored {
        "topic" => "topic",
        "broadcast" => "broadcast",
        "group" => "group",
        _ => "dm",
    }
}
