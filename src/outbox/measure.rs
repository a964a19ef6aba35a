//! How full the outbox is: measured, told, and looked up by whoever accepts.

use std::sync::atomic::Ordering;

use super::keeper::Keeper;
use super::{Error, Handle};
use crate::domain::event::MeshEvent;
use crate::domain::ids::ClientMessageId;
use crate::domain::pressure::{Change, Level, Measure, Pressure, Usage, WARN_PCT, change, percent};

// === impl Handle ===

impl Handle {
    /// How full the outbox is, as far as it is known now: rows are counted as
    /// they come, bytes at the last look.
    pub fn pressure(&self) -> Pressure {
        let mut pressure = *self.shared.pressure.borrow();
        let rows_pct = percent(self.shared.pending.load(Ordering::Relaxed), self.shared.max_queue_size);
        if pressure.measure == Measure::Rows || rows_pct > pressure.used_pct {
            pressure = Pressure { level: Level::of(rows_pct), used_pct: rows_pct, measure: Measure::Rows };
        }
        pressure
    }

    /// Whether the last write found no room on the disk.
    pub fn is_disk_full(&self) -> bool {
        self.shared.disk_full.load(Ordering::Relaxed)
    }

    /// Bytes in use in the database, at the last look.
    pub fn database_bytes(&self) -> u64 {
        self.shared.database_bytes.load(Ordering::Relaxed)
    }

    /// Refuses when the outbox is nearly full.
    pub(super) fn check_room(&self, id: &ClientMessageId) -> Result<(), Error> {
        let pressure = self.pressure();
        if pressure.level.refuses_sends() {
            return Err(Error::Full { client_message_id: id.clone(), pressure });
        }
        Ok(())
    }

    /// A row was added: the keeper looks at once when that reached a step.
    pub(super) fn row_added(&self) {
        self.shared.pending.fetch_add(1, Ordering::Relaxed);
        if self.pressure().level > self.shared.pressure.borrow().level {
            self.shared.recount.notify_one();
        }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Counts and measures; tells a step that was reached or left.
    pub(super) async fn measure(&self) -> Level {
        let shared = &self.handle.shared;
        match self.handle.count().await {
            Ok(depth) => {
                shared.pending.store(depth.pending + depth.inflight, Ordering::Relaxed);
                shared.depth.send_replace(depth);
            }
            Err(error) => tracing::warn!(error = %error, "The outbox could not be counted: {error}"),
        }
        let outbox_bytes = match self.handle.db.used_bytes().await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(error = %error, "The outbox could not be measured: {error}");
                shared.database_bytes.load(Ordering::Relaxed)
            }
        };
        shared.database_bytes.store(outbox_bytes, Ordering::Relaxed);
        let inbox_bytes = self.inbox.used_bytes().await.unwrap_or_default();
        let pressure = Pressure::of(&Usage {
            rows: shared.pending.load(Ordering::Relaxed),
            max_rows: shared.max_queue_size,
            both_bytes: outbox_bytes + inbox_bytes,
            reserved_bytes: self.disk.reserved_bytes,
            outbox_bytes,
            outbox_max_bytes: self.disk.outbox_max_bytes,
        });
        let before = shared.pressure.send_replace(pressure);
        self.tell(before, pressure);
        pressure.level
    }

    fn tell(&self, before: Pressure, now: Pressure) {
        let (pct, limit) = (now.used_pct, now.measure.setting());
        if before.used_pct < WARN_PCT && pct >= WARN_PCT {
            tracing::warn!("The outbox is {pct:.0} % full ({limit}); from 95 % on sends are refused");
        }
        let event = match change(before.level, now.level) {
            Change::None => return,
            Change::High => {
                tracing::warn!(used_pct = pct, "outbox_pressure_high: the outbox is {pct:.0} % full ({limit})");
                MeshEvent::OutboxPressureHigh(now)
            }
            Change::Cleared => {
                tracing::info!(used_pct = pct, "outbox_pressure_cleared: the outbox is {pct:.0} % full ({limit})");
                MeshEvent::OutboxPressureCleared(now)
            }
        };
        self.hub.publish(self.clock.now(), event);
    }
}
