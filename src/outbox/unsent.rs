//! Rows that do not leave now: tried again, given up, or waiting for a key.

use super::entity::Model;
use super::reporter::place_of;
use super::sender::{Awaited, Sender};
use crate::domain::retry::is_too_old;
use crate::domain::time::UnixMillis;

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
        let failures = self.flow.holds.failures(&row.target_id);
        let pause = self.deps.backoff.pause(failures, self.deps.ids.jitter(1000));
        self.flow.holds.refused(&row.target_id, self.clock.monotonic(), pause);
        let reporter = self.reporter.clone();
        awaited.reports.push(Box::pin(async move { reporter.deferred(&row, place_of(&row), why).await }));
    }

    /// A topic has changed: a key that rows wait for may have come.
    pub(super) fn release_topics(&mut self) {
        let topics = &self.deps.topics;
        for target in self.flow.holds.targets().into_iter().filter(|target| topics.has(target)) {
            self.flow.holds.release(&target);
        }
    }

    /// Whether a retry could leave the time in which the broker recognises it.
    pub(super) fn is_too_old(&self, row: &Model) -> bool {
        let requeued_at = row.requeued_at.map(UnixMillis);
        let max_age = self.handle.terms().max_age;
        self.handle.guard.may_destroy()
            && is_too_old(self.clock.now(), UnixMillis(row.enqueued_at), requeued_at, max_age)
    }
}
