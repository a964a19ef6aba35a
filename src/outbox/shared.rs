//! What the tasks of this folder tell each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::entity::Model;
use super::handover::Handover;
use super::repo;
use crate::config::outbox::Outbox as OutboxConfig;
use crate::domain::age_limit::DedupeWindow;
use crate::domain::pressure::Pressure;

/// One for each outbox.
#[derive(Debug)]
pub(super) struct Shared {
    /// Rows were added or became due.
    pub(super) wake: Notify,
    /// The same of rows that go to this member itself.
    pub(super) wake_to_self: Notify,
    pub(super) handover: Handover,
    /// Waiting rows, for the limit; corrected by the keeper.
    pub(super) pending: AtomicU64,
    pub(super) max_queue_size: u64,
    /// Sends that were answered as duplicates, for the metrics.
    pub(super) duplicates: AtomicU64,
    pub(super) depth: watch::Sender<repo::Depth>,
    /// The keeper should look at once.
    pub(super) recount: Notify,
    pub(super) pressure: watch::Sender<Pressure>,
    pub(super) database_bytes: AtomicU64,
    /// A write found the disk full, and none that needs room has succeeded since.
    pub(super) disk_full: AtomicBool,
    /// Monotonic ms of the last send.
    pub(super) active_ms: AtomicU64,
    /// `[outbox] max_age_hours` and `accept_redelivery_risk`.
    pub(super) configured_age: (u32, bool),
    pub(super) done_retention: Duration,
    /// What the broker remembers, and the age limit that is in force. A std
    /// mutex: held for a copy, never across an await.
    pub(super) terms: Mutex<(DedupeWindow, Duration)>,
}

// === impl Shared ===

impl Shared {
    /// With the receiver of rows that are handed over.
    pub(super) fn new(
        config: &OutboxConfig,
        depth: repo::Depth,
        disk_full: bool,
    ) -> (Arc<Self>, mpsc::Receiver<Model>) {
        let (handover, arriving) = Handover::new(config.window);
        let shared = Arc::new(Self {
            wake: Notify::new(),
            wake_to_self: Notify::new(),
            handover,
            pending: AtomicU64::new(depth.pending + depth.inflight),
            max_queue_size: config.max_queue_size,
            duplicates: AtomicU64::new(0),
            depth: watch::Sender::new(depth),
            recount: Notify::new(),
            pressure: watch::Sender::new(Pressure::default()),
            database_bytes: AtomicU64::new(0),
            disk_full: AtomicBool::new(disk_full),
            active_ms: AtomicU64::new(0),
            configured_age: (config.max_age_hours, config.accept_redelivery_risk),
            done_retention: config.done_retention(),
            terms: Mutex::new((DedupeWindow::Unknown, Duration::ZERO)),
        });
        (shared, arriving)
    }

    /// What the broker remembers, and the age limit that is in force.
    pub(super) fn terms(&self) -> (DedupeWindow, Duration) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_terms(&self, window: DedupeWindow, hours: u32) {
        let terms = (window, Duration::from_secs(u64::from(hours) * 3600));
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms;
    }

    pub(super) fn note_activity(&self, now: Duration) {
        self.active_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
