"""The errors of claudemesh, one class for each code.

Written by gen_errors.py from the daemon's table; do not edit.
"""

from claudemesh._error import URL, ClaudemeshError
from claudemesh.v1.common_pb2 import Candidate, FieldViolation

__all__ = [
    "Aborted",
    "AdminTokenRefused",
    "AlreadyExists",
    "AlreadyRunning",
    "AmbiguousPeer",
    "AmbiguousReply",
    "BrokerTlsFailed",
    "BrokerUnreachable",
    "CODES",
    "Cancelled",
    "Candidate",
    "CapabilityDisabled",
    "ClaudemeshError",
    "ClientClosed",
    "ClientForked",
    "ClockSkew",
    "ConfigInvalid",
    "DaemonBusy",
    "DaemonNotRunning",
    "DaemonShuttingDown",
    "DataLoss",
    "DeadlineExceeded",
    "DedupeWindowPassed",
    "DeliveryExpired",
    "FailedPrecondition",
    "FaketimeMissing",
    "FeatureUnavailable",
    "FieldViolation",
    "FileNotFound",
    "HelloRefused",
    "HookCallDenied",
    "HookHopLimit",
    "HookProcessRefused",
    "HookWithoutHome",
    "HostNotAllowed",
    "IdempotencyKeyInvalid",
    "InsufficientStorage",
    "Internal",
    "InternalError",
    "InvalidArgument",
    "InvalidJson",
    "InviteExpired",
    "InviteInvalid",
    "JoinRefused",
    "KeyRotationAbortedArchiveWriteFailed",
    "KeyUnreadable",
    "ListenFailed",
    "MemberAlreadyConnected",
    "MemberKeyChanged",
    "MemberRevoked",
    "MeshExists",
    "MeshNotFound",
    "MeshNotJoined",
    "MeshRequired",
    "MessageNotFound",
    "MessageRejected",
    "MethodNotAllowed",
    "NameBindingChanged",
    "NoPendingChange",
    "NotABroker",
    "NotFound",
    "NotServed",
    "OriginNotAllowed",
    "OutOfRange",
    "OutboxAbortedFingerprintMatch",
    "OutboxAbortedFingerprintMismatch",
    "OutboxCorrupt",
    "OutboxDeadFingerprintMatch",
    "OutboxDeadFingerprintMismatch",
    "OutboxDoneFingerprintMismatch",
    "OutboxEntryNotFound",
    "OutboxEntryWrongState",
    "OutboxInflightFingerprintMismatch",
    "OutboxMaxAgeAboveDedupeWindow",
    "OutboxPendingFingerprintMismatch",
    "OutputFailed",
    "OwnerKeyMissing",
    "PayloadTooLarge",
    "PermissionDenied",
    "PreSendDropped",
    "PreSendFailed",
    "PreflightRefused",
    "RateLimited",
    "ReplacedByNewerConnection",
    "RequestRefused",
    "ResourceExhausted",
    "RotationInProgress",
    "RotationRefused",
    "RouteNotFound",
    "STATUSES",
    "SafetyNumberMismatch",
    "SchemaNewer",
    "SendNotFound",
    "SocketPathTooLong",
    "StateDirUnusable",
    "StorageFailed",
    "TokenInQuery",
    "TooManyStreams",
    "TopicExists",
    "TopicKeyMissing",
    "TopicNotFound",
    "TopicNotSubscribed",
    "URL",
    "Unauthenticated",
    "Unavailable",
    "UnencryptedNotAllowed",
    "Unimplemented",
    "Unknown",
    "UnknownField",
    "UnknownPeer",
    "UnsupportedMediaType",
    "UsageError",
    "VersionUnsupported",
    "WaitTimeout",
]


class InvalidArgument(ClaudemeshError):
    """A field's value is not allowed."""

    default_code = "invalid_argument"
    default_grpc_code = 3
    default_retryable = False


class InvalidJson(ClaudemeshError):
    """The body is not the JSON that this call takes."""

    default_code = "invalid_json"
    default_grpc_code = 3
    default_retryable = False


class UnknownField(ClaudemeshError):
    """The request has a field that this call does not know."""

    default_code = "unknown_field"
    default_grpc_code = 3
    default_retryable = False


