//! One send, from the frame to the commit.
//!
//! ```text
//!   send --> B1 validate --> writer queue --> B2/B3 commit --> ack, copies
//!              | refused                        | id known: duplicate or reuse
//!              v                                | refused: nothing written
//!            B0 fast path: was it accepted before? then that answer instead
//! ```
//!
//! What it is for: a message that was acknowledged is stored, once for each id
//! of its sender, with a copy for every receiver.
//! What runs here: the one writer task ([`writer`]), which commits in batches.
//! What it guarantees: the ack goes out after the commit. A refusal writes
//! nothing, so its id stays free. An id that was accepted is answered with what
//! it became, whatever a check would say today: the look-up by id comes before
//! any refusal is sent and spends no budget.
//! What it must not do: look into a ciphertext, or let one member learn of
//! another's ids. The dedupe key holds the sender.

mod batch_sqlite;
#[cfg(test)]
mod batch_tests;
pub mod commit;
pub mod fast_path;
pub mod fence;
pub mod limiter;
pub mod queue;
mod rows;
pub mod turned_away;
pub mod validate;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::commit::Outcome;
use self::validate::Checked;
use self::writer::Command;
use super::fanout::Route;
use super::nodes;
use super::session::peer::Peer;
use super::session::terms::Reply;
use super::shared::Shared;
use super::store::entity::message;
use super::topics;
use crate::domain::dedupe::Seen;
use crate::wire::delivery::{Ack, Send};
use crate::wire::frame::ServerFrame;
use crate::wire::refusal::Refusal;

/// A send that passed the checks and waits for its commit.
#[derive(Debug)]
pub struct Accept {
    /// The message. Its id and time are given at the commit.
    pub message: message::Model,
    /// `dm`, `topic`, `broadcast` or `group`.
    pub kind: &'static str,
    /// Which connections of a receiver get it at once.
    pub route: Arc<Route>,
    /// Receivers by member id.
    pub recipients: Vec<String>,
    /// Those of them who cannot read it yet, and so hold nobody up.
    pub keyless: Vec<String>,
    /// What a retry is compared with.
    pub fingerprint: String,
    /// Whether its id is forgotten when the retention ends.
    pub forgets_id: bool,
    /// Whether it used the sender's budget.
    pub charged: bool,
    /// Whom to answer.
    pub answer: Answer,
}

/// Whom to answer, and with which ids.
#[derive(Debug)]
pub struct Answer {
    /// The sender's connection.
    pub peer: Arc<Peer>,
    /// The frame's `id`.
    pub id: String,
    /// The frame's `_reqId`.
    pub req_id: Option<String>,
}

/// Why a send is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The code.
    pub refusal: Refusal,
    /// When a retry makes sense, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let retry_after_ms = match refusal {
            Refusal::Busy | Refusal::Internal => Some(1_000),
            Refusal::RecipientQueueFull => Some(30_000),
            _ => None,
        };
        Self { refusal, retry_after_ms }
    }
}

/// Takes a `send` frame. Returns when it is queued or answered.
pub async fn submit(shared: &Arc<Shared>, peer: &Arc<Peer>, send: Send) {
    peer.in_flight.fetch_add(1, Ordering::AcqRel);
    let client_message_id = send.client_message_id.clone();
    let answer =
        || Answer { peer: Arc::clone(peer), id: send.id.clone().unwrap_or_default(), req_id: send.req_id.clone() };
    let mut checked = check(shared, peer, &send).await;
    if checked.as_ref().is_err_and(|refused| refused.refusal == Refusal::RecipientNotFound) && shared.store.is_shared()
    {
        // Perhaps a member who has just joined at another broker.
        match nodes::catch_up(shared).await {
            Ok(()) => checked = check(shared, peer, &send).await,
            Err(error) => tracing::warn!(error = %error, "Cannot learn from the other brokers: {error}"),
        }
    }
    match checked {
        Ok(checked) => {
            let accept = Box::new(checked.into_accept(answer()));
            if let Err(Command::Accept(accept)) = shared.writer.submit(Command::Accept(accept)).await {
                accept.answer.refused(&Refusal::Busy.into());
            }
        }
        Err(refused) => {
            let outcome = match client_message_id {
                Some(id) => fast_path::known(shared, peer, &id, &validate::fingerprint(&send)).await,
                None => None,
            };
            let answer = answer();
            match outcome {
                Some(outcome) => answer.outcome(&outcome),
                None => {
                    shared.metrics.refused.inc();
                    answer.refused(&refused);
                }
            }
        }
    }
}

/// B1, with what it needs from the tables: who is in the topic of a post.
async fn check(shared: &Arc<Shared>, peer: &Arc<Peer>, send: &Send) -> Result<Checked, Refused> {
    if !send.target_spec.starts_with('#') {
        return validate::check(shared, peer, send, None);
    }
    match topics::target(shared, peer, send).await {
        Ok(target) => validate::check(shared, peer, send, Some(target)),
        Err(topics::Denied::Refused(refusal) | topics::Denied::Later(refusal, _)) => Err(refusal.into()),
        Err(topics::Denied::Failed(error)) => {
            tracing::warn!(error = %error, "Cannot look up a topic: {error}");
            Err(Refusal::Internal.into())
        }
    }
}

// === impl Answer ===

impl Answer {
    /// Tells the outcome of a commit.
    pub fn outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Accepted(accepted) => self.send(Ack {
                message_id: accepted.message.id.clone(),
                history_id: Some(accepted.message.id.clone()),
                queued: true,
                duplicate: accepted.message.client_message_id.is_some().then_some(false),
                ..Ack::default()
            }),
            Outcome::Duplicate(seen) => self.send(Ack { queued: true, duplicate: Some(true), ..of(seen) }),
            Outcome::Mismatch(seen) => {
                let refused = Ack::refused("", Refusal::IdempotencyKeyReused);
                let Ack { error, code, retryable, .. } = refused;
                self.send(Ack { queued: false, error, code, retryable, ..of(seen) });
            }
            Outcome::Refused(refused) => self.refused(refused),
        }
    }

    /// Tells a refusal.
    pub fn refused(&self, refused: &Refused) {
        let mut ack = Ack::refused("", refused.refusal);
        if refused.refusal == Refusal::RecipientNotFound {
            // Old clients show this text as it is, and know these words.
            ack.error = ack.error.map(|text| format!("no connected peer; {text}"));
        }
        self.send(Ack { retry_after_ms: refused.retry_after_ms, ..ack });
    }

    fn send(&self, ack: Ack) {
        let ack = Ack { id: self.id.clone(), req_id: self.req_id.clone(), ..ack };
        self.peer.reply(Reply::Ack(Box::new(ServerFrame::Ack(Box::new(ack)))));
    }
}

fn of(seen: &Seen) -> Ack {
    Ack {
        message_id: seen.broker_message_id.clone(),
        history_id: Some(seen.history_id.clone()),
        history_available: Some(seen.history_available),
        first_seen_at: Some(seen.first_seen_at),
        ..Ack::default()
    }
}
