//! `ControlService`: health, metrics and versions.

use std::sync::atomic::Ordering;

use super::Services;
use crate::api::status::crate_version;
use crate::domain::pressure::{Level, percent};
use crate::outbox::repo::Depth;
use crate::proto::{API_VERSION, pb};
use crate::telemetry::metrics::{OPENMETRICS_TEXT, Observed, PROMETHEUS_TEXT};

/// What this version serves (R407). A name appears when every call behind it is
/// served.
const FEATURES: [&str; 7] = ["send", "topic", "inbox", "peers", "profile", "events", "health"];

// === impl Services ===

impl Services {
    /// How the daemon is (R98).
    pub async fn health(&self) -> pb::GetHealthResponse {
        let deps = &self.0.deps;
        let depth = self.depth().await;
        let state = self.state();
        let session = self.0.link.seen().last_session;
        pb::GetHealthResponse {
            connected: self.0.link.is_up(),
            lag_ms: self.0.link.lag_ms(),
            queue_depth: saturated(depth.pending),
            inflight: saturated(depth.inflight),
            mesh: deps.mesh.clone(),
            member_pubkey: deps.identity.key().to_hex(),
            uptime_s: saturated(deps.clock.monotonic().as_secs()),
            schema_version: deps.schema_version,
            daemon_version: crate_version().to_owned(),
            broker_version: session.map(|session| session.broker_version.clone()).unwrap_or_default(),
            state: state.into(),
        }
    }

    /// Whether it does everything that it should.
    pub(super) fn state(&self) -> pb::HealthState {
        if self.is_stopping() {
            pb::HealthState::Stopping
        } else if self.degraded_reasons().is_empty() {
            pb::HealthState::Ready
        } else {
            pb::HealthState::Degraded
        }
    }

    /// Why it does less than it should, by stable names (R197).
    pub fn degraded_reasons(&self) -> Vec<&'static str> {
        let deps = &self.0.deps;
        let reasons = [
            ("outbox_full", deps.outbox.pressure().level == Level::Full),
            // The members lie in the same database.
            ("outbox_disk_full", deps.outbox.is_disk_full() || deps.peers.is_disk_full()),
            ("inbox_disk_full", deps.inbox.is_disk_full()),
            ("outbox_log_held", deps.outbox.held_log() > 0),
            ("inbox_log_held", deps.inbox.held_log() > 0),
        ];
        reasons.into_iter().filter_map(|(reason, holds)| holds.then_some(reason)).collect()
    }

    /// The metrics, in the older text format unless the newer one is asked for.
    pub async fn metrics(&self, openmetrics: bool) -> pb::GetMetricsResponse {
        let observed = self.observe().await;
        let metrics = &self.0.deps.metrics;
        let (text, content_type) = if openmetrics {
            (metrics.openmetrics_text(&observed), OPENMETRICS_TEXT)
        } else {
            (metrics.prometheus_text(&observed), PROMETHEUS_TEXT)
        };
        pb::GetMetricsResponse { text, content_type: content_type.to_owned() }
    }

    /// What this daemon is (R407).
    pub fn version(&self) -> pb::GetVersionResponse {
        let session = self.0.link.seen().last_session;
        pb::GetVersionResponse {
            daemon_version: crate_version().to_owned(),
            ipc_api: API_VERSION.to_owned(),
            ipc_features: FEATURES.map(str::to_owned).to_vec(),
            schema_version: self.0.deps.schema_version,
            broker_features_negotiated: session.map(|session| session.negotiated.supported.clone()).unwrap_or_default(),
        }
    }

    /// What it works with (R409).
    pub fn compat(&self) -> pb::GetCompatResponse {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        pb::GetCompatResponse {
            daemon: crate_version().to_owned(),
            compatible_brokers: owned(&["0.7.x", "0.8.x", "0.9.x"]),
            required_broker_features: self.0.deps.required_features.clone(),
            compatible_clis: owned(&["0.9.x"]),
            compatible_sdks: ["python", "go", "ts"].map(|sdk| (sdk.to_owned(), ">=0.9.0,<1.0.0".to_owned())).into(),
        }
    }

    /// Notes that a caller is alive (R101).
    pub fn heartbeat(&self) -> pb::HeartbeatResponse {
        pb::HeartbeatResponse {}
    }

    /// Rows of the outbox now; as last known when they cannot be counted.
    pub(super) async fn depth(&self) -> Depth {
        let outbox = &self.0.deps.outbox;
        match outbox.count().await {
            Ok(depth) => depth,
            Err(error) => {
                tracing::warn!(%error, "The outbox could not be counted: {error}");
                *outbox.depth().borrow()
            }
        }
    }

    async fn observe(&self) -> Observed {
        let deps = &self.0.deps;
        let depth = self.depth().await;
        let inbox = deps.inbox.size();
        let stats = self.0.link.stats();
        let age = depth.oldest_pending.map(|oldest| deps.clock.now().since(oldest));
        Observed {
            connected: self.0.link.is_up(),
            reconnects: stats.reconnects(),
            invalid_frames: stats.invalid_frames.load(Ordering::Relaxed),
            unknown_keys: stats.unknown_keys.load(Ordering::Relaxed),
            lag_ms: self.0.link.lag_ms(),
            outbox_pending: depth.pending,
            outbox_inflight: depth.inflight,
            outbox_dead: depth.dead,
            outbox_age_seconds: age.map_or(0.0, |age| age.as_secs_f64()),
            duplicates_out: deps.outbox.duplicates(),
            outbox_pct: deps.outbox.pressure().used_pct,
            inbox_pct: percent(inbox.bytes, deps.disk.inbox_max_bytes),
            inbox_rows: inbox.rows,
            inbox_bytes: inbox.bytes,
        }
    }
}

/// A count as the API writes it.
pub(super) fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
