"""The generated client, over a channel of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from claudemesh._discovery import Endpoint, Tcp
from claudemesh._io import Metadata, channel_options
from claudemesh.v1 import (
    control_pb2_grpc,
    events_pb2_grpc,
    files_pb2_grpc,
    inbox_pb2_grpc,
    messaging_pb2_grpc,
    peers_pb2_grpc,
    topics_pb2_grpc,
)

if TYPE_CHECKING:
    from claudemesh.v1.control_pb2_grpc import ControlServiceAsyncStub
    from claudemesh.v1.events_pb2_grpc import EventServiceAsyncStub
    from claudemesh.v1.files_pb2_grpc import FileServiceAsyncStub
    from claudemesh.v1.inbox_pb2_grpc import InboxServiceAsyncStub
    from claudemesh.v1.messaging_pb2_grpc import MessagingServiceAsyncStub
    from claudemesh.v1.peers_pb2_grpc import PeerServiceAsyncStub
    from claudemesh.v1.topics_pb2_grpc import TopicServiceAsyncStub


class Raw:
    """The services as `grpc` calls them, without retries, ids and deadlines of this library."""

    def __init__(self, endpoint: Endpoint, metadata: Callable[[], Metadata]) -> None:
        channel = grpc.insecure_channel(endpoint.target, options=channel_options())
        self._channel = channel
        if isinstance(endpoint, Tcp):
            channel = grpc.intercept_channel(channel, *_interceptors(metadata))
        self.control = control_pb2_grpc.ControlServiceStub(channel)
        self.events = events_pb2_grpc.EventServiceStub(channel)
        self.files = files_pb2_grpc.FileServiceStub(channel)
        self.inbox = inbox_pb2_grpc.InboxServiceStub(channel)
        self.messaging = messaging_pb2_grpc.MessagingServiceStub(channel)
        self.peers = peers_pb2_grpc.PeerServiceStub(channel)
        self.topics = topics_pb2_grpc.TopicServiceStub(channel)

    def close(self) -> None:
        self._channel.close()


class AsyncRaw:
    """The services as `grpc.aio` calls them, without retries, ids and deadlines of this library."""

    control: ControlServiceAsyncStub
    events: EventServiceAsyncStub
    files: FileServiceAsyncStub
    inbox: InboxServiceAsyncStub
    messaging: MessagingServiceAsyncStub
    peers: PeerServiceAsyncStub
    topics: TopicServiceAsyncStub

    def __init__(self, endpoint: Endpoint, metadata: Callable[[], Metadata]) -> None:
        interceptors: list[Any] = _async_interceptors(metadata) if isinstance(endpoint, Tcp) else []
        channel = grpc.aio.insecure_channel(endpoint.target, options=channel_options(), interceptors=interceptors)
        self._channel = channel
        self.control = control_pb2_grpc.ControlServiceStub(channel)
        self.events = events_pb2_grpc.EventServiceStub(channel)
        self.files = files_pb2_grpc.FileServiceStub(channel)
        self.inbox = inbox_pb2_grpc.InboxServiceStub(channel)
        self.messaging = messaging_pb2_grpc.MessagingServiceStub(channel)
        self.peers = peers_pb2_grpc.PeerServiceStub(channel)
        self.topics = topics_pb2_grpc.TopicServiceStub(channel)

    async def close(self) -> None:
        await self._channel.close()


class _Details:
    """The details of a call with more metadata."""

    def __init__(self, details: Any, metadata: Metadata) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = [*(details.metadata or ()), *metadata]
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = getattr(details, "compression", None)


def _interceptors(metadata: Callable[[], Metadata]) -> list[Any]:
    def add(_self: Any, proceed: Any, details: Any, request: Any) -> Any:
        return proceed(_Details(details, metadata()), request)

    return _with_method(grpc, add)


def _async_interceptors(metadata: Callable[[], Metadata]) -> list[Any]:
    async def add(_self: Any, proceed: Any, details: Any, request: Any) -> Any:
        more = grpc.aio.Metadata(*(details.metadata or ()), *metadata())
        return await proceed(details._replace(metadata=more), request)

    return _with_method(grpc.aio, add)


def _with_method(module: Any, method: Callable[..., Any]) -> list[Any]:
    """One interceptor for each kind of call, since grpc.aio takes one of several kinds only as the first."""
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    return [
        type(
            "_Add",
            (getattr(module, f"{kind.title().replace('_', '')}ClientInterceptor"),),
            {f"intercept_{kind}": method},
        )()
        for kind in kinds
    ]