class UnsupportedMediaType(ClaudemeshError):
    """The body must be application/json."""

    default_code = "unsupported_media_type"
    default_grpc_code = 3
    default_retryable = False


class IdempotencyKeyInvalid(ClaudemeshError):
    """The id is not 1 to 128 visible ASCII characters."""

    default_code = "idempotency_key_invalid"
    default_grpc_code = 3
    default_retryable = False


class PayloadTooLarge(ClaudemeshError):
    """The message is larger than the broker or this daemon takes."""

    default_code = "payload_too_large"
    default_grpc_code = 3
    default_retryable = False


class UnencryptedNotAllowed(ClaudemeshError):
    """This destination can only be reached without encryption."""

    default_code = "unencrypted_not_allowed"
    default_grpc_code = 9
    default_retryable = False


class RouteNotFound(ClaudemeshError):
    """There is no such call."""

    default_code = "route_not_found"
    default_grpc_code = 12
    default_retryable = False


class MethodNotAllowed(ClaudemeshError):
    """The path exists, but not with this method."""

    default_code = "method_not_allowed"
    default_grpc_code = 12
    default_retryable = False


class UnknownPeer(ClaudemeshError):
    """No member of the mesh matches the destination."""

    default_code = "unknown_peer"
    default_grpc_code = 5
    default_retryable = False


class AmbiguousPeer(ClaudemeshError):
    """Several members match the destination."""

    default_code = "ambiguous_peer"
    default_grpc_code = 3
    default_retryable = False


class AmbiguousReply(ClaudemeshError):
    """Several messages match the one that is answered."""

    default_code = "ambiguous_reply"
    default_grpc_code = 3
    default_retryable = False


class MeshNotFound(ClaudemeshError):
    """This daemon does not serve that mesh."""

    default_code = "mesh_not_found"
    default_grpc_code = 5
    default_retryable = False


class TopicNotFound(ClaudemeshError):
    """There is no such topic."""

    default_code = "topic_not_found"
    default_grpc_code = 5
    default_retryable = False


class TopicExists(ClaudemeshError):
    """A topic of this name exists."""

    default_code = "topic_exists"
    default_grpc_code = 6
    default_retryable = False


class TopicNotSubscribed(ClaudemeshError):
    """This member is not subscribed to the topic."""

    default_code = "topic_not_subscribed"
    default_grpc_code = 9
    default_retryable = False


class TopicKeyMissing(ClaudemeshError):
    """The topic's key is not here, or does not count."""

    default_code = "topic_key_missing"
    default_grpc_code = 9
    default_retryable = False


class MessageNotFound(ClaudemeshError):
    """There is no such message."""

    default_code = "message_not_found"
    default_grpc_code = 5
    default_retryable = False


class SendNotFound(ClaudemeshError):
    """No send was made under this id."""

    default_code = "send_not_found"
    default_grpc_code = 5
    default_retryable = False


class FileNotFound(ClaudemeshError):
    """There is no such file."""

    default_code = "file_not_found"
    default_grpc_code = 5
    default_retryable = False


class OutboxPendingFingerprintMismatch(ClaudemeshError):
    """The id belongs to another request that is queued."""

    default_code = "outbox_pending_fingerprint_mismatch"
    default_grpc_code = 6
    default_retryable = False


class OutboxInflightFingerprintMismatch(ClaudemeshError):
    """The id belongs to another request that is on its way."""

    default_code = "outbox_inflight_fingerprint_mismatch"
    default_grpc_code = 6
    default_retryable = False


class OutboxDoneFingerprintMismatch(ClaudemeshError):
    """The id belongs to another request that the broker has accepted."""

    default_code = "outbox_done_fingerprint_mismatch"
    default_grpc_code = 6
    default_retryable = False


class OutboxDeadFingerprintMatch(ClaudemeshError):
    """This request was given up."""

    default_code = "outbox_dead_fingerprint_match"
    default_grpc_code = 6
    default_retryable = False


class OutboxDeadFingerprintMismatch(ClaudemeshError):
    """The id belongs to another request that was given up."""

    default_code = "outbox_dead_fingerprint_mismatch"
    default_grpc_code = 6
    default_retryable = False


