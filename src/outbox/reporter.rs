//! What became of a transmit: written first, then told to subscribers and metrics.
//!
//! Each report runs beside the sender, so that what is new leaves while outcomes
//! are synced; its place in the window is free when it has ended.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::repo::{AtReceiver, Outcome, Reported};
use super::verdict::Verdict;
use super::{Handle, Report, news};
use crate::domain::event::{DeliveryStatus, MeshEvent, MessageKind, SendState, SentTo};
use crate::domain::retry::Backoff;
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::peers;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::telemetry::metrics::Metrics;
use crate::wire::delivery::{Ack, DeliveryState, DeliveryStatus as StatusFrame, RejectReason};

/// Pause after a limiter that names none.
pub(super) const LIMITER_PAUSE: Duration = Duration::from_secs(1);
/// Pause after an outcome that could not be written.
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// What reporting needs. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) handle: Handle,
    pub(super) ids: IdSource,
    pub(super) hub: Hub,
    pub(super) metrics: Metrics,
    pub(super) peers: peers::Handle,
    pub(super) backoff: Backoff,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

/// The due time of a row, which is its place among those that wait: kept where
/// something else holds it back.
pub(super) fn place_of(row: &Model) -> UnixMillis {
    UnixMillis(row.next_attempt_at)
}

// === impl Reporter ===

impl Reporter {
    /// Writes and tells what an answer means for a row. Gives the time at which
    /// the row is due again, if it is.
    pub(super) async fn finish(self, row: Model, degraded: Option<String>, verdict: Verdict) -> Option<UnixMillis> {
        match verdict {
            Verdict::Accepted(ack) => self.accepted(&row, *ack, degraded).await,
            // Due at once and in their place: the pace or the hold decides when.
            Verdict::TooMany { text, .. } => self.deferred(&row, place_of(&row), text).await,
            Verdict::ReceiverFull { text, .. } => self.retried(&row, place_of(&row), text).await,
            Verdict::Again { after, text } => self.again(&row, text, after).await,
            Verdict::LinkLost { .. } => {
                self.again(&row, "the link was lost before the broker answered".to_owned(), None).await
            }
            Verdict::Final { text } => self.give_up(&row, text).await,
        }
    }

    async fn accepted(&self, row: &Model, ack: Ack, degraded: Option<String>) -> Option<UnixMillis> {
        let history_id = ack.history_id;
        let outcome =
            Outcome::Accepted { broker_message_id: ack.message_id.clone(), history_id: history_id.clone(), degraded };
        if self.report(row, outcome).await {
            let event = DeliveryStatus {
                broker_message_id: Some(ack.message_id),
                history_id,
                ..news::of_row(row, SendState::Accepted, self.clock.now())
            };
            self.tell(row, event);
        }
        None
    }

    /// Notes that a row for this member itself is in the inbox, and tells it.
    pub(super) async fn kept(&self, row: &Model) {
        if self.report(row, Outcome::Kept).await {
            for state in [SendState::Accepted, SendState::Delivered] {
                self.tell(row, news::of_row(row, state, self.clock.now()));
            }
        }
    }

    /// Tries a row again after a pause.
    pub(super) async fn again(&self, row: &Model, error: String, after: Option<Duration>) -> Option<UnixMillis> {
        let attempts = u32::try_from(row.attempts).unwrap_or(u32::MAX);
        let pause = after.unwrap_or_else(|| self.backoff.pause(attempts, self.ids.jitter(1000)));
        tracing::debug!(id = row.client_message_id, error, "A send is tried again later");
        self.retried(row, self.clock.now().plus(pause), error).await
    }

    async fn retried(&self, row: &Model, at: UnixMillis, error: String) -> Option<UnixMillis> {
        self.report(row, Outcome::Retry { at, error }).await.then_some(at)
    }

