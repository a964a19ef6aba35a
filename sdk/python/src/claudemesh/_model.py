"""What calls take and give besides the messages of the API, and how values become fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from claudemesh._error import ClaudemeshError
from claudemesh._ulid import ulid
from claudemesh.errors import InvalidArgument
from claudemesh.v1.common_pb2 import FieldViolation, Priority
from claudemesh.v1.events_pb2 import EventType, StreamEventsResponse
from claudemesh.v1.messaging_pb2 import SendRequest, SendResponse
from claudemesh.v1.peers_pb2 import PeerRole, PeerStatus

PriorityName = Literal["now", "next", "low"]
StatusName = Literal["idle", "working", "dnd"]
RoleName = Literal["control_plane", "session", "service"]
WaitFor = Literal["accepted", "delivered"]


@dataclass(frozen=True)
class Message:
    """One message of `send_many`; the fields mean what they mean in `send`."""

    to: str
    text: str
    id: str = ""
    priority: PriorityName | None = None
    meta: Mapping[str, Any] | None = None
    reply_to: str = ""
    mentions: Sequence[str] = ()
    allow_unencrypted: bool = False


@dataclass(frozen=True)
class SendResult:
    """What came of one message of `send_many`: a response or an error."""

    id: str
    """The id to retry and to follow the message with."""
    response: SendResponse | None = None
    error: ClaudemeshError | None = None


@dataclass(frozen=True)
class Event:
    """One event."""

    kind: str
    """What happened, such as `message`; `unknown` for a kind that this version does not know."""
    event_id: str
    """The place in the inbox to resume after; empty for live-only events."""
    time: datetime | None
    """When it happened, in UTC."""
    value: Any
    """The message of this kind, such as `InboxMessage`; None when the kind is unknown."""
    raw: StreamEventsResponse
    """The event as it came."""


def event_of(raw: StreamEventsResponse) -> Event:
    kind = raw.WhichOneof("event")
    time = raw.time.ToDatetime(timezone.utc) if raw.HasField("time") else None
    return Event(kind or "unknown", raw.event_id, time, getattr(raw, kind) if kind else None, raw)


def invalid(field: str, description: str) -> InvalidArgument:
    """The error of one argument."""
    violation = FieldViolation(field=field, description=description)
    return InvalidArgument(f"`{field}`: {description}", field_violations=[violation])


def _prefix(enum: EnumDescriptor) -> str:
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def enum_value(enum: EnumDescriptor, field: str, name: str) -> int:
    """The number of an enum value by the last part of its name, in lower case."""
    prefix = _prefix(enum)
    names = {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}
    if not isinstance(name, str) or name not in names:
        raise invalid(field, f"{name!r:.80} is none of {', '.join(names)}")
    return names[name]


def enum_name(enum: EnumDescriptor, number: int) -> str:
    """The last part of a value's name in lower case, or the number of one that is not known."""
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_prefix(enum)).lower()


def priority_value(name: PriorityName) -> Priority.ValueType:
    return Priority.ValueType(enum_value(Priority.DESCRIPTOR, "priority", name))


def status_value(name: StatusName) -> PeerStatus.ValueType:
    return PeerStatus.ValueType(enum_value(PeerStatus.DESCRIPTOR, "status", name))


def role_values(names: Iterable[RoleName]) -> list[PeerRole.ValueType]:
    return [PeerRole.ValueType(enum_value(PeerRole.DESCRIPTOR, "roles", name)) for name in several("roles", names)]


def type_values(names: Iterable[str]) -> list[EventType.ValueType]:
    return [EventType.ValueType(enum_value(EventType.DESCRIPTOR, "types", name)) for name in several("types", names)]


def meta_value(meta: Mapping[str, Any]) -> Struct | None:
    if not isinstance(meta, Mapping):
        raise invalid("meta", f"must be a mapping with JSON values, not {_kind(meta)}")
    struct = Struct()
    try:
        struct.update(_plain(meta))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise invalid("meta", f"holds something else than JSON values: {error}") from error
    return struct if meta else None


def _plain(value: Any) -> Any:
    """A value with the containers that `Struct` takes."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a name is not a text")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def time_value(field: str, time: datetime | None) -> Timestamp | None:
    """A time without a zone is of this host's, as everywhere in Python."""
    if time is None:
        return None
    if not isinstance(time, datetime):
        raise invalid(field, f"must be a datetime, not {_kind(time)}")
    stamp = Timestamp()
    try:
        stamp.FromDatetime(time.astimezone(timezone.utc))
    except (ValueError, OverflowError, OSError) as error:
        raise invalid(field, str(error)) from error
    return stamp


def text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(field, f"must be a str, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid(field, "holds half of a surrogate pair, which UTF-8 cannot carry") from error
    return value


def optional(field: str, value: Any) -> str | None:
    """A text, or None where it is not given."""
    return None if value is None else text(field, value)


def flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(field, f"must be True or False, not {_kind(value)}")
    return value


def texts(field: str, values: Any) -> list[str]:
    return [text(field, value) for value in several(field, values)]


def several(field: str, values: Any) -> list[Any]:
    # A text is a list of texts too, and never what was meant.
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise invalid(field, f"must be a list, not {_kind(values)}")
    return list(values)


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def send_id(message: Message) -> str:
    """The id of a send, made where none is given. A wrong one is refused with the rest of the message."""
    return message.id if isinstance(message.id, str) and message.id else ulid()


def message_fields(message: Message, message_id: str) -> dict[str, Any]:
    """What a send and a post have in common, checked. Most messages have only a text."""
    fields: dict[str, Any] = {"client_message_id": message_id, "message": text("text", message.text)}
    if message.id != "":
        optional("id", message.id)
    if message.priority is not None:
        fields["priority"] = priority_value(message.priority)
    if message.meta is not None:
        fields["meta"] = meta_value(message.meta)
    if message.reply_to != "":
        fields["reply_to_id"] = optional("reply_to", message.reply_to)
    if message.mentions != ():
        fields["mentions"] = texts("mentions", message.mentions)
    if message.allow_unencrypted is not False:
        fields["allow_unencrypted"] = flag("allow_unencrypted", message.allow_unencrypted)
    return fields


def send_request(message: Message, message_id: str) -> SendRequest:
    return SendRequest(to=text("to", message.to), **message_fields(message, message_id))