class OutboxAbortedFingerprintMatch(ClaudemeshError):
    """This request was aborted by the operator."""

    default_code = "outbox_aborted_fingerprint_match"
    default_grpc_code = 6
    default_retryable = False


class OutboxAbortedFingerprintMismatch(ClaudemeshError):
    """The id belongs to another request that was aborted."""

    default_code = "outbox_aborted_fingerprint_mismatch"
    default_grpc_code = 6
    default_retryable = False


class OutboxEntryNotFound(ClaudemeshError):
    """The outbox has no such entry."""

    default_code = "outbox_entry_not_found"
    default_grpc_code = 5
    default_retryable = False


class OutboxEntryWrongState(ClaudemeshError):
    """The entry's state does not allow it."""

    default_code = "outbox_entry_wrong_state"
    default_grpc_code = 9
    default_retryable = False


class DedupeWindowPassed(ClaudemeshError):
    """The broker may have forgotten the id."""

    default_code = "dedupe_window_passed"
    default_grpc_code = 9
    default_retryable = False


class Unauthenticated(ClaudemeshError):
    """The bearer token is missing or wrong."""

    default_code = "unauthenticated"
    default_grpc_code = 16
    default_retryable = False


class TokenInQuery(ClaudemeshError):
    """A token does not belong into a query string."""

    default_code = "token_in_query"
    default_grpc_code = 3
    default_retryable = False


class HostNotAllowed(ClaudemeshError):
    """The Host header names no address of this daemon."""

    default_code = "host_not_allowed"
    default_grpc_code = 7
    default_retryable = False


class OriginNotAllowed(ClaudemeshError):
    """Requests from web pages are refused."""

    default_code = "origin_not_allowed"
    default_grpc_code = 7
    default_retryable = False


class PreflightRefused(ClaudemeshError):
    """CORS preflight requests are refused."""

    default_code = "preflight_refused"
    default_grpc_code = 7
    default_retryable = False


class HookCallDenied(ClaudemeshError):
    """The hook's capability token does not allow this call."""

    default_code = "hook_call_denied"
    default_grpc_code = 7
    default_retryable = False


class HookProcessRefused(ClaudemeshError):
    """A hook may not use the daemon's main socket."""

    default_code = "hook_process_refused"
    default_grpc_code = 7
    default_retryable = False


class HookHopLimit(ClaudemeshError):
    """Too many automatic messages led to one another."""

    default_code = "hook_hop_limit"
    default_grpc_code = 7
    default_retryable = False


class HookWithoutHome(ClaudemeshError):
    """A hook without HOME cannot use the command line."""

    default_code = "hook_without_home"
    default_grpc_code = 9
    default_retryable = False


class PreSendDropped(ClaudemeshError):
    """The pre-send hook dropped the message."""

    default_code = "pre_send_dropped"
    default_grpc_code = 7
    default_retryable = False


class PreSendFailed(ClaudemeshError):
    """The pre-send hook did not decide about the message."""

    default_code = "pre_send_failed"
    default_grpc_code = 14
    default_retryable = True


class PermissionDenied(ClaudemeshError):
    """This member may not do this."""

    default_code = "permission_denied"
    default_grpc_code = 7
    default_retryable = False


class MemberKeyChanged(ClaudemeshError):
    """The broker shows another key for a known member."""

    default_code = "member_key_changed"
    default_grpc_code = 9
    default_retryable = False


class NameBindingChanged(ClaudemeshError):
    """A known name now stands for another member."""

    default_code = "name_binding_changed"
    default_grpc_code = 9
    default_retryable = False


class NoPendingChange(ClaudemeshError):
    """There is no such change to accept."""

    default_code = "no_pending_change"
    default_grpc_code = 9
    default_retryable = False


class SafetyNumberMismatch(ClaudemeshError):
    """The safety number is not the one of these two keys."""

    default_code = "safety_number_mismatch"
    default_grpc_code = 9
    default_retryable = False


class RotationInProgress(ClaudemeshError):
    """A rotation of the key is under way."""

    default_code = "rotation_in_progress"
    default_grpc_code = 9
    default_retryable = False