    /// Tries a row again; what was done so far does not count as an attempt.
    pub(super) async fn deferred(&self, row: &Model, at: UnixMillis, error: String) -> Option<UnixMillis> {
        self.report(row, Outcome::Deferred { at, error }).await.then_some(at)
    }

    /// Gives a row up for good.
    pub(super) async fn give_up(&self, row: &Model, error: String) -> Option<UnixMillis> {
        tracing::warn!(id = row.client_message_id, error, "A send is dead: {error}");
        if self.report(row, Outcome::Dead { error: error.clone() }).await {
            let failure = Some(news::dead(error));
            self.tell(row, DeliveryStatus { failure, ..news::of_row(row, SendState::Dead, self.clock.now()) });
        }
        None
    }

    /// Writes an outcome, as often as it takes: a row whose outcome is not written
    /// stays in flight. False when the daemon stops first; the next start sends it
    /// again, and the broker recognises it.
    async fn report(&self, row: &Model, outcome: Outcome) -> bool {
        loop {
            match self.handle.report(row.id.clone(), outcome.clone()).await {
                Report::Written => return true,
                Report::Stopping => return false,
                Report::Failed => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(WRITE_PAUSE) => {}
            }
        }
    }

    /// Notes and tells what the broker reports of receivers. What could not be
    /// noted is told all the same: it is for information.
    pub(super) async fn statuses(self, statuses: Vec<StatusFrame>) {
        let reported = statuses.iter().map(|status| Reported {
            client_message_id: status.client_message_id.clone(),
            at: UnixMillis(status.at),
            outcome: match status.state {
                DeliveryState::Delivered => AtReceiver::Stored,
                DeliveryState::Rejected => AtReceiver::Rejected(reason(status)),
                DeliveryState::Expired => AtReceiver::Expired,
            },
        });
        self.handle.note_reported(reported.collect()).await;
        let ids: Vec<String> = statuses.iter().map(|status| status.client_message_id.clone()).collect();
        let known = self.handle.rows_of(&ids).await;
        for status in statuses {
            let at = UnixMillis(status.at);
            let (state, failure) = match status.state {
                DeliveryState::Delivered => (SendState::Delivered, None),
                DeliveryState::Rejected => (SendState::Rejected, Some(news::rejected(reason(&status)))),
                DeliveryState::Expired => (SendState::Expired, Some(news::expired())),
            };
            let mut event = match known.get(&status.client_message_id) {
                Some(row) => news::of_existing(row, state, at),
                None => news::of_unknown(status.client_message_id, state, at),
            };
            if let (Some(recipient), Some(member_id)) = (&mut event.recipient, status.recipient_member_id)
                && recipient.kind != MessageKind::Direct
            {
                self.name_receiver(recipient, &member_id);
            }
            self.hub.publish(self.clock.now(), MeshEvent::DeliveryStatus(DeliveryStatus { failure, ..event }));
        }
    }

    /// Of a message with several receivers, names the one that is meant, if it is
    /// known here.
    fn name_receiver(&self, recipient: &mut SentTo, member_id: &str) {
        let members = self.peers.members();
        if let Some(member) = members.iter().find(|member| member.member_id.as_str() == member_id) {
            recipient.member_id = member_id.to_owned();
            recipient.key = member.key.to_hex();
            recipient.name.clone_from(&member.display_name);
        }
    }

    /// Tells how far a row has come.
    fn tell(&self, row: &Model, event: DeliveryStatus) {
        self.metrics.sent(kind(&row.destination_kind), event.state.name());
        self.hub.publish(event.at, MeshEvent::DeliveryStatus(event));
    }
}

/// Why a receiver set a message aside, by the names that this version knows.
fn reason(status: &StatusFrame) -> &'static str {
    RejectReason::from_name(status.reason.as_deref()).name()
}

/// The kind of a row as a metric's label.
pub(super) fn kind(stored: &str) -> &'static str {
    match stored {
        "topic" => "topic",
        "broadcast" => "broadcast",
        "group" => "group",
        _ => "dm",
    }
}
