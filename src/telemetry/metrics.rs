//! The daemon's metrics.
//!
//! What happens is counted when it happens; what is a state is looked up by
//! whoever renders the text and handed over as [`Observed`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::names::{label, metric};

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Fraction = Gauge<f64, AtomicU64>;

/// Upper bounds of the durations in seconds: a durable send takes a
/// millisecond or a few.
const DURATIONS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Media type of the Prometheus text format.
pub const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Media type of the OpenMetrics text format.
pub const OPENMETRICS_TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    connected: Gauge,
    reconnects: Counters<1>,
    lag_ms: Fraction,
    outbox_depth: Family<Labels<1>, Gauge>,
    outbox_age_seconds: Fraction,
    disk_pct: Family<Labels<1>, Fraction>,
    dedupe: Counters<1>,
    send: Counters<2>,
    recv: Counters<2>,
    ipc_request: Counters<3>,
    ipc_duration: Family<Labels<1>, Histogram, fn() -> Histogram>,
    /// Messages and frames together.
    invalid_inbound: Counter,
    invalid_messages: AtomicU64,
    unknown_frame_key: Counter,
    decrypt_archived: Counter,
    decrypt_stale: Counter,
    archive_force_expired: Counters<1>,
    hook_invocations: Counters<2>,
    hook_duration: Family<Labels<1>, Histogram, fn() -> Histogram>,
    hook_capability_calls: Counters<2>,
    hook_unenforceable: Counters<2>,
    inbox_rows: Gauge,
    inbox_bytes: Gauge,
}

/// The states that are looked up when the metrics are rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The link to the broker is up.
    pub connected: bool,
    /// Times that the link came back since the start, by how it had ended.
    pub reconnects: BTreeMap<&'static str, u64>,
    /// Frames of the broker that could not be read.
    pub invalid_frames: u64,
    /// Keys in frames of the broker that this program does not know.
    pub unknown_keys: u64,
    /// Last round trip to the broker in milliseconds.
    pub lag_ms: f64,
    /// Sends that wait.
    pub outbox_pending: u64,
    /// Sends that await the broker's answer.
    pub outbox_inflight: u64,
    /// Sends that were given up.
    pub outbox_dead: u64,
    /// Age of the oldest waiting send in seconds.
    pub outbox_age_seconds: f64,
    /// Percent of the fullest limit of the outbox.
    pub outbox_pct: f64,
    /// Percent of `[disk] inbox_max_bytes`.
    pub inbox_pct: f64,
    /// Sends that were answered from an existing row.
    pub duplicates_out: u64,
    /// Messages in the inbox.
    pub inbox_rows: u64,
    /// Size of the inbox's files in bytes.
    pub inbox_bytes: u64,
}

// === impl Metrics ===

impl Metrics {
    /// Metrics of the daemon of this mesh.
    pub fn new(mesh: &str) -> Self {
        let labels = [(label::MESH.into(), mesh.to_owned().into())];
        let mut inner = Inner {
            registry: Registry::with_prefix_and_labels(metric::PREFIX, labels.into_iter()),
            connected: Gauge::default(),
            reconnects: Family::default(),
            lag_ms: Fraction::default(),
            outbox_depth: Family::default(),
            outbox_age_seconds: Fraction::default(),
            disk_pct: Family::default(),
            dedupe: Family::default(),
            send: Family::default(),
            recv: Family::default(),
            ipc_request: Family::default(),
            ipc_duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            invalid_inbound: Counter::default(),
            invalid_messages: AtomicU64::default(),
            unknown_frame_key: Counter::default(),
            decrypt_archived: Counter::default(),
            decrypt_stale: Counter::default(),
            archive_force_expired: Family::default(),
            hook_invocations: Family::default(),
            hook_duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            hook_capability_calls: Family::default(),
            hook_unenforceable: Family::default(),
            inbox_rows: Gauge::default(),
            inbox_bytes: Gauge::default(),
        };
        inner.register();
        Self(Arc::new(inner))
    }