class RotationRefused(ClaudemeshError):
    """The broker refused the new key."""

    default_code = "rotation_refused"
    default_grpc_code = 9
    default_retryable = False


class KeyRotationAbortedArchiveWriteFailed(ClaudemeshError):
    """The key was not rotated because the archive could not be written."""

    default_code = "key_rotation_aborted_archive_write_failed"
    default_grpc_code = 9
    default_retryable = False


class DaemonBusy(ClaudemeshError):
    """Too many requests are in flight."""

    default_code = "daemon_busy"
    default_grpc_code = 8
    default_retryable = True


class TooManyStreams(ClaudemeshError):
    """Too many streams are open."""

    default_code = "too_many_streams"
    default_grpc_code = 8
    default_retryable = True


class RateLimited(ClaudemeshError):
    """Too many requests in a short time."""

    default_code = "rate_limited"
    default_grpc_code = 8
    default_retryable = True


class InsufficientStorage(ClaudemeshError):
    """The disk or the queue is full."""

    default_code = "insufficient_storage"
    default_grpc_code = 8
    default_retryable = True


class StorageFailed(ClaudemeshError):
    """The database did not take the write."""

    default_code = "storage_failed"
    default_grpc_code = 14
    default_retryable = True


class BrokerUnreachable(ClaudemeshError):
    """The broker does not answer."""

    default_code = "broker_unreachable"
    default_grpc_code = 14
    default_retryable = True


class NotABroker(ClaudemeshError):
    """What answers at the broker's address is no broker."""

    default_code = "not_a_broker"
    default_grpc_code = 9
    default_retryable = False


class BrokerTlsFailed(ClaudemeshError):
    """TLS with the broker failed."""

    default_code = "broker_tls_failed"
    default_grpc_code = 9
    default_retryable = False


class HelloRefused(ClaudemeshError):
    """The broker does not let this member in."""

    default_code = "hello_refused"
    default_grpc_code = 7
    default_retryable = False


class ClockSkew(ClaudemeshError):
    """This host's clock is too far from the broker's."""

    default_code = "clock_skew"
    default_grpc_code = 9
    default_retryable = False


class DaemonShuttingDown(ClaudemeshError):
    """The daemon is stopping."""

    default_code = "daemon_shutting_down"
    default_grpc_code = 14
    default_retryable = True


class DeadlineExceeded(ClaudemeshError):
    """The call's deadline passed."""

    default_code = "deadline_exceeded"
    default_grpc_code = 4
    default_retryable = True


class Cancelled(ClaudemeshError):
    """The caller ended the call."""

    default_code = "cancelled"
    default_grpc_code = 1
    default_retryable = False


class WaitTimeout(ClaudemeshError):
    """The message did not come as far as was waited for."""

    default_code = "wait_timeout"
    default_grpc_code = 4
    default_retryable = True


class DeliveryExpired(ClaudemeshError):
    """The receiver did not take the message within the broker's limit."""

    default_code = "delivery_expired"
    default_grpc_code = 9
    default_retryable = False


class MessageRejected(ClaudemeshError):
    """The receiver's daemon could not use the message."""

    default_code = "message_rejected"
    default_grpc_code = 9
    default_retryable = False


class CapabilityDisabled(ClaudemeshError):
    """This capability is switched off."""

    default_code = "capability_disabled"
    default_grpc_code = 12
    default_retryable = False


class NotServed(ClaudemeshError):
    """This daemon does not serve the call."""

    default_code = "not_served"
    default_grpc_code = 12
    default_retryable = False


class InternalError(ClaudemeshError):
    """A defect of the daemon."""

    default_code = "internal_error"
    default_grpc_code = 13
    default_retryable = False


class OutputFailed(ClaudemeshError):
    """The command's result could not be printed."""

    default_code = "output_failed"
    default_grpc_code = 13
    default_retryable = False


class UsageError(ClaudemeshError):
    """The command line is wrong."""

    default_code = "usage_error"
    default_grpc_code = 3
    default_retryable = False


class DaemonNotRunning(ClaudemeshError):
    """No daemon answers."""

    default_code = "daemon_not_running"
    default_grpc_code = 14
    default_retryable = True


