//! Names of metrics, labels and log fields. Dashboards and tests rely on them.

/// Metrics, without the prefix and without the `_total` of counters.
pub mod metric {
    /// In front of every name.
    pub const PREFIX: &str = "cm_daemon";
    /// Gauge, 0 or 1 (R301).
    pub const CONNECTED: &str = "connected";
    /// Counter by [`super::label::REASON`] (R302).
    pub const RECONNECTS: &str = "reconnects";
    /// Gauge: last round trip to the broker (R303).
    pub const LAG_MS: &str = "lag_ms";
    /// Gauge by [`super::label::STATUS`] (R304).
    pub const OUTBOX_DEPTH: &str = "outbox_depth";
    /// Gauge: age of the oldest waiting send (R305).
    pub const OUTBOX_AGE_SECONDS: &str = "outbox_age_seconds";
    /// Gauge by [`super::label::KIND`]: percent of the limit (R194, R307).
    pub const DISK_PCT: &str = "disk_pct";
    /// Counter by [`super::label::DIRECTION`] (R306).
    pub const DEDUPE: &str = "dedupe";
    /// Counter by [`super::label::KIND`] and [`super::label::STATUS`] (R308).
    pub const SEND: &str = "send";
    /// Counter by [`super::label::KIND`] and [`super::label::FROM_TYPE`] (R309).
    pub const RECV: &str = "recv";
    /// Counter by endpoint, status and transport (R313).
    pub const IPC_REQUEST: &str = "ipc_request";
    /// Histogram by [`super::label::ENDPOINT`] (R314).
    pub const IPC_DURATION_SECONDS: &str = "ipc_duration_seconds";
    /// Counter of frames that could not be read and messages that were refused (R319).
    pub const INVALID_INBOUND: &str = "invalid_inbound";
    /// Counter of unknown keys of frames.
    pub const UNKNOWN_FRAME_KEY: &str = "unknown_frame_key";
    /// Counter of messages that a rotated-out key opened.
    pub const DECRYPT_ARCHIVED: &str = "decrypt_archived";
    /// Counter of messages for a key that is erased (R378).
    pub const DECRYPT_STALE: &str = "decrypt_stale";
    /// Counter by [`super::label::KEY_ID`] of rotated-out keys that had to go
    /// before their time.
    pub const ARCHIVE_FORCE_EXPIRED: &str = "archive_force_expired";
    /// Counter by [`super::label::HOOK`] and [`super::label::EXIT`] (R310).
    pub const HOOK_INVOCATIONS: &str = "hook_invocations";
    /// Histogram by [`super::label::HOOK`] (R311).
    pub const HOOK_DURATION_SECONDS: &str = "hook_duration_seconds";
    /// Counter by [`super::label::HOOK`] and [`super::label::SCOPE`] (R312).
    pub const HOOK_CAPABILITY_CALLS: &str = "hook_capability_calls";
    /// Counter by [`super::label::HOOK`] and [`super::label::REASON`] of runs under
    /// a weaker policy than asked for (R317).
    pub const HOOK_UNENFORCEABLE: &str = "hook_unenforceable";
    /// Gauge (R320).
    pub const INBOX_ROWS: &str = "inbox_rows";
    /// Gauge (R320).
    pub const INBOX_BYTES: &str = "inbox_bytes";
}

/// Labels.
pub mod label {
    /// The mesh's slug; on every metric.
    pub const MESH: &str = "mesh";
    /// Why.
    pub const REASON: &str = "reason";
    /// `pending`, `inflight` or `dead`; the answer to a send; the status of a call.
    pub const STATUS: &str = "status";
    /// `out` or `in`.
    pub const DIRECTION: &str = "direction";
    /// `dm`, `topic`, `broadcast`, `group` or `file`; `unknown` for a destination
    /// that cannot be read. Of a disk gauge: `outbox` or `inbox`.
    pub const KIND: &str = "kind";
    /// `peer` or `self`.
    pub const FROM_TYPE: &str = "from_type";
    /// `k_` and a ULID.
    pub const KEY_ID: &str = "key_id";
    /// Path of a REST call, or of a gRPC method; `other` for unknown ones.
    pub const ENDPOINT: &str = "endpoint";
    /// A hook's name.
    pub const HOOK: &str = "hook";
    /// An exit code; `signal`, `timeout`, `not_started` or `skipped` without one.
    pub const EXIT: &str = "exit";
    /// A scope of hooks.toml, or `none` for a call that none allows.
    pub const SCOPE: &str = "scope";
    /// `uds`, `tcp`, or `hook` for the socket of a hook run.
    pub const TRANSPORT: &str = "transport";
}

/// Targets of log lines that are searched for.
pub mod target {
    /// One line for each call of the local interface.
    pub const ACCESS: &str = "claudemesh::access";
    /// One line for each hook run, whatever the level (R249).
    pub const AUDIT: &str = "claudemesh_audit";
    /// Something that an attacker may have caused.
    pub const SECURITY: &str = "claudemesh::security";
}
