//! Takes due rows and transmits them.
//!
//! What it is for: what waits goes out over the one link, in the order of
//! accept, with a bounded number of answers awaited.
//! What runs here: one task.
//! What it guarantees: nothing is claimed while there is no link (a row is
//! `inflight` only when it was really handed to a connection); a row has at most
//! one transmit in flight (R140); each outcome is written before its place in
//! the window is free again. No more leaves than the broker's advertised rate;
//! a receiver without room holds up nobody else.
//! What it must not do: decide from the text of an error.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::flow::Flow;
use super::repo::{Only, Outcome};
use super::seal::{SealError, seal};
use super::verdict::Verdict;
use super::{Handle, Report, repo};
use crate::broker_client::{self, LinkState, Transmit};
use crate::domain::event::SendState;
use crate::domain::retry::{Backoff, is_too_old};
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::identity::Identity;
use crate::peers;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::telemetry::metrics::Metrics;
use crate::wire::delivery::{Ack, DeliveryStatus as StatusFrame};

/// Rows that one claim takes at most.
const CLAIM: u32 = 128;
/// Delivery reports that are written together at most.
const STATUSES: usize = 256;
/// How often due rows are looked for without a wake-up.
const IDLE: Duration = Duration::from_secs(30);
/// How often rows are looked for while some receiver is held.
const HELD: Duration = Duration::from_millis(250);
/// Pause after a limiter that names none.
const LIMITER_PAUSE: Duration = Duration::from_secs(1);
/// Pause after an outcome that could not be written.
const WRITE_PAUSE: Duration = Duration::from_millis(500);
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
    pub(super) flow: Flow,
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
            let up = self.note_link(&link.borrow_and_update());
            let ready = up && look && self.free(&answers) > 0;
            if ready {
                // A full claim means that there is more.
                look = self.claim_and_transmit(&mut answers).await;
                if look {
                    tokio::task::yield_now().await;
                }
            }
            let more = up && look && self.free(&answers) > 0;
            let pause = if up && !look { self.pause().await } else { IDLE };
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
                () = tokio::time::sleep(pause), if !more => look = true,
                () = std::future::ready(()), if more => {}
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

    /// Whether there is a link, and what it allows.
    fn note_link(&mut self, state: &LinkState) -> bool {
        let LinkState::Ready(session) = state else { return false };
        self.flow.pace.set_limit(session.negotiated.rate_limit, self.clock.monotonic());
        true
    }

    fn free(&mut self, answers: &Answers) -> u32 {
        let window = self.flow.window(self.window, self.clock.monotonic());
        window.saturating_sub(u32::try_from(answers.len()).unwrap_or(u32::MAX))
    }

    /// Claims due rows and hands them to the link. True when there may be more.
    async fn claim_and_transmit(&mut self, answers: &mut Answers) -> bool {
        if self.handle.guard.wrong_times().is_some() {
            // The keeper corrects what a wrong clock has dated, and wakes this task:
            // until then nobody knows what is too old.
            self.handle.shared.recount.notify_one();
            return false;
        }
        let now = self.clock.monotonic();
        let limit = self.free(answers).min(CLAIM).min(self.flow.pace.available(now));
        if limit == 0 {
            return false;
        }
        let mut rows = Vec::new();
        for target in self.flow.holds.due(now).into_iter().take(limit as usize) {
            let Some(probe) = self.claim(1, Only::Target(target.clone())).await else { return false };
            if probe.is_empty() {
                self.flow.holds.release(&target);
            } else {
                self.flow.holds.probe(&target);
            }
            rows.extend(probe);
        }
        let left = limit - u32::try_from(rows.len()).unwrap_or(limit);
        let mut full = true;
        if left > 0 {
            let held = self.flow.holds.targets();
            let only = if held.is_empty() { Only::All } else { Only::Without(held) };
            let Some(others) = self.claim(left, only).await else { return false };
            full = u32::try_from(others.len()).unwrap_or(u32::MAX) == left;
            rows.extend(others);
        }
        self.flow.pace.spend(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let members = self.deps.peers.members();
        for row in rows {
            self.transmit(row, &members, answers).await;
        }
        full
    }

    async fn claim(&self, limit: u32, only: Only) -> Option<Vec<Model>> {
        match self.handle.claim(limit, only).await? {
            Ok(rows) => {
                if !rows.is_empty() {
                    self.handle.shared.note_activity(self.clock.monotonic());
                }
                Some(rows)
            }
            Err(error) => {
                tracing::error!(error = %error, "Due sends could not be read: {error}");
                None
            }
        }
    }

    async fn transmit(&mut self, row: Model, members: &[PinnedMember], answers: &mut Answers) {
        if self.is_too_old(&row) {
            // The keeper gives up what waits; this one has waited for a link.
            self.flow.holds.probe_again(&row.target_id, self.clock.monotonic());
            self.give_up(&row, "max_age".to_owned()).await;
            return;
        }
        let nonce = match self.deps.ids.random() {
            Ok(random) => self.deps.identity.own_nonce(random),
            Err(error) => {
                self.again(&row, error.to_string(), None).await;
                return;
            }
        };
        match seal(&row, members, &self.deps.identity, nonce) {
            Ok(sealed) => {
                let answer = self.deps.link.transmit(sealed.frame).await;
                answers.push(Box::pin(async move {
                    (row, sealed.degraded, answer.await.unwrap_or(Transmit::LinkLost { too_large: false }))
                }));
            }
            Err(SealError::ForNow(why)) => {
                self.flow.holds.probe_again(&row.target_id, self.clock.monotonic());
                self.again(&row, why, None).await;
            }
            Err(SealError::ForGood(why)) => {
                self.flow.holds.probe_again(&row.target_id, self.clock.monotonic());
                self.give_up(&row, why).await;
            }
        }
    }

    /// Whether a retry could leave the time in which the broker recognises it.
    fn is_too_old(&self, row: &Model) -> bool {
        let requeued_at = row.requeued_at.map(UnixMillis);
        let max_age = self.handle.terms().max_age;
        self.handle.guard.may_destroy()
            && is_too_old(self.clock.now(), UnixMillis(row.enqueued_at), requeued_at, max_age)
    }

    /// Writes the outcomes of everything that has been answered by now, so that
    /// they share a commit: while one is synced the next answers arrive.
    async fn finish_all(&mut self, first: Ended, answers: &mut Answers) {
        let mut ended = vec![first];
        while let Some(Some(next)) = answers.next().now_or_never() {
            ended.push(next);
        }
        let alone = ended.len() == 1 && answers.is_empty();
        let mut outcomes = Vec::with_capacity(ended.len());
        for (row, degraded, answer) in ended {
            let verdict = self.learn(&row, Verdict::of(answer), alone);
            outcomes.push((row, degraded, verdict));
        }
        let this = &*self;
        join_all(outcomes.into_iter().map(|(row, degraded, verdict)| this.finish(row, degraded, verdict))).await;
    }

    /// Notes what an answer says of the broker and of receivers. Gives the
    /// verdict that counts.
    fn learn(&mut self, row: &Model, verdict: Verdict, alone: bool) -> Verdict {
        let now = self.clock.monotonic();
        let target = row.target_id.as_str();
        match &verdict {
            Verdict::Accepted(_) => {
                self.flow.holds.release(target);
                self.flow.settled(&row.id);
            }
            Verdict::TooMany { after, .. } => {
                self.flow.pace.refused(now, after.unwrap_or(LIMITER_PAUSE));
                self.flow.holds.probe_again(target, now);
            }
            Verdict::ReceiverFull { after, .. } => {
                let failures = self.flow.holds.failures(target);
                let pause = after.unwrap_or_else(|| self.deps.backoff.pause(failures, self.deps.ids.jitter(1000)));
                self.flow.holds.refused(target, now, pause);
                self.flow.settled(&row.id);
            }
            Verdict::Again { .. } | Verdict::LinkLost { too_large: false } => {
                self.flow.holds.probe_again(target, now);
            }
            Verdict::Final { .. } => {
                self.flow.holds.probe_again(target, now);
                self.flow.settled(&row.id);
            }
            Verdict::LinkLost { too_large: true } => {
                self.flow.holds.probe_again(target, now);
                if self.flow.too_large(&row.id, alone, now) {
                    let text = "payload_too_large: the broker closed the link twice because of it (1009)".to_owned();
                    return Verdict::Final { text };
                }
            }
        }
        verdict
    }

    async fn finish(&self, row: Model, degraded: Option<String>, verdict: Verdict) {
        let now = self.clock.now();
        match verdict {
            Verdict::Accepted(ack) => self.accepted(&row, *ack, degraded).await,
            Verdict::TooMany { after, text } => {
                let at = now.plus(after.unwrap_or(LIMITER_PAUSE));
                self.report(&row, Outcome::Deferred { at, error: text }).await;
            }
            // Due at once: the hold decides when, in the order of accept.
            Verdict::ReceiverFull { text, .. } => {
                self.report(&row, Outcome::Retry { at: now, error: text }).await;
            }
            Verdict::Again { after, text } => self.again(&row, text, after).await,
            Verdict::LinkLost { .. } => {
                self.again(&row, "the link was lost before the broker answered".to_owned(), None).await;
            }
            Verdict::Final { text } => self.give_up(&row, text).await,
        }
    }

    async fn accepted(&self, row: &Model, ack: Ack, degraded: Option<String>) {
        let outcome =
            Outcome::Accepted { broker_message_id: ack.message_id.clone(), history_id: ack.history_id, degraded };
        if self.report(row, outcome).await {
            self.tell(row, SendState::Accepted, Some(ack.message_id), None);
        }
    }

    async fn again(&self, row: &Model, error: String, after: Option<Duration>) {
        let attempts = u32::try_from(row.attempts).unwrap_or(u32::MAX);
        let pause = after.unwrap_or_else(|| self.deps.backoff.pause(attempts, self.deps.ids.jitter(1000)));
        let at = self.clock.now().plus(pause);
        tracing::debug!(id = row.client_message_id, error, "A send is tried again later");
        self.report(row, Outcome::Retry { at, error }).await;
    }

    async fn give_up(&self, row: &Model, error: String) {
        tracing::warn!(id = row.client_message_id, error, "A send is dead: {error}");
        if self.report(row, Outcome::Dead { error: error.clone() }).await {
            self.tell(row, SendState::Dead, None, Some(error));
        }
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

    /// The pause until something may leave.
    async fn pause(&self) -> Duration {
        let now = self.clock.monotonic();
        let paced = self.flow.pace.wait(now);
        if paced > Duration::ZERO {
            return paced.clamp(Duration::from_millis(5), IDLE);
        }
        let due = self.next_due().await;
        match self.flow.holds.wait(now) {
            None if self.flow.holds.is_empty() => due,
            // Rows of held receivers are due all the time.
            hold => due.max(HELD).min(hold.unwrap_or(IDLE).max(Duration::from_millis(5))),
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
}