class VersionUnsupported(ClaudemeshError):
    """The daemon serves another version of the API."""

    default_code = "version_unsupported"
    default_grpc_code = 12
    default_retryable = False


class ClientClosed(ClaudemeshError):
    """The client of the SDK was closed."""

    default_code = "client_closed"
    default_grpc_code = 9
    default_retryable = False


class ClientForked(ClaudemeshError):
    """The client of the SDK belongs to another process."""

    default_code = "client_forked"
    default_grpc_code = 9
    default_retryable = False


class AlreadyRunning(ClaudemeshError):
    """A daemon of this mesh runs already."""

    default_code = "already_running"
    default_grpc_code = 9
    default_retryable = False


class ConfigInvalid(ClaudemeshError):
    """The configuration is wrong."""

    default_code = "config_invalid"
    default_grpc_code = 9
    default_retryable = False


class OutboxMaxAgeAboveDedupeWindow(ClaudemeshError):
    """The age limit is longer than the broker remembers ids."""

    default_code = "outbox_max_age_above_dedupe_window"
    default_grpc_code = 9
    default_retryable = False


class MeshNotJoined(ClaudemeshError):
    """This user has not joined that mesh."""

    default_code = "mesh_not_joined"
    default_grpc_code = 5
    default_retryable = False


class MeshRequired(ClaudemeshError):
    """Several meshes are joined; name one."""

    default_code = "mesh_required"
    default_grpc_code = 3
    default_retryable = False


class StateDirUnusable(ClaudemeshError):
    """The state directory cannot be used."""

    default_code = "state_dir_unusable"
    default_grpc_code = 9
    default_retryable = False


class SocketPathTooLong(ClaudemeshError):
    """The socket's path is longer than the system allows."""

    default_code = "socket_path_too_long"
    default_grpc_code = 9
    default_retryable = False


class FaketimeMissing(ClaudemeshError):
    """The library that moves a clock is missing."""

    default_code = "faketime_missing"
    default_grpc_code = 9
    default_retryable = False


class ListenFailed(ClaudemeshError):
    """A socket could not be bound."""

    default_code = "listen_failed"
    default_grpc_code = 14
    default_retryable = False


class KeyUnreadable(ClaudemeshError):
    """The key file is missing a part or damaged."""

    default_code = "key_unreadable"
    default_grpc_code = 9
    default_retryable = False


class OutboxCorrupt(ClaudemeshError):
    """The outbox database is damaged."""

    default_code = "outbox_corrupt"
    default_grpc_code = 15
    default_retryable = False


class SchemaNewer(ClaudemeshError):
    """The state was written by a newer version."""

    default_code = "schema_newer"
    default_grpc_code = 9
    default_retryable = False


class FeatureUnavailable(ClaudemeshError):
    """The broker lacks a required feature."""

    default_code = "feature_unavailable"
    default_grpc_code = 9
    default_retryable = False


class ReplacedByNewerConnection(ClaudemeshError):
    """Another connection took this member over."""

    default_code = "replaced_by_newer_connection"
    default_grpc_code = 9
    default_retryable = False


class MemberAlreadyConnected(ClaudemeshError):
    """Another connection holds this member."""

    default_code = "member_already_connected"
    default_grpc_code = 9
    default_retryable = False


class MemberRevoked(ClaudemeshError):
    """This member was revoked."""

    default_code = "member_revoked"
    default_grpc_code = 7
    default_retryable = False


class InviteInvalid(ClaudemeshError):
    """The invite link cannot be used."""

    default_code = "invite_invalid"
    default_grpc_code = 3
    default_retryable = False


class InviteExpired(ClaudemeshError):
    """The invite has expired."""

    default_code = "invite_expired"
    default_grpc_code = 9
    default_retryable = False


class RequestRefused(ClaudemeshError):
    """The broker refused a request about a mesh."""

    default_code = "request_refused"
    default_grpc_code = 7
    default_retryable = False


class JoinRefused(ClaudemeshError):
    """The broker refused the request to join."""

    default_code = "join_refused"
    default_grpc_code = 7
    default_retryable = False


class OwnerKeyMissing(ClaudemeshError):
    """This host does not hold the mesh's owner key."""

    default_code = "owner_key_missing"
    default_grpc_code = 9
    default_retryable = False


