//! The one table of failures that a user can see.
//!
//! A row gives the stable name, the status in gRPC and HTTP, whether a retry of
//! the same request can succeed, the exit code of the command line, and a
//! title. `docs/errors/<name>.md` explains each and is part of the program: a
//! code without a page does not build. Codes are added, never renamed.

use std::fmt;

/// gRPC status codes by name, as numbers of the gRPC protocol.
pub mod grpc {
    /// The caller ended the call.
    pub const CANCELLED: i32 = 1;
    /// The request is wrong in itself.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// The caller's deadline passed.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// What was named does not exist.
    pub const NOT_FOUND: i32 = 5;
    /// An id is taken by another request.
    pub const ALREADY_EXISTS: i32 = 6;
    /// The caller may not do this.
    pub const PERMISSION_DENIED: i32 = 7;
    /// A limit is reached.
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    /// The state forbids this now.
    pub const FAILED_PRECONDITION: i32 = 9;
    /// The call exists but is not served.
    pub const UNIMPLEMENTED: i32 = 12;
    /// A defect of the daemon.
    pub const INTERNAL: i32 = 13;
    /// Try again later.
    pub const UNAVAILABLE: i32 = 14;
    /// Stored data is damaged.
    pub const DATA_LOSS: i32 = 15;
    /// Who the caller is was not shown.
    pub const UNAUTHENTICATED: i32 = 16;
}

/// Exit codes of the command line.
pub mod exit {
    /// It worked, or a time to live ended.
    pub const OK: u8 = 0;
    /// Any failure without a code of its own.
    pub const OTHER: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// No daemon runs.
    pub const NOT_RUNNING: u8 = 3;
    /// A daemon runs already.
    pub const ALREADY_RUNNING: u8 = 4;
    /// Refused on purpose.
    pub const REFUSED: u8 = 5;
    /// What was waited for did not happen in time.
    pub const WAIT_TIMEOUT: u8 = 6;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 10;
    /// The key was made on another host.
    pub const CLONE_SUSPECTED: u8 = 11;
    /// Another connection took this member over (close code 4003).
    pub const REPLACED: u8 = 12;
    /// Another connection holds this member (close code 4004).
    pub const MEMBER_CONNECTED: u8 = 13;
    /// The member is revoked or banned.
    pub const REVOKED: u8 = 14;
    /// The broker lacks a required feature (close code 4010).
    pub const FEATURE_UNAVAILABLE: u8 = 15;
    /// The outbox database is damaged.
    pub const OUTBOX_CORRUPT: u8 = 16;
    /// The state was written by a newer version.
    pub const SCHEMA_NEWER: u8 = 17;
    /// The key file cannot be read.
    pub const KEY_UNREADABLE: u8 = 18;
    /// A defect ended the process.
    pub const PANIC: u8 = 70;
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    name: &'static str,
    grpc: i32,
    grpc_name: &'static str,
    http: u16,
    retryable: bool,
    exit: u8,
    title: &'static str,
    page: &'static str,
}

macro_rules! codes {
    ($($variant:ident => $name:literal, $grpc:ident, $http:literal, $retry:ident, $exit:ident, $title:literal;)*) => {
        /// A failure that a user can see, with a stable name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $title] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        name: $name,
                        grpc: grpc::$grpc,
                        grpc_name: stringify!($grpc),
                        http: $http,
                        retryable: codes!(@$retry),
                        exit: exit::$exit,
                        title: $title,
                        page: include_str!(concat!("../../docs/errors/", $name, ".md")),
                    },)*
                }
            }
        }
    };
    (@retry) => { true };
    (@final) => { false };
}

