//! Looks for messages that run hooks, and starts the runs.
//!
//! What it is for: each new message runs its hooks once; what happens to the daemon
//! itself runs those that are for it.
//! What runs here: one task; each run is a task of its own.
//! What it guarantees: which messages were looked through, and which runs wait, is in
//! the database: both survive a crash, and a run that was cut off is run again. The
//! reader of the link never waits for hooks: when the queue is full the messages are
//! looked through later.
//! What it must not do: take the live events for the record. They only wake it up.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::catalog::Catalog;
use super::ended::{End, EndedRuns, Teller};
use super::repo::{self, Queued};
use super::run::{Job, Ran};
use super::{Error, Inner, input, reply};
use crate::db::tx;
use crate::domain::capability::Trigger;
use crate::domain::event::{HookRun, MeshEvent, StoredMessage};
use crate::domain::hook_policy::{HookKind, fires, takes_automatic};
use crate::domain::hook_rate::SenderRate;
use crate::events::{Next, Subscription};
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::TaskKind;

/// Messages that are looked through at once.
const PAGE: u64 = 200;
/// Pause after a failure of the database.
const PAUSE: Duration = Duration::from_secs(1);
/// Pages without a run after which the place is written.
const NOTE_PAGES: u32 = 5;
/// The place is written so long after nothing more came.
const NOTE_AFTER: Duration = Duration::from_secs(1);
/// Pause between two words about a sender that is too busy.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The task's belongings.
pub(super) struct Dispatcher {
    pub(super) inner: Arc<Inner>,
    pub(super) supervisor: Supervisor,
    /// Followed while a hook runs for what is told; without one, whoever tells it pays
    /// for nobody who listens.
    pub(super) events: Option<Subscription>,
    /// The place up to which messages were looked through; `None` without hooks for
    /// messages.
    pub(super) cursor: Option<u64>,
    /// The place that is written.
    pub(super) noted: Option<u64>,
    /// Pages since it was.
    pub(super) pages: u32,
    pub(super) rate: SenderRate,
    /// Runs under way, and those whose end could not be written.
    pub(super) started: HashSet<String>,
    /// Runs for events of the daemon that wait.
    pub(super) own: VecDeque<Job>,
    pub(super) ended: Arc<EndedRuns>,
    /// Ends that could not be written yet.
    pub(super) unwritten: Vec<(String, Box<HookRun>)>,
    /// There may be messages that were not looked through.
    pub(super) fresh: bool,
    pub(super) said: Option<Duration>,
}

/// Where the messages that are still to be looked through begin: after what was
/// looked through before, else after everything there is. What was stored before the
/// first hook, or while there was none, runs none.
pub(super) async fn resume(inner: &Inner, catalog: &Catalog) -> Result<Option<u64>, Error> {
    let db = inner.deps.db.writer();
    if !catalog.has_message_hooks() {
        repo::clear_cursor(db).await?;
        return Ok(None);
    }
    if let Some(cursor) = repo::cursor(db).await? {
        return Ok(Some(cursor));
    }
    let newest = inner.deps.inbox.newest().map_or(0, |place| place.seq);
    repo::set_cursor(db, newest).await?;
    Ok(Some(newest))
}