class AdminTokenRefused(ClaudemeshError):
    """The broker does not know the admin token."""

    default_code = "admin_token_refused"
    default_grpc_code = 16
    default_retryable = False


class MeshExists(ClaudemeshError):
    """A mesh of this name exists."""

    default_code = "mesh_exists"
    default_grpc_code = 6
    default_retryable = False


class Unknown(ClaudemeshError):
    """A failure of the gRPC status UNKNOWN whose code this version does not know."""

    default_code = "unknown"
    default_grpc_code = 2
    default_retryable = False


class NotFound(ClaudemeshError):
    """A failure of the gRPC status NOT_FOUND whose code this version does not know."""

    default_code = "not_found"
    default_grpc_code = 5
    default_retryable = False


class AlreadyExists(ClaudemeshError):
    """A failure of the gRPC status ALREADY_EXISTS whose code this version does not know."""

    default_code = "already_exists"
    default_grpc_code = 6
    default_retryable = False


class ResourceExhausted(ClaudemeshError):
    """A failure of the gRPC status RESOURCE_EXHAUSTED whose code this version does not know."""

    default_code = "resource_exhausted"
    default_grpc_code = 8
    default_retryable = False


class FailedPrecondition(ClaudemeshError):
    """A failure of the gRPC status FAILED_PRECONDITION whose code this version does not know."""

    default_code = "failed_precondition"
    default_grpc_code = 9
    default_retryable = False


class Aborted(ClaudemeshError):
    """A failure of the gRPC status ABORTED whose code this version does not know."""

    default_code = "aborted"
    default_grpc_code = 10
    default_retryable = False


class OutOfRange(ClaudemeshError):
    """A failure of the gRPC status OUT_OF_RANGE whose code this version does not know."""

    default_code = "out_of_range"
    default_grpc_code = 11
    default_retryable = False


class Unimplemented(ClaudemeshError):
    """A failure of the gRPC status UNIMPLEMENTED whose code this version does not know."""

    default_code = "unimplemented"
    default_grpc_code = 12
    default_retryable = False


class Internal(ClaudemeshError):
    """A failure of the gRPC status INTERNAL whose code this version does not know."""

    default_code = "internal"
    default_grpc_code = 13
    default_retryable = False


class Unavailable(ClaudemeshError):
    """A failure of the gRPC status UNAVAILABLE whose code this version does not know."""

    default_code = "unavailable"
    default_grpc_code = 14
    default_retryable = True


class DataLoss(ClaudemeshError):
    """A failure of the gRPC status DATA_LOSS whose code this version does not know."""

    default_code = "data_loss"
    default_grpc_code = 15
    default_retryable = False


