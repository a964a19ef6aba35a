"""The type of all errors, and how a gRPC status becomes one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError

from claudemesh.v1.common_pb2 import Candidate, Candidates, ErrorDetail, FieldViolation

URL = "https://github.com/claudemesh/claudemesh/blob/main/docs/errors/"
"""Where the pages of the codes are."""

DETAILS_KEY = "grpc-status-details-bin"

# The code of a status without details, by its number; `internal_error` for others.
BARE = {
    1: "cancelled",
    3: "invalid_argument",
    4: "deadline_exceeded",
    7: "permission_denied",
    8: "payload_too_large",
    11: "payload_too_large",
    12: "not_served",
    14: "daemon_not_running",
    16: "unauthenticated",
}


class ClaudemeshError(Exception):
    """A failure. Act on its class or its `code`, never on its text."""

    default_code: ClassVar[str] = "unknown"
    default_grpc_code: ClassVar[int] = 2
    default_retryable: ClassVar[bool] = False

    code: str
    """The stable name of what went wrong, such as `unknown_peer`."""
    message: str
    """What happened and what to do next, for people."""
    metadata: dict[str, str]
    """Facts about this failure, by stable name."""
    candidates: list[Candidate]
    """The members that a destination may mean."""
    field_violations: list[FieldViolation]
    """Fields of the request that are wrong."""
    retryable: bool
    """The same request, with the same id, can succeed later."""
    retry_after: float | None
    """Seconds that the daemon asks to wait before a retry."""
    grpc_code: int
    """The number of the gRPC status."""
    client_message_id: str
    """The id of the send that failed; empty for other calls."""

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        metadata: Mapping[str, str] | None = None,
        candidates: Sequence[Candidate] = (),
        field_violations: Sequence[FieldViolation] = (),
        retryable: bool | None = None,
        retry_after: float | None = None,
        grpc_code: int | None = None,
        client_message_id: str = "",
    ) -> None:
        self.code = code or self.default_code
        self.message = message or self.code
        self.metadata = dict(metadata or {})
        self.candidates = list(candidates)
        self.field_violations = list(field_violations)
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.grpc_code = self.default_grpc_code if grpc_code is None else grpc_code
        self.client_message_id = client_message_id or self.metadata.get("client_message_id", "")
        super().__init__(self.message)

    @property
    def url(self) -> str:
        """The page that explains the code."""
        return f"{URL}{self.code}.md"

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by their arguments, which are the message alone.
        return (self.__class__, (self.message,), self.__dict__)


def build(code: str, grpc_code: int, message: str) -> ClaudemeshError:
    """The error of a code, in the class of the code or else of its status."""
    from claudemesh import errors

    kind = errors.CODES.get(code) or errors.STATUSES.get(grpc_code) or ClaudemeshError
    return kind(message, code=code, grpc_code=grpc_code)


def from_detail(detail: ErrorDetail) -> ClaudemeshError:
    """The error of one send of a stream, or of the end of a send."""
    error = build(detail.code, detail.grpc_code or 2, detail.message)
    error.metadata = dict(detail.metadata)
    error.client_message_id = error.metadata.get("client_message_id", "")
    error.retryable = detail.retryable
    error.retry_after = detail.retry_after_ms / 1000 if detail.retry_after_ms else None
    error.candidates = list(detail.candidates)
    error.field_violations = list(detail.field_violations)
    return error


# What grpc.aio says, as INTERNAL, of a stream whose connection broke while it began.
BROKEN_STREAM = "Internal error from Core"


def status_of(error: grpc.RpcError) -> tuple[int, str, bytes | None]:
    """Number, text and packed details of a call's end, in `grpc` and `grpc.aio`."""
    if not isinstance(error, grpc.Call) and not isinstance(error, grpc.aio.AioRpcError):
        return grpc.StatusCode.UNKNOWN.value[0], str(error), None
    packed = None
    trailing: Any = error.trailing_metadata()
    for key, value in trailing or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            packed = value
    if error.details() == BROKEN_STREAM:
        return grpc.StatusCode.UNAVAILABLE.value[0], "the connection broke", packed
    return error.code().value[0], error.details() or "", packed


def from_rpc(error: grpc.RpcError) -> tuple[ClaudemeshError, bool]:
    """The error of a call, and whether it has the details that the daemon gives."""
    number, text, packed = status_of(error)
    try:
        details = list(_details(packed or b""))
    except (ValueError, DecodeError, UnicodeDecodeError):
        details = []
    reason = next((detail[0] for detail in details if isinstance(detail, tuple)), "")
    built = build(reason or BARE.get(number, "internal_error"), number, text)
    for detail in details:
        if isinstance(detail, tuple):
            built.metadata = detail[1]
            built.client_message_id = detail[1].get("client_message_id", "")
        elif isinstance(detail, float):
            built.retry_after = detail
            # The table says it better, where it has the code.
            built.retryable = built.retryable or built.code != built.default_code
        elif isinstance(detail, Candidates):
            built.candidates = list(detail.candidates)
        elif isinstance(detail, list):
            built.field_violations = detail
    return built, bool(reason)


_Detail = tuple[str, dict[str, str]] | float | Candidates | list[FieldViolation]


def _details(packed: bytes) -> Iterator[_Detail]:
    """The details of a `google.rpc.Status`, those that are known here.

    The few fields are read by hand, since a package that defines these messages
    may or may not be part of the application.
    """
    for number, any_message in _fields(packed):
        if number != 3:
            continue
        parts = dict(_fields(_bytes(any_message)))
        kind = _bytes(parts.get(1, b"")).decode().rpartition("/")[2]
        value = _bytes(parts.get(2, b""))
        if kind == "google.rpc.ErrorInfo":
            fields = list(_fields(value))
            reason = next((_bytes(v).decode() for n, v in fields if n == 1), "")
            pairs = [dict(_fields(_bytes(v))) for n, v in fields if n == 3]
            yield reason, {_bytes(p.get(1, b"")).decode(): _bytes(p.get(2, b"")).decode() for p in pairs}
        elif kind == "google.rpc.RetryInfo":
            duration = dict(_fields(_bytes(dict(_fields(value)).get(1, b""))))
            yield float(_int(duration.get(1, 0)) + _int(duration.get(2, 0)) / 1e9)
        elif kind == "google.rpc.BadRequest":
            violations = [dict(_fields(_bytes(v))) for n, v in _fields(value) if n == 1]
            yield [
                FieldViolation(field=_bytes(v.get(1, b"")).decode(), description=_bytes(v.get(2, b"")).decode())
                for v in violations
            ]
        elif kind == Candidates.DESCRIPTOR.full_name:
            yield Candidates.FromString(value)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of the fields of a message in wire format."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        wire = tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, position = _varint(data, position)
        if size is None or position + size > len(data):
            raise ValueError("not a protobuf message")
        yield tag >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("not a protobuf message")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("not a protobuf message")


def _int(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise ValueError("not a protobuf message")