async fn next_of(events: &mut Option<Subscription>) -> Next {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

// === impl Dispatcher ===

impl Dispatcher {
    pub(super) async fn run(mut self) {
        self.own_event(&HookKind::Startup, "daemon_startup", json!({}));
        let (inner, ended) = (Arc::clone(&self.inner), Arc::clone(&self.ended));
        loop {
            let failed = self.step().await.inspect_err(|error| {
                tracing::warn!(error = %error, "Hooks wait for the database: {error}");
            });
            tokio::select! {
                () = inner.stop.cancelled() => break,
                next = next_of(&mut self.events) => self.hear(next),
                () = ended.any() => {}
                () = inner.reloaded.notified() => self.reload().await,
                () = tokio::time::sleep(PAUSE), if failed.is_err() => {}
                () = tokio::time::sleep(NOTE_AFTER), if failed.is_ok() && self.cursor != self.noted => {
                    self.pages = NOTE_PAGES;
                }
            }
            // What happened meanwhile is one reason to look, not many.
            while let Some(next) = next_of(&mut self.events).now_or_never() {
                self.hear(next);
                if self.inner.stop.is_cancelled() {
                    break;
                }
            }
            self.note_ended();
        }
        if let Err(error) = self.write_ends().await {
            tracing::warn!(error = %error, "Ended hooks will run again, as their end was not written: {error}");
        }
        self.write_place().await;
    }

    async fn step(&mut self) -> Result<(), Error> {
        self.write_ends().await?;
        while self.fresh && !self.inner.stop.is_cancelled() && self.look_through().await? {
            self.note_place().await?;
        }
        self.note_place().await?;
        self.start_runs().await
    }

    /// Writes the place now and then: after a crash, a hook that was switched on
    /// since must not run for what was looked through long before.
    async fn note_place(&mut self) -> Result<(), Error> {
        if let Some(cursor) = self.cursor.filter(|_| self.pages >= NOTE_PAGES && self.cursor != self.noted) {
            repo::set_cursor(self.inner.deps.db.writer(), cursor).await?;
            (self.noted, self.pages) = (Some(cursor), 0);
        }
        Ok(())
    }

    /// Writes it at once.
    async fn write_place(&mut self) {
        self.pages = NOTE_PAGES;
        if let Err(error) = self.note_place().await {
            tracing::warn!(error = %error, "The place of the hooks was not written; they look again: {error}");
        }
    }

    /// Looks through the next messages. False when there are no more, or no room.
    async fn look_through(&mut self) -> Result<bool, Error> {
        let inner = Arc::clone(&self.inner);
        let Some(cursor) = self.cursor else {
            self.fresh = false;
            return Ok(false);
        };
        if inner.waiting.load(Ordering::Relaxed) >= inner.deps.config.queue {
            return Ok(false);
        }
        let page = inner.deps.inbox.after(cursor, PAGE).await?;
        let Some(last) = page.last().map(|message| message.event_id.seq) else {
            self.fresh = false;
            return Ok(false);
        };
        let (catalog, own) = (inner.catalog(), (inner.deps.own)());
        let mut runs = Vec::new();
        for message in &page {
            let takes = |hook: &super::catalog::Active| {
                hook.policy.kind.takes(message, &own) && takes_automatic(message.auto_hops, hook.policy.accept_auto)
            };
            if !fires(message, inner.deps.config.run_after_recovery) {
                continue;
            }
            let hooks: Vec<String> = catalog.all_active().filter(takes).map(|hook| hook.name).collect();
            if hooks.is_empty() || !self.admit(message, &hooks) {
                continue;
            }
            runs.extend(hooks.into_iter().map(|hook| Queued {
                id: inner.deps.ids.ulid(),
                seq: message.event_id.seq,
                hook,
                message_id: message.id.clone(),
            }));
        }
        if !runs.is_empty() {
            let now = inner.deps.clock.now();
            let transaction = tx::begin(inner.deps.db.writer()).await?;
            let mut added = 0;
            for run in &runs {
                added += u32::from(repo::add(&transaction, run, now).await?);
            }
            repo::set_cursor(&transaction, last).await?;
            transaction.commit().await?;
            inner.waiting.fetch_add(added, Ordering::Relaxed);
            (self.noted, self.pages) = (Some(last), 0);
        } else {
            self.pages = self.pages.saturating_add(1);
        }
        self.cursor = Some(last);
        Ok(true)
    }

    /// Whether a sender may cause runs now.
    fn admit(&mut self, message: &StoredMessage, hooks: &[String]) -> bool {
        let deps = &self.inner.deps;
        if self.rate.admit(&(deps.accountable)(&message.sender_member_id), deps.clock.now()) {
            return true;
        }
        for hook in hooks {
            deps.metrics.hook_ended(hook, "skipped".to_owned(), None);
        }
        let now = deps.clock.monotonic();
        if self.said.is_none_or(|at| now.saturating_sub(at) >= SAY_EVERY) {
            self.said = Some(now);
            tracing::warn!(
                sender = message.sender_member_id.as_str(),
                "Messages of {} run no hooks for now: more than [hooks] sender_rate_per_min = {} came in a minute",
                message.sender_member_id,
                deps.config.sender_rate_per_min
            );
        }
        false
    }

    /// Starts what waits, as far as there are places.
    async fn start_runs(&mut self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        while let Some(job) = self.own.pop_front() {
            let Ok(place) = Arc::clone(&inner.places).try_acquire_owned() else {
                self.own.push_front(job);
                return Ok(());
            };
            self.start(None, job, place);
        }
        let free = inner.places.available_permits();
        if free == 0 || inner.waiting.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let catalog = inner.catalog();
        let due = repo::queued(inner.deps.db.readers(), free + self.started.len(), &catalog.missing()).await?;
        for queued in due.into_iter().filter(|queued| !self.started.contains(&queued.id)).collect::<Vec<_>>() {
            let Some(job) = self.job(&catalog, &queued).await? else {
                // Its hook was switched off, or its message removed.
                repo::forget(inner.deps.db.writer(), &queued.id).await?;
                inner.waiting.fetch_sub(1, Ordering::Relaxed);
                continue;
            };
            let Ok(place) = Arc::clone(&inner.places).try_acquire_owned() else { break };
            self.started.insert(queued.id.clone());
            self.start(Some(queued.id), job, place);
        }
        Ok(())
    }

    async fn job(&self, catalog: &Catalog, queued: &Queued) -> Result<Option<Job>, Error> {
        let Some(hook) = catalog.active(&queued.hook) else { return Ok(None) };
        let found = self.inner.deps.inbox.after(queued.seq - 1, 1).await?.into_iter().next();
        let Some(message) = found.filter(|message| message.event_id.seq == queued.seq) else { return Ok(None) };
        let trigger = Trigger {
            sender: Some(message.sender_key),
            client_message_id: message.client_message_id.clone(),
            broker_message_id: message.broker_message_id.clone(),
            topic: message.topic.clone(),
            auto_hops: message.auto_hops,
        };
        let provenance = (self.inner.deps.judge)().message(&message);
        let input = input::message(&message, &provenance);
        Ok(Some(Job { hook, message_id: queued.message_id.clone(), input, trigger }))
    }

    fn start(&self, queued: Option<String>, job: Job, place: OwnedSemaphorePermit) {
        let inner = Arc::clone(&self.inner);
        let lost = HookRun {
            hook: job.hook.name.clone(),
            message_id: job.message_id.clone(),
            started_at: inner.deps.clock.now(),
            start_error: "the daemon failed to run it; its log says more".to_owned(),
            ..HookRun::default()
        };
        let teller = Teller::new(Arc::clone(&self.ended), place, queued.clone(), Box::new(lost));
        self.supervisor.spawn(TaskKind::HookRun, "hook run", async move {
            let ran = Box::pin(inner.run(&job)).await;
            let id = queued.unwrap_or_else(|| inner.deps.ids.ulid());
            // A run that the end of the daemon cut off is run again.
            let end = if ran.cut_off { End::CutOff } else { Box::pin(inner.finish(&id, ran, &job)).await };
            teller.tell(end);
        });
    }

    /// A run has ended for good.
    pub(super) fn over(&mut self, id: &str) {
        self.started.remove(id);
        self.inner.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn hear(&mut self, next: Next) {
        let timed = match next {
            Next::Event(timed) => timed,
            // Messages are in the database; of the link, what counts is what is now.
            Next::Lagged(_) => {
                self.fresh = true;
                return;
            }
            Next::Closed => return,
        };
        match &*timed.event {
            MeshEvent::Message(message) => {
                self.fresh |= self.cursor.is_some_and(|cursor| message.event_id.seq > cursor);
            }
            MeshEvent::DaemonDisconnect { reason, .. } => {
                self.own_event(&HookKind::Disconnect, "daemon_disconnect", json!({"reason": reason}));
            }
            MeshEvent::DaemonReconnect { away_ms } => {
                self.own_event(&HookKind::Reconnect, "daemon_reconnect", json!({"away_ms": away_ms}));
            }
            _ => {}
        }
    }

    /// Queues the hook for an event of the daemon. Such events are not kept: one that
    /// finds the queue full is left out.
    fn own_event(&mut self, kind: &HookKind, event: &str, more: Value) {
        let deps = &self.inner.deps;
        let Some(hook) = self.inner.catalog().active(&kind.to_string()) else { return };
        if self.own.len() >= usize::try_from(deps.config.queue).unwrap_or(usize::MAX) {
            tracing::warn!(hook = hook.name, "Hook {} was left out: too many runs wait", hook.name);
            return;
        }
        let message_id = deps.ids.ulid();
        let input = input::own(event, &message_id, &deps.mesh, deps.clock.now(), more);
        self.own.push_back(Job { hook, message_id, input, trigger: Trigger::default() });
    }

    async fn reload(&mut self) {
        let catalog = self.inner.catalog();
        if !catalog.has_event_hooks() {
            self.events = None;
        } else if self.events.is_none() {
            self.events = Some(self.inner.deps.hub.subscribe());
        }
        if self.cursor.is_some() && catalog.has_message_hooks() {
            self.write_place().await;
            return;
        }
        match resume(&self.inner, &catalog).await {
            Ok(cursor) => {
                (self.cursor, self.noted, self.pages) = (cursor, cursor, 0);
                self.fresh = true;
            }
            Err(error) => {
                tracing::error!(error = %error, "Hooks for messages do not run until the next reload: {error}");
                self.cursor = None;
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Queues the reply of a run and tells of its end.
    async fn finish(&self, id: &str, ran: Ran, job: &Job) -> End {
        let Ran { mut run, answer, .. } = ran;
        if let Some(text) = answer.as_ref().and_then(reply::text) {
            run.replied = run.is_success() && self.reply(job, text).await;
        }
        self.report(id, run, &job.hook.policy).await
    }

    async fn reply(&self, job: &Job, text: &str) -> bool {
        let name = &job.hook.name;
        if !job.hook.policy.allow_reply {
            tracing::debug!(hook = name, "A reply of hook {name} was ignored: allow_reply is false");
            return false;
        }
        let Some(request) = reply::request(name, &job.message_id, &job.trigger, text) else {
            tracing::warn!(
                hook = name,
                "A reply of hook {name} was not sent: nobody is there to answer, or three automatic messages led to it"
            );
            return false;
        };
        match Box::pin(self.deps.outbox.accept(request)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(hook = name, error = %error, "A reply of hook {name} was not queued: {error}");
                false
            }
        }
    }
}