# By code.
CODES: dict[str, type[ClaudemeshError]] = {
    "invalid_argument": InvalidArgument,
    "invalid_json": InvalidJson,
    "unknown_field": UnknownField,
    "unsupported_media_type": UnsupportedMediaType,
    "idempotency_key_invalid": IdempotencyKeyInvalid,
    "payload_too_large": PayloadTooLarge,
    "unencrypted_not_allowed": UnencryptedNotAllowed,
    "route_not_found": RouteNotFound,
    "method_not_allowed": MethodNotAllowed,
    "unknown_peer": UnknownPeer,
    "ambiguous_peer": AmbiguousPeer,
    "ambiguous_reply": AmbiguousReply,
    "mesh_not_found": MeshNotFound,
    "topic_not_found": TopicNotFound,
    "topic_exists": TopicExists,
    "topic_not_subscribed": TopicNotSubscribed,
    "topic_key_missing": TopicKeyMissing,
    "message_not_found": MessageNotFound,
    "send_not_found": SendNotFound,
    "file_not_found": FileNotFound,
    "outbox_pending_fingerprint_mismatch": OutboxPendingFingerprintMismatch,
    "outbox_inflight_fingerprint_mismatch": OutboxInflightFingerprintMismatch,
    "outbox_done_fingerprint_mismatch": OutboxDoneFingerprintMismatch,
    "outbox_dead_fingerprint_match": OutboxDeadFingerprintMatch,
    "outbox_dead_fingerprint_mismatch": OutboxDeadFingerprintMismatch,
    "outbox_aborted_fingerprint_match": OutboxAbortedFingerprintMatch,
    "outbox_aborted_fingerprint_mismatch": OutboxAbortedFingerprintMismatch,
    "outbox_entry_not_found": OutboxEntryNotFound,
    "outbox_entry_wrong_state": OutboxEntryWrongState,
    "dedupe_window_passed": DedupeWindowPassed,
    "unauthenticated": Unauthenticated,
    "token_in_query": TokenInQuery,
    "host_not_allowed": HostNotAllowed,
    "origin_not_allowed": OriginNotAllowed,
    "preflight_refused": PreflightRefused,
    "hook_call_denied": HookCallDenied,
    "hook_process_refused": HookProcessRefused,
    "hook_hop_limit": HookHopLimit,
    "hook_without_home": HookWithoutHome,
    "pre_send_dropped": PreSendDropped,
    "pre_send_failed": PreSendFailed,
    "permission_denied": PermissionDenied,
    "member_key_changed": MemberKeyChanged,
    "name_binding_changed": NameBindingChanged,
    "no_pending_change": NoPendingChange,
    "safety_number_mismatch": SafetyNumberMismatch,
    "rotation_in_progress": RotationInProgress,
    "rotation_refused": RotationRefused,
    "key_rotation_aborted_archive_write_failed": KeyRotationAbortedArchiveWriteFailed,
    "daemon_busy": DaemonBusy,
    "too_many_streams": TooManyStreams,
    "rate_limited": RateLimited,
    "insufficient_storage": InsufficientStorage,
    "storage_failed": StorageFailed,
    "broker_unreachable": BrokerUnreachable,
    "not_a_broker": NotABroker,
    "broker_tls_failed": BrokerTlsFailed,
    "hello_refused": HelloRefused,
    "clock_skew": ClockSkew,
    "daemon_shutting_down": DaemonShuttingDown,
    "deadline_exceeded": DeadlineExceeded,
    "cancelled": Cancelled,
    "wait_timeout": WaitTimeout,
    "delivery_expired": DeliveryExpired,
    "message_rejected": MessageRejected,
    "capability_disabled": CapabilityDisabled,
    "not_served": NotServed,
    "internal_error": InternalError,
    "output_failed": OutputFailed,
    "usage_error": UsageError,
    "daemon_not_running": DaemonNotRunning,
    "version_unsupported": VersionUnsupported,
    "client_closed": ClientClosed,
    "client_forked": ClientForked,
    "already_running": AlreadyRunning,
    "config_invalid": ConfigInvalid,
    "outbox_max_age_above_dedupe_window": OutboxMaxAgeAboveDedupeWindow,
    "mesh_not_joined": MeshNotJoined,
    "mesh_required": MeshRequired,
    "state_dir_unusable": StateDirUnusable,
    "socket_path_too_long": SocketPathTooLong,
    "faketime_missing": FaketimeMissing,
    "listen_failed": ListenFailed,
    "key_unreadable": KeyUnreadable,
    "outbox_corrupt": OutboxCorrupt,
    "schema_newer": SchemaNewer,
    "feature_unavailable": FeatureUnavailable,
    "replaced_by_newer_connection": ReplacedByNewerConnection,
    "member_already_connected": MemberAlreadyConnected,
    "member_revoked": MemberRevoked,
    "invite_invalid": InviteInvalid,
    "invite_expired": InviteExpired,
    "request_refused": RequestRefused,
    "join_refused": JoinRefused,
    "owner_key_missing": OwnerKeyMissing,
    "admin_token_refused": AdminTokenRefused,
    "mesh_exists": MeshExists,
}

# By number of a gRPC status, for codes that this version does not know.
STATUSES: dict[int, type[ClaudemeshError]] = {
    1: Cancelled,
    2: Unknown,
    3: InvalidArgument,
    4: DeadlineExceeded,
    5: NotFound,
    6: AlreadyExists,
    7: PermissionDenied,
    8: ResourceExhausted,
    9: FailedPrecondition,
    10: Aborted,
    11: OutOfRange,
    12: Unimplemented,
    13: Internal,
    14: Unavailable,
    15: DataLoss,
    16: Unauthenticated,
}
