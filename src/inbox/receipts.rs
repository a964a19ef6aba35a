//! What the broker is told of messages.
//!
//! Most are acknowledged when they are stored or set aside. When one that waits for a
//! key came the broker was told that it waits; what has become of it
//! is told when that is known. The broker does not push it again, so this is kept in
//! the database, and sent with every new link, until the broker has answered.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;

use super::open::{Refused, told_reason};
use super::pipeline::{Pipeline, Work};
use super::repo::{self, Receipt};
use crate::domain::time::UnixMillis;
use crate::wire::delivery::{ClientAck, ReceiptState, RejectReason};
use crate::wire::features::Feature;
use crate::wire::frame::{ClientFrame, ServerFrame};

/// Receipts that await their answer at once.
const PAGE: usize = 64;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Pause after one that did not come.
const PAUSE: Duration = Duration::from_secs(30);
/// After so long the broker has given the message up by itself.
pub(super) const KEPT: Duration = Duration::from_secs(31 * 86_400);

/// Ids of those that were answered, and whether all were.
type Answered = (Vec<String>, bool);

/// What is under way.
#[derive(Default)]
pub(super) struct Receipts {
    sending: Option<Pin<Box<dyn Future<Output = Answered> + Send>>>,
    /// Nothing is left, as far as is known.
    done: bool,
    /// Not before this time.
    not_before: Duration,
}

// === impl Receipts ===

impl Receipts {
    /// There may be new ones, or a new link.
    pub(super) fn look_again(&mut self) {
        (self.done, self.not_before) = (false, Duration::ZERO);
    }

    /// The next answers; never without any under way.
    pub(super) async fn answered(&mut self) -> Answered {
        let Some(sending) = &mut self.sending else { return std::future::pending().await };
        let answered = sending.await;
        self.sending = None;
        answered
    }
}

// === impl Work ===

impl Work {
    /// Why it was set aside, in the words of the link.
    pub(super) fn reject_reason(&self) -> Option<RejectReason> {
        match self.result {
            Err(Refused::Quarantine(reason)) => Some(told_reason(reason)),
            _ => None,
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Whether the broker tells messages that wait for a key from others.
    pub(super) fn tells_outcomes(&self) -> bool {
        self.deps.link.session().is_some_and(|session| session.negotiated.has(Feature::DeliveryOutcome))
    }

    /// Keeps what the broker is to be told of a message that waited.
    pub(super) async fn owe_receipt(
        &self,
        db: &impl sea_orm::ConnectionTrait,
        work: &Work,
        now: UnixMillis,
    ) -> Result<(), sea_orm::DbErr> {
        let Some(delivery_id) = work.push.delivery_id.clone() else { return Ok(()) };
        let receipt = Receipt {
            delivery_id,
            broker_message_id: work.push.message_id.clone(),
            client_message_id: work.push.client_message_id.clone(),
            reason: work.reject_reason().map(|reason| reason.name().to_owned()),
        };
        repo::owe_receipt(db, &receipt, now).await
    }

    /// Sends what is owed, unless some is under way or there is no link.
    pub(super) async fn send_receipts(&self, receipts: &mut Receipts) {
        let now = self.deps.clock.monotonic();
        if receipts.done || receipts.sending.is_some() || now < receipts.not_before || !self.tells_outcomes() {
            return;
        }
        match repo::receipts(self.db.readers(), PAGE).await {
            Ok(owed) if owed.is_empty() => receipts.done = true,
            Ok(owed) => {
                let link = self.deps.link.clone();
                receipts.sending = Some(Box::pin(async move {
                    let count = owed.len();
                    let answers = owed.into_iter().map(|receipt| {
                        let link = link.clone();
                        async move {
                            let id = receipt.delivery_id.clone();
                            let ack = |req_id| ClientFrame::ClientAck(acknowledgement(receipt, req_id));
                            let answer = link.request(ack, LIMIT).await;
                            matches!(answer, Ok(ServerFrame::Ack(ack)) if ack.error.is_none()).then_some(id)
                        }
                    });
                    let ids: Vec<String> = join_all(answers).await.into_iter().flatten().collect();
                    let all = ids.len() == count;
                    (ids, all)
                }));
            }
            Err(error) => {
                tracing::warn!(error = %error, "What the broker is to be told could not be read: {error}");
                receipts.not_before = now + PAUSE;
            }
        }
    }

    /// Forgets what was answered.
    pub(super) async fn note_answered(&self, receipts: &mut Receipts, (ids, all): Answered) {
        let forgotten = repo::forget_receipts(self.db.writer(), &ids).await;
        if let Err(error) = &forgotten {
            // Told again, which changes nothing at the broker.
            tracing::warn!(error = %error, "It was not noted what the broker knows: {error}");
            self.reopen().await;
        }
        if !all || forgotten.is_err() {
            receipts.not_before = self.deps.clock.monotonic() + PAUSE;
        }
    }
}

/// What the broker is told of a delivery. `tells_outcomes`: it knows the words for
/// what waits and for why something was set aside.
pub(super) fn receipt(work: &Work, tells_outcomes: bool) -> ClientAck {
    let push = &work.push;
    let state = match &work.result {
        Err(Refused::Quarantine(_)) => ReceiptState::Quarantined,
        Err(refused) if refused.waits() && tells_outcomes => ReceiptState::Waiting,
        _ => ReceiptState::Stored,
    };
    ClientAck {
        reason: work.reject_reason().filter(|_| tells_outcomes).map(|reason| reason.name().to_owned()),
        req_id: None,
        delivery_id: push.delivery_id.clone(),
        client_message_id: Some(push.client_message_id.clone().unwrap_or_else(|| push.message_id.clone())),
        broker_message_id: Some(push.message_id.clone()),
        state: push.delivery_id.is_some().then_some(state),
    }
}

fn acknowledgement(receipt: Receipt, req_id: String) -> ClientAck {
    let state = if receipt.reason.is_some() { ReceiptState::Quarantined } else { ReceiptState::Stored };
    ClientAck {
        delivery_id: Some(receipt.delivery_id),
        client_message_id: receipt.client_message_id,
        broker_message_id: Some(receipt.broker_message_id),
        state: Some(state),
        reason: receipt.reason,
        req_id: Some(req_id),
    }
}
