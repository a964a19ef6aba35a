//! Rows that do not leave now: tried again, given up, or waiting for a key.

use super::entity::Model;
use super::reporter::place_of;
use super::sender::{Awaited, Sender};
use crate::domain::retry::is_too_old;
use crate::domain::time::UnixMillis;
use crate::topics::Sealing;

// === impl Sender ===

impl Sender {
    pub(super) fn again(&self, row: Model, why: String, awaited: &mut Awaited) {
        let reporter = self.reporter.clone();
        awaited.reports.push(Box::pin(async move { reporter.again(&row, why, None).await }));
    }

    pub(super) fn give_up(&self, row: Model, why: String, awaited: &mut Awaited) {
        let reporter = self.reporter.clone();
        awaited.reports.push(Box::pin(async move { reporter.give_up(&row, why).await }));
    }

    /// Nothing of a topic leaves before its key comes, and then in order.
    pub(super) fn wait_for_key(&mut self, row: Model, why: String, awaited: &mut Awaited) {
        let held = self.flow.wait_for_key(&row.target_id, &why);
        let reporter = self.reporter.clone();
        awaited.reports.push(Box::pin(async move {
            let due = reporter.deferred(&row, place_of(&row), why).await;
            drop(held);
            due
        }));
    }

    /// Topics have changed: lets those go whose key is here, or whose rows are to say
    /// something else. True if there are any.
    pub(super) fn release_topics(&mut self) -> bool {
        let topics = &self.deps.topics;
        let waits = |topic: &str, why: &str| matches!(topics.sealing(topic), Sealing::NotYet(now) if now == why);
        self.flow.release_topics(waits)
    }

    /// Whether a retry could leave the time in which the broker recognises it.
    pub(super) fn is_too_old(&self, row: &Model) -> bool {
        let requeued_at = row.requeued_at.map(UnixMillis);
        let max_age = self.handle.terms().max_age;
        self.handle.guard.may_destroy()
            && is_too_old(self.clock.now(), UnixMillis(row.enqueued_at), requeued_at, max_age)
    }
}
