//! What the broker counts, in Prometheus' text format.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Of which mesh a number is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MeshLabel {
    /// The mesh by id.
    pub mesh_id: String,
}

/// All counters. Names begin with `cm_broker_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Connections with a socket.
    pub connections: Gauge<i64, AtomicI64>,
    /// Hellos that were answered by hello_ack.
    pub hellos: Counter<u64, AtomicU64>,
    /// Hellos that were refused.
    pub hellos_refused: Counter<u64, AtomicU64>,
    /// Messages accepted: a dedupe row was written, or the sender gave no id.
    pub accepted: Counter<u64, AtomicU64>,
    /// Sends answered as duplicates.
    pub duplicates: Counter<u64, AtomicU64>,
    /// Sends refused because their id was used for another request.
    pub fingerprint_mismatches: Counter<u64, AtomicU64>,
    /// Sends refused for another reason.
    pub refused: Counter<u64, AtomicU64>,
    /// Sends that used the budget of their sender and were refused after that.
    pub consumed_then_rejected: Counter<u64, AtomicU64>,
    /// Searches for ids and messages without each other.
    pub orphan_checks: Counter<u64, AtomicU64>,
    /// What the last search found: ids whose message is gone, by mesh.
    pub orphans: Family<MeshLabel, Gauge<i64, AtomicI64>>,
    /// What the last search found: messages of which a part is missing.
    pub atomicity_violations: Gauge<i64, AtomicI64>,
    /// Batches committed.
    pub batches: Counter<u64, AtomicU64>,
    /// Commands in one batch.
    pub batch_size: Histogram,
    /// Seconds from the first command of a batch to its commit.
    pub batch_seconds: Histogram,
    /// Batches that failed and were run one command at a time.
    pub batches_split: Counter<u64, AtomicU64>,
    /// Copies written to a socket.
    pub pushes: Counter<u64, AtomicU64>,
    /// Copies of those that had been written before.
    pub pushes_again: Counter<u64, AtomicU64>,
    /// Copies acknowledged.
    pub delivered: Counter<u64, AtomicU64>,
    /// Copies given up.
    pub expired: Counter<u64, AtomicU64>,
    /// Copies that their receivers set aside.
    pub rejected: Counter<u64, AtomicU64>,
    /// Messages purged whose ids stay known.
    pub history_pruned: Counter<u64, AtomicU64>,
    /// Events that found no room.
    pub events_dropped: Counter<u64, AtomicU64>,
    /// Top-level keys of frames that this version does not know.
    pub unknown_keys: Counter<u64, AtomicU64>,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cm_broker");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::<u64, AtomicU64>::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let hellos = counter("hello", "Hellos that were answered by hello_ack");
        let hellos_refused = counter("hello_refused", "Hellos that were refused");
        let accepted = counter("message_accepted", "Messages accepted");
        let duplicates = counter("dedupe_duplicate", "Sends answered as duplicates");
        let fingerprint_mismatches =
            counter("dedupe_fingerprint_mismatch", "Sends whose id was used for another request");
        let refused = counter("message_refused", "Sends refused");
        let consumed_then_rejected =
            counter("rate_limit_consumed_then_b2_rejected", "Sends that used budget and were refused after that");
        let orphan_checks = counter("dedupe_orphan_check", "Searches for ids and messages without each other");
        let batches = counter("batch", "Batches committed");
        let batches_split = counter("batch_split", "Batches that failed and were run one command at a time");
        let pushes = counter("push", "Copies written to a socket");
        let pushes_again = counter("push_again", "Copies written to a socket again");
        let delivered = counter("delivered", "Copies acknowledged by their receiver");
        let expired = counter("delivery_expired", "Copies given up");
        let rejected = counter("delivery_rejected", "Copies set aside by their receiver");
        let history_pruned = counter("dedupe_history_pruned", "Messages purged whose ids stay known");
        let events_dropped = counter("event_dropped", "Events that found no room at a connection");
        let unknown_keys = counter("unknown_frame_key", "Unknown top-level keys of frames");
        let orphans = Family::<MeshLabel, Gauge<i64, AtomicI64>>::default();
        registry.register("dedupe_orphan_found", "Ids whose message is gone, at the last search", orphans.clone());
        let atomicity_violations = Gauge::default();
        let help = "Messages of which a part is missing, at the last search";
        registry.register("atomicity_violation_found", help, atomicity_violations.clone());
        let connections = Gauge::default();
        registry.register("connections", "Connections with a socket", connections.clone());
        let batch_size = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        registry.register("batch_size", "Commands in one batch", batch_size.clone());
        let batch_seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 14));
        registry.register(
            "batch_seconds",
            "Seconds from the first command of a batch to its commit",
            batch_seconds.clone(),
        );
        Self {
            registry,
            connections,
            hellos,
            hellos_refused,
            accepted,
            duplicates,
            fingerprint_mismatches,
            refused,
            consumed_then_rejected,
            orphan_checks,
            orphans,
            atomicity_violations,
            batches,
            batch_size,
            batch_seconds,
            batches_split,
            pushes,
            pushes_again,
            delivered,
            expired,
            rejected,
            history_pruned,
            events_dropped,
            unknown_keys,
        }
    }
}

impl Metrics {
    /// The text of `GET /metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