    /// A send was answered, with `queued`, `inflight`, `duplicate` or an error code as
    /// `status`, or came to `accepted`, `delivered` (to oneself) or `dead`.
    pub fn sent(&self, kind: &'static str, status: &'static str) {
        self.0.send.get_or_create(&[(label::KIND, kind.into()), (label::STATUS, status.into())]).inc();
    }

    /// A message was stored. `from_type` is `peer` or `self`: what came with an API key
    /// is its member's, and looks the same.
    pub fn received(&self, kind: &'static str, from_type: &'static str) {
        self.0.recv.get_or_create(&[(label::KIND, kind.into()), (label::FROM_TYPE, from_type.into())]).inc();
    }

    /// A message came that was stored before.
    pub fn duplicate_received(&self) {
        self.0.dedupe.get_or_create(&direction("in")).inc();
    }

    /// An inbound message was refused.
    pub fn invalid_received(&self) {
        self.0.invalid_messages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// A rotated-out key opened a message.
    pub fn decrypted_archived(&self) {
        self.0.decrypt_archived.inc();
    }

    /// A message came for a key that is erased (R378).
    pub fn decrypt_stale(&self) {
        self.0.decrypt_stale.inc();
    }

    /// A rotated-out key had to go before its time. There are as many labels as
    /// rotations beyond the eighth within the grace.
    pub fn archive_force_expired(&self, key_id: &str) {
        self.0.archive_force_expired.get_or_create(&[(label::KEY_ID, key_id.to_owned().into())]).inc();
    }

    /// A call of the local interface was answered. `endpoint` must come from a
    /// closed set, since each value is kept for the life of the process.
    pub fn call(&self, endpoint: Cow<'static, str>, status: &'static str, transport: &'static str, took: Duration) {
        let labels =
            [(label::ENDPOINT, endpoint.clone()), (label::STATUS, status.into()), (label::TRANSPORT, transport.into())];
        self.0.ipc_request.get_or_create(&labels).inc();
        self.0.ipc_duration.get_or_create(&[(label::ENDPOINT, endpoint)]).observe(took.as_secs_f64());
    }

    /// A hook run ended, or was not begun. The hooks are those of the settings.
    pub fn hook_ended(&self, hook: &str, exit: String, took: Option<Duration>) {
        let hook: Cow<'static, str> = hook.to_owned().into();
        self.0.hook_invocations.get_or_create(&[(label::HOOK, hook.clone()), (label::EXIT, exit.into())]).inc();
        if let Some(took) = took {
            self.0.hook_duration.get_or_create(&[(label::HOOK, hook)]).observe(took.as_secs_f64());
        }
    }

    /// A hook run called with its token. `scope` is the one that allowed it.
    pub fn hook_called(&self, hook: &str, scope: String) {
        let labels = [(label::HOOK, hook.to_owned().into()), (label::SCOPE, scope.into())];
        self.0.hook_capability_calls.get_or_create(&labels).inc();
    }

    /// A hook runs under a weaker policy than asked for.
    pub fn hook_unenforceable(&self, hook: &str, reason: &'static str) {
        let labels = [(label::HOOK, hook.to_owned().into()), (label::REASON, reason.into())];
        self.0.hook_unenforceable.get_or_create(&labels).inc();
    }

    /// The metrics in the Prometheus text format, version 0.0.4 (R99).
    pub fn prometheus_text(&self, observed: &Observed) -> String {
        to_prometheus(&self.openmetrics_text(observed))
    }

    /// The metrics in the OpenMetrics text format, version 1.0.0.
    pub fn openmetrics_text(&self, observed: &Observed) -> String {
        self.0.note(observed);
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

// === impl Inner ===

impl Inner {
    fn register(&mut self) {
        let all = &mut self.registry;
        all.register(metric::CONNECTED, "Whether the link to the broker is up", self.connected.clone());
        all.register(metric::RECONNECTS, "Times that the link came back", self.reconnects.clone());
        all.register(metric::LAG_MS, "Last round trip to the broker in milliseconds", self.lag_ms.clone());
        all.register(metric::OUTBOX_DEPTH, "Sends in the outbox by state", self.outbox_depth.clone());
        all.register(
            metric::OUTBOX_AGE_SECONDS,
            "Age of the oldest waiting send in seconds",
            self.outbox_age_seconds.clone(),
        );
        all.register(metric::DISK_PCT, "How full outbox and inbox are, in percent", self.disk_pct.clone());
        all.register(metric::DEDUPE, "Repeats that were recognised", self.dedupe.clone());
        all.register(metric::SEND, "Answers to sends", self.send.clone());
        all.register(metric::RECV, "Messages that were stored", self.recv.clone());
        all.register(metric::IPC_REQUEST, "Calls of the local interface", self.ipc_request.clone());
        all.register(metric::IPC_DURATION_SECONDS, "Time to answer a call", self.ipc_duration.clone());
        all.register(
            metric::INVALID_INBOUND,
            "Frames that could not be read and messages that were refused",
            self.invalid_inbound.clone(),
        );
        all.register(metric::UNKNOWN_FRAME_KEY, "Unknown top-level keys of frames", self.unknown_frame_key.clone());
        all.register(metric::DECRYPT_ARCHIVED, "Messages that a rotated-out key opened", self.decrypt_archived.clone());
        all.register(metric::DECRYPT_STALE, "Messages for a key that is erased", self.decrypt_stale.clone());
        all.register(
            metric::ARCHIVE_FORCE_EXPIRED,
            "Rotated-out keys that had to go before their time",
            self.archive_force_expired.clone(),
        );
        all.register(metric::HOOK_INVOCATIONS, "Hook runs by exit code", self.hook_invocations.clone());
        all.register(metric::HOOK_DURATION_SECONDS, "How long hooks run", self.hook_duration.clone());
        all.register(
            metric::HOOK_CAPABILITY_CALLS,
            "Calls of hooks with their token",
            self.hook_capability_calls.clone(),
        );
        all.register(
            metric::HOOK_UNENFORCEABLE,
            "Hook runs under a weaker policy than asked for",
            self.hook_unenforceable.clone(),
        );
        all.register(metric::INBOX_ROWS, "Messages in the inbox", self.inbox_rows.clone());
        all.register(metric::INBOX_BYTES, "Size of the inbox in bytes", self.inbox_bytes.clone());
    }

    fn note(&self, observed: &Observed) {
        let gauge = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        gauge(&self.connected, u64::from(observed.connected));
        self.lag_ms.set(observed.lag_ms);
        for (status, depth) in [
            ("pending", observed.outbox_pending),
            ("inflight", observed.outbox_inflight),
            ("dead", observed.outbox_dead),
        ] {
            gauge(&self.outbox_depth.get_or_create(&[(label::STATUS, status.into())]), depth);
        }
        self.outbox_age_seconds.set(observed.outbox_age_seconds);
        for (kind, pct) in [("outbox", observed.outbox_pct), ("inbox", observed.inbox_pct)] {
            self.disk_pct.get_or_create(&[(label::KIND, kind.into())]).set(pct);
        }
        gauge(&self.inbox_rows, observed.inbox_rows);
        gauge(&self.inbox_bytes, observed.inbox_bytes);
        // Counted where it happens; here only shown.
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        for (reason, count) in &observed.reconnects {
            self.reconnects.get_or_create(&[(label::REASON, (*reason).into())]).inner().store(*count, relaxed);
        }
        let refused = self.invalid_messages.load(relaxed);
        self.invalid_inbound.inner().store(refused + observed.invalid_frames, relaxed);
        self.unknown_frame_key.inner().store(observed.unknown_keys, relaxed);
        self.dedupe.get_or_create(&direction("out")).inner().store(observed.duplicates_out, relaxed);
        drop(self.dedupe.get_or_create(&direction("in")));
    }
}

fn direction(name: &'static str) -> Labels<1> {
    [(label::DIRECTION, name.into())]
}

/// OpenMetrics text as the older format: there a counter's type line names the
/// sample, with its `_total`, and units and the end are not marked.
fn to_prometheus(openmetrics: &str) -> String {
    let counters: Vec<&str> =
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("UNIT" | "EOF"), ..) => continue,
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                text.push_str(&format!("# {kind} {name}_total {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R99
    #[test]
    fn the_text_has_every_metric_with_its_labels() {
        let metrics = Metrics::new("demo");
        metrics.sent("dm", "queued");
        metrics.received("topic", "peer");
        metrics.duplicate_received();
        metrics.invalid_received();
        metrics.call("/v1/send".into(), "202", "uds", Duration::from_millis(2));
        metrics.hook_ended("on-dm", "0".to_owned(), Some(Duration::from_millis(20)));
        metrics.hook_called("on-dm", "reply:event".to_owned());
        metrics.hook_unenforceable("on-dm", "network_deny");
        let observed = Observed {
            connected: true,
            reconnects: [("closed", 3)].into(),
            invalid_frames: 2,
            lag_ms: 1.5,
            outbox_pending: 7,
            outbox_dead: 1,
            outbox_age_seconds: 12.5,
            outbox_pct: 80.5,
            duplicates_out: 4,
            inbox_rows: 5,
            inbox_bytes: 4096,
            ..Observed::default()
        };
        let text = metrics.prometheus_text(&observed);
        for line in [
            "# TYPE cm_daemon_reconnects_total counter",
            r#"cm_daemon_connected{mesh="demo"} 1"#,
            r#"cm_daemon_reconnects_total{mesh="demo",reason="closed"} 3"#,
            r#"cm_daemon_lag_ms{mesh="demo"} 1.5"#,
            r#"cm_daemon_outbox_depth{mesh="demo",status="pending"} 7"#,
            r#"cm_daemon_outbox_depth{mesh="demo",status="inflight"} 0"#,
            r#"cm_daemon_outbox_depth{mesh="demo",status="dead"} 1"#,
            r#"cm_daemon_outbox_age_seconds{mesh="demo"} 12.5"#,
            r#"cm_daemon_disk_pct{mesh="demo",kind="outbox"} 80.5"#,
            r#"cm_daemon_disk_pct{mesh="demo",kind="inbox"} 0.0"#,
            r#"cm_daemon_dedupe_total{mesh="demo",direction="out"} 4"#,
            r#"cm_daemon_dedupe_total{mesh="demo",direction="in"} 1"#,
            r#"cm_daemon_send_total{mesh="demo",kind="dm",status="queued"} 1"#,
            r#"cm_daemon_recv_total{mesh="demo",kind="topic",from_type="peer"} 1"#,
            r#"cm_daemon_ipc_request_total{mesh="demo",endpoint="/v1/send",status="202",transport="uds"} 1"#,
            r#"cm_daemon_ipc_duration_seconds_count{mesh="demo",endpoint="/v1/send"} 1"#,
            r#"cm_daemon_hook_invocations_total{mesh="demo",hook="on-dm",exit="0"} 1"#,
            r#"cm_daemon_hook_duration_seconds_bucket{mesh="demo",le="0.025",hook="on-dm"} 1"#,
            r#"cm_daemon_hook_capability_calls_total{mesh="demo",hook="on-dm",scope="reply:event"} 1"#,
            r#"cm_daemon_hook_unenforceable_total{mesh="demo",hook="on-dm",reason="network_deny"} 1"#,
            r#"cm_daemon_invalid_inbound_total{mesh="demo"} 3"#,
            r#"cm_daemon_inbox_rows{mesh="demo"} 5"#,
            r#"cm_daemon_inbox_bytes{mesh="demo"} 4096"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains("# EOF"));
        assert!(metrics.openmetrics_text(&observed).ends_with("# EOF\n"));
    }
}
