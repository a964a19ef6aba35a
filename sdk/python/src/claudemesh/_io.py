"""What the calls need from a connection, be it blocking or of asyncio.

The calls are written once, as coroutines over this interface. The blocking
implementation does its work before it returns and never suspends, so that
`run` can drive such a coroutine to its end without an event loop.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from claudemesh._discovery import Endpoint
from claudemesh.v1.control_pb2 import (
    GetHealthRequest,
    GetHealthResponse,
    GetVersionRequest,
    GetVersionResponse,
)
from claudemesh.v1.events_pb2 import StreamEventsRequest, StreamEventsResponse
from claudemesh.v1.inbox_pb2 import ListMessagesRequest, ListMessagesResponse
from claudemesh.v1.messaging_pb2 import (
    GetSendRequest,
    GetSendResponse,
    PostTopicRequest,
    PostTopicResponse,
    SendStreamRequest,
    SendStreamResponse,
)
from claudemesh.v1.peers_pb2 import ListPeersRequest, ListPeersResponse, SetProfileRequest, SetProfileResponse
from claudemesh.v1.topics_pb2 import (
    CreateTopicRequest,
    CreateTopicResponse,
    ListTopicsRequest,
    ListTopicsResponse,
    SubscribeTopicRequest,
    SubscribeTopicResponse,
    UnsubscribeTopicRequest,
    UnsubscribeTopicResponse,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
T = TypeVar("T")

Metadata = tuple[tuple[str, str], ...]

# The limit of the daemon in each direction.
MAX_MESSAGE = 8 << 20

# How long the shared stream of sends stays open without use, in seconds.
STREAM_IDLE = 5.0

# How long the response headers of a stream may take, in seconds.
HEADERS_TIMEOUT = 10.0


def channel_options() -> list[tuple[str, Any]]:
    """The settings of every channel."""
    return [
        # The default authority of a Unix socket is its path, which no server takes.
        ("grpc.default_authority", "localhost"),
        ("grpc.enable_http_proxy", 0),
        # A daemon that restarts is found again soon.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Despite its name, how long one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", 10_000),
        # Retries are decided in one place, not here.
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_send_message_length", MAX_MESSAGE),
        # A daemon that went silent is noticed within 20 s.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # A probe of the bandwidth that stays unanswered would hold the pings up.
        ("grpc.http2.bdp_probe", 0),
        # A client that is made anew gets a connection of its own.
        ("grpc.use_local_subchannel_pool", 1),
    ]


@dataclass(frozen=True)
class Rpc(Generic[Request, Response]):
    """A call of the API."""

    path: str
    request: type[Request]
    response: type[Response]


GET_HEALTH = Rpc("/claudemesh.v1.ControlService/GetHealth", GetHealthRequest, GetHealthResponse)
GET_VERSION = Rpc("/claudemesh.v1.ControlService/GetVersion", GetVersionRequest, GetVersionResponse)
GET_SEND = Rpc("/claudemesh.v1.MessagingService/GetSend", GetSendRequest, GetSendResponse)
POST_TOPIC = Rpc("/claudemesh.v1.MessagingService/PostTopic", PostTopicRequest, PostTopicResponse)
SEND_STREAM = Rpc("/claudemesh.v1.MessagingService/SendStream", SendStreamRequest, SendStreamResponse)
LIST_MESSAGES = Rpc("/claudemesh.v1.InboxService/ListMessages", ListMessagesRequest, ListMessagesResponse)
STREAM_EVENTS = Rpc("/claudemesh.v1.EventService/StreamEvents", StreamEventsRequest, StreamEventsResponse)
LIST_PEERS = Rpc("/claudemesh.v1.PeerService/ListPeers", ListPeersRequest, ListPeersResponse)
SET_PROFILE = Rpc("/claudemesh.v1.PeerService/SetProfile", SetProfileRequest, SetProfileResponse)
CREATE_TOPIC = Rpc("/claudemesh.v1.TopicService/CreateTopic", CreateTopicRequest, CreateTopicResponse)
SUBSCRIBE_TOPIC = Rpc("/claudemesh.v1.TopicService/SubscribeTopic", SubscribeTopicRequest, SubscribeTopicResponse)
UNSUBSCRIBE_TOPIC = Rpc(
    "/claudemesh.v1.TopicService/UnsubscribeTopic", UnsubscribeTopicRequest, UnsubscribeTopicResponse
)
LIST_TOPICS = Rpc("/claudemesh.v1.TopicService/ListTopics", ListTopicsRequest, ListTopicsResponse)


class TimeIsUp(Exception):
    """The deadline passed while the answer of a shared stream was awaited."""


class Closed(Exception):
    """The client or the iterator was closed."""


class Deadline:
    """A point in time by which a call is to end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def remaining(self) -> float:
        return max(0.0, self.end - time.monotonic())


Outcome = SendStreamResponse | grpc.RpcError | TimeIsUp
"""How one send of the shared stream ended."""


class EventCall(Protocol):
    """One open call of StreamEvents."""

    async def headers(self) -> bool:
        """Waits for the response headers; `TimeIsUp` when they take too long.

        False when the call ended before them; `read` says why.
        """
        ...

    async def read(self) -> StreamEventsResponse | None:
        """The next message; None at the end of the stream."""
        ...

    def cancel(self) -> None:
        """Ends the call; a waiting `read` raises."""
        ...


class Io(Protocol):
    """A connection to one daemon."""

    def open(self, endpoint: Endpoint) -> None:
        """Says where the daemon is. Does not connect; may be called again with the same."""
        ...

    def connected(self) -> bool:
        """There is a connection now."""
        ...

    async def unary(
        self, rpc: Rpc[Request, Response], request: Request, timeout: float, metadata: Metadata
    ) -> Response:
        """One call; raises `grpc.RpcError` or `Closed`."""
        ...

    def sending(self) -> bool:
        """The shared stream of sends is open."""
        ...

    async def submit(
        self, requests: Sequence[SendStreamRequest], deadline: Deadline, metadata: Callable[[], Metadata]
    ) -> list[Outcome]:
        """Sends over the shared stream, which is opened with the metadata when it is not there."""
        ...

    def events(self, request: StreamEventsRequest, metadata: Metadata) -> EventCall:
        """Begins a call of StreamEvents."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits; `Closed` as soon as the client is closed."""
        ...

    async def once(self, work: Callable[[], Awaitable[None]], timeout: float) -> None:
        """Does the work when nobody else is doing such work at this time, else after that."""
        ...


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drives a coroutine over the blocking connection to its end."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a coroutine over a blocking connection has suspended")