codes! {
    // The request is wrong in itself.
    InvalidArgument => "invalid_argument", INVALID_ARGUMENT, 400, final, USAGE, "A field's value is not allowed";
    InvalidJson => "invalid_json", INVALID_ARGUMENT, 400, final, USAGE, "The body is not the JSON that this call takes";
    UnknownField => "unknown_field", INVALID_ARGUMENT, 400, final, USAGE, "The request has a field that this call does not know";
    UnsupportedMediaType => "unsupported_media_type", INVALID_ARGUMENT, 415, final, USAGE, "The body must be application/json";
    IdempotencyKeyInvalid => "idempotency_key_invalid", INVALID_ARGUMENT, 400, final, USAGE, "The id is not 1 to 128 visible ASCII characters";
    PayloadTooLarge => "payload_too_large", INVALID_ARGUMENT, 413, final, USAGE, "The message is larger than the broker or this daemon takes";
    UnencryptedNotAllowed => "unencrypted_not_allowed", FAILED_PRECONDITION, 403, final, REFUSED, "This destination can only be reached without encryption";
    // What was named does not exist, or is not one thing.
    RouteNotFound => "route_not_found", UNIMPLEMENTED, 404, final, OTHER, "There is no such call";
    MethodNotAllowed => "method_not_allowed", UNIMPLEMENTED, 405, final, OTHER, "The path exists, but not with this method";
    UnknownPeer => "unknown_peer", NOT_FOUND, 404, final, OTHER, "No member of the mesh matches the destination";
    AmbiguousPeer => "ambiguous_peer", INVALID_ARGUMENT, 400, final, USAGE, "Several members match the destination";
    AmbiguousReply => "ambiguous_reply", INVALID_ARGUMENT, 400, final, USAGE, "Several messages match the one that is answered";
    MeshNotFound => "mesh_not_found", NOT_FOUND, 404, final, OTHER, "This daemon does not serve that mesh";
    TopicNotFound => "topic_not_found", NOT_FOUND, 404, final, OTHER, "There is no such topic";
    TopicExists => "topic_exists", ALREADY_EXISTS, 409, final, OTHER, "A topic of this name exists";
    TopicNotSubscribed => "topic_not_subscribed", FAILED_PRECONDITION, 409, final, OTHER, "This member is not subscribed to the topic";
    TopicKeyMissing => "topic_key_missing", FAILED_PRECONDITION, 409, final, OTHER, "The topic's key is not here, or does not count";
    MessageNotFound => "message_not_found", NOT_FOUND, 404, final, OTHER, "There is no such message";
    SendNotFound => "send_not_found", NOT_FOUND, 404, final, OTHER, "No send was made under this id";
    FileNotFound => "file_not_found", NOT_FOUND, 404, final, OTHER, "There is no such file";
    // The id is taken: one code for each state and kind of conflict.
    OutboxPendingFingerprintMismatch => "outbox_pending_fingerprint_mismatch", ALREADY_EXISTS, 409, final, OTHER, "The id belongs to another request that is queued";
    OutboxInflightFingerprintMismatch => "outbox_inflight_fingerprint_mismatch", ALREADY_EXISTS, 409, final, OTHER, "The id belongs to another request that is on its way";
    OutboxDoneFingerprintMismatch => "outbox_done_fingerprint_mismatch", ALREADY_EXISTS, 409, final, OTHER, "The id belongs to another request that the broker has accepted";
    OutboxDeadFingerprintMatch => "outbox_dead_fingerprint_match", ALREADY_EXISTS, 409, final, OTHER, "This request was given up";
    OutboxDeadFingerprintMismatch => "outbox_dead_fingerprint_mismatch", ALREADY_EXISTS, 409, final, OTHER, "The id belongs to another request that was given up";
    OutboxAbortedFingerprintMatch => "outbox_aborted_fingerprint_match", ALREADY_EXISTS, 409, final, OTHER, "This request was aborted by the operator";
    OutboxAbortedFingerprintMismatch => "outbox_aborted_fingerprint_mismatch", ALREADY_EXISTS, 409, final, OTHER, "The id belongs to another request that was aborted";
    // What an operator asks of an entry of the outbox.
    OutboxEntryNotFound => "outbox_entry_not_found", NOT_FOUND, 404, final, OTHER, "The outbox has no such entry";
    OutboxEntryWrongState => "outbox_entry_wrong_state", FAILED_PRECONDITION, 409, final, OTHER, "The entry's state does not allow it";
    DedupeWindowPassed => "dedupe_window_passed", FAILED_PRECONDITION, 409, final, OTHER, "The broker may have forgotten the id";
    // The caller may not do this.
    Unauthenticated => "unauthenticated", UNAUTHENTICATED, 401, final, OTHER, "The bearer token is missing or wrong";
    TokenInQuery => "token_in_query", INVALID_ARGUMENT, 400, final, OTHER, "A token does not belong into a query string";
    HostNotAllowed => "host_not_allowed", PERMISSION_DENIED, 403, final, OTHER, "The Host header names no address of this daemon";
    OriginNotAllowed => "origin_not_allowed", PERMISSION_DENIED, 403, final, OTHER, "Requests from web pages are refused";
    PreflightRefused => "preflight_refused", PERMISSION_DENIED, 403, final, OTHER, "CORS preflight requests are refused";
    HookCallDenied => "hook_call_denied", PERMISSION_DENIED, 403, final, REFUSED, "The hook's capability token does not allow this call";
    HookProcessRefused => "hook_process_refused", PERMISSION_DENIED, 403, final, REFUSED, "A hook may not use the daemon's main socket";
    HookHopLimit => "hook_hop_limit", PERMISSION_DENIED, 403, final, OTHER, "Too many automatic messages led to one another";
    HookWithoutHome => "hook_without_home", FAILED_PRECONDITION, 409, final, REFUSED, "A hook without HOME cannot use the command line";
    PreSendDropped => "pre_send_dropped", PERMISSION_DENIED, 403, final, REFUSED, "The pre-send hook dropped the message";
    PreSendFailed => "pre_send_failed", UNAVAILABLE, 503, retry, OTHER, "The pre-send hook did not decide about the message";
    PermissionDenied => "permission_denied", PERMISSION_DENIED, 403, final, REFUSED, "This member may not do this";
    MemberKeyChanged => "member_key_changed", FAILED_PRECONDITION, 409, final, REFUSED, "The broker shows another key for a known member";
    NameBindingChanged => "name_binding_changed", FAILED_PRECONDITION, 409, final, REFUSED, "A known name now stands for another member";
    NoPendingChange => "no_pending_change", FAILED_PRECONDITION, 409, final, OTHER, "There is no such change to accept";
    SafetyNumberMismatch => "safety_number_mismatch", FAILED_PRECONDITION, 409, final, REFUSED, "The safety number is not the one of these two keys";
    RotationInProgress => "rotation_in_progress", FAILED_PRECONDITION, 409, final, OTHER, "A rotation of the key is under way";
    RotationRefused => "rotation_refused", FAILED_PRECONDITION, 409, final, OTHER, "The broker refused the new key";
    KeyRotationAborted => "key_rotation_aborted_archive_write_failed", FAILED_PRECONDITION, 500, final, OTHER, "The key was not rotated because the archive could not be written";
    // Limits.
    DaemonBusy => "daemon_busy", RESOURCE_EXHAUSTED, 429, retry, OTHER, "Too many requests are in flight";
    TooManyStreams => "too_many_streams", RESOURCE_EXHAUSTED, 429, retry, OTHER, "Too many streams are open";
    RateLimited => "rate_limited", RESOURCE_EXHAUSTED, 429, retry, OTHER, "Too many requests in a short time";
    InsufficientStorage => "insufficient_storage", RESOURCE_EXHAUSTED, 507, retry, OTHER, "The disk or the queue is full";
    // The daemon's circumstances.
    StorageFailed => "storage_failed", UNAVAILABLE, 503, retry, OTHER, "The database did not take the write";
    BrokerUnreachable => "broker_unreachable", UNAVAILABLE, 503, retry, OTHER, "The broker does not answer";
    NotABroker => "not_a_broker", FAILED_PRECONDITION, 502, final, OTHER, "What answers at the broker's address is no broker";
    BrokerTlsFailed => "broker_tls_failed", FAILED_PRECONDITION, 502, final, OTHER, "TLS with the broker failed";
    HelloRefused => "hello_refused", PERMISSION_DENIED, 403, final, OTHER, "The broker does not let this member in";
    ClockSkew => "clock_skew", FAILED_PRECONDITION, 409, final, OTHER, "This host's clock is too far from the broker's";
    DaemonShuttingDown => "daemon_shutting_down", UNAVAILABLE, 503, retry, OTHER, "The daemon is stopping";
    DeadlineExceeded => "deadline_exceeded", DEADLINE_EXCEEDED, 504, retry, OTHER, "The call's deadline passed";
    Cancelled => "cancelled", CANCELLED, 499, final, OTHER, "The caller ended the call";
    WaitTimeout => "wait_timeout", DEADLINE_EXCEEDED, 504, retry, WAIT_TIMEOUT, "The message did not come as far as was waited for";
    DeliveryExpired => "delivery_expired", FAILED_PRECONDITION, 410, final, OTHER, "The receiver did not take the message within the broker's limit";
    MessageRejected => "message_rejected", FAILED_PRECONDITION, 410, final, OTHER, "The receiver's daemon could not use the message";
    CapabilityDisabled => "capability_disabled", UNIMPLEMENTED, 404, final, OTHER, "This capability is switched off";
    NotServed => "not_served", UNIMPLEMENTED, 501, final, OTHER, "This daemon does not serve the call";
    InternalError => "internal_error", INTERNAL, 500, final, OTHER, "A defect of the daemon";
    // Starting and ending.
    OutputFailed => "output_failed", INTERNAL, 500, final, OTHER, "The command's result could not be printed";
    UsageError => "usage_error", INVALID_ARGUMENT, 400, final, USAGE, "The command line is wrong";
    DaemonNotRunning => "daemon_not_running", UNAVAILABLE, 503, retry, NOT_RUNNING, "No daemon answers";
    VersionUnsupported => "version_unsupported", UNIMPLEMENTED, 501, final, OTHER, "The daemon serves another version of the API";
    ClientClosed => "client_closed", FAILED_PRECONDITION, 409, final, OTHER, "The client of the SDK was closed";
    ClientForked => "client_forked", FAILED_PRECONDITION, 409, final, OTHER, "The client of the SDK belongs to another process";
    AlreadyRunning => "already_running", FAILED_PRECONDITION, 409, final, ALREADY_RUNNING, "A daemon of this mesh runs already";
    ConfigInvalid => "config_invalid", FAILED_PRECONDITION, 400, final, CONFIG, "The configuration is wrong";
    OutboxMaxAgeAboveDedupeWindow => "outbox_max_age_above_dedupe_window", FAILED_PRECONDITION, 400, final, CONFIG, "The age limit is longer than the broker remembers ids";
    MeshNotJoined => "mesh_not_joined", NOT_FOUND, 404, final, CONFIG, "This user has not joined that mesh";
    MeshRequired => "mesh_required", INVALID_ARGUMENT, 400, final, USAGE, "Several meshes are joined; name one";
    StateDirUnusable => "state_dir_unusable", FAILED_PRECONDITION, 500, final, CONFIG, "The state directory cannot be used";
    SocketPathTooLong => "socket_path_too_long", FAILED_PRECONDITION, 500, final, CONFIG, "The socket's path is longer than the system allows";
    FaketimeMissing => "faketime_missing", FAILED_PRECONDITION, 501, final, OTHER, "The library that moves a clock is missing";
    ListenFailed => "listen_failed", UNAVAILABLE, 503, final, CONFIG, "A socket could not be bound";
    KeyUnreadable => "key_unreadable", FAILED_PRECONDITION, 500, final, KEY_UNREADABLE, "The key file is missing a part or damaged";
    OutboxCorrupt => "outbox_corrupt", DATA_LOSS, 500, final, OUTBOX_CORRUPT, "The outbox database is damaged";
    SchemaNewer => "schema_newer", FAILED_PRECONDITION, 500, final, SCHEMA_NEWER, "The state was written by a newer version";
    FeatureUnavailable => "feature_unavailable", FAILED_PRECONDITION, 501, final, FEATURE_UNAVAILABLE, "The broker lacks a required feature";
    ReplacedByNewerConnection => "replaced_by_newer_connection", FAILED_PRECONDITION, 409, final, REPLACED, "Another connection took this member over";
    MemberAlreadyConnected => "member_already_connected", FAILED_PRECONDITION, 409, final, MEMBER_CONNECTED, "Another connection holds this member";
    MemberRevoked => "member_revoked", PERMISSION_DENIED, 403, final, REVOKED, "This member was revoked";
    // Joining.
    InviteInvalid => "invite_invalid", INVALID_ARGUMENT, 400, final, OTHER, "The invite link cannot be used";
    InviteExpired => "invite_expired", FAILED_PRECONDITION, 410, final, OTHER, "The invite has expired";
    RequestRefused => "request_refused", PERMISSION_DENIED, 403, final, OTHER, "The broker refused a request about a mesh";
    JoinRefused => "join_refused", PERMISSION_DENIED, 403, final, OTHER, "The broker refused the request to join";
    OwnerKeyMissing => "owner_key_missing", FAILED_PRECONDITION, 409, final, OTHER, "This host does not hold the mesh's owner key";
    AdminTokenRefused => "admin_token_refused", UNAUTHENTICATED, 401, final, OTHER, "The broker does not know the admin token";
    MeshExists => "mesh_exists", ALREADY_EXISTS, 409, final, OTHER, "A mesh of this name exists";
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The stable name, lower_snake.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The gRPC status code.
    pub fn grpc(self) -> i32 {
        self.row().grpc
    }

    /// The gRPC status code by name, such as `NOT_FOUND`.
    pub fn grpc_name(self) -> &'static str {
        self.row().grpc_name
    }

    /// The HTTP status code.
    pub fn http(self) -> u16 {
        self.row().http
    }

    /// Whether the same request can succeed later without a change.
    pub fn retryable(self) -> bool {
        self.row().retryable
    }

    /// The exit code of a command that fails with it.
    pub fn exit(self) -> u8 {
        self.row().exit
    }

    /// What it means, in a few words.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// The page of `docs/errors` about it, in Markdown.
    pub fn page(self) -> &'static str {
        self.row().page
    }

    /// The code with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_lower_snake_and_found_again() {
        let mut seen = HashSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.name()), "{code} stands twice");
            assert!(code.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code}");
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
        }
    }

    #[test]
    fn a_refusal_that_can_be_retried_says_so_in_every_transport() {
        for code in ErrorCode::ALL.iter().filter(|code| code.retryable()) {
            assert!(matches!(code.http(), 429 | 503 | 504 | 507), "{code}");
            assert!(
                matches!(code.grpc(), grpc::RESOURCE_EXHAUSTED | grpc::UNAVAILABLE | grpc::DEADLINE_EXCEEDED),
                "{code}"
            );
        }
    }
}
