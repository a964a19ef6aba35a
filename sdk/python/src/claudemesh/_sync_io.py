"""The blocking connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc

from claudemesh._discovery import Endpoint
from claudemesh._io import (
    HEADERS_TIMEOUT,
    SEND_STREAM,
    STREAM_EVENTS,
    STREAM_IDLE,
    Closed,
    Deadline,
    Metadata,
    Outcome,
    Request,
    Response,
    Rpc,
    TimeIsUp,
    channel_options,
)
from claudemesh._sends import Caller, Sends, StreamLost
from claudemesh.v1.events_pb2 import StreamEventsRequest, StreamEventsResponse
from claudemesh.v1.messaging_pb2 import SendStreamRequest, SendStreamResponse

READY: int = grpc.ChannelConnectivity.READY.value[0]


class SyncIo:
    """Does each piece of work before it returns; see `claudemesh._io.Io`."""

    def __init__(self) -> None:
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._closed = threading.Event()
        self._once = threading.Lock()
        self._lock = threading.Lock()
        self._sends: _SendCall | None = None

    def open(self, endpoint: Endpoint) -> None:
        with self._lock:
            if self._channel is None:
                self._channel = grpc.insecure_channel(endpoint.target, options=channel_options())

    def connected(self) -> bool:
        # grpc tells the state in public only through a thread that asks for it five
        # times a second. Without this method of its channel nothing is known, which
        # counts as connected.
        inner = getattr(self._channel, "_channel", None)
        try:
            return bool(getattr(inner, "check_connectivity_state", lambda _: READY)(False) == READY)
        except ValueError:
            # The channel is closed.
            return False

    async def unary(
        self, rpc: Rpc[Request, Response], request: Request, timeout: float, metadata: Metadata
    ) -> Response:
        call = self._calls.get(rpc.path)
        if call is None:
            call = self._opened().unary_unary(
                rpc.path,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.response.FromString,
            )
            self._calls[rpc.path] = call
        try:
            response: Response = call(request, timeout=timeout, metadata=metadata)
        except ValueError as error:
            # What grpc says about a closed channel.
            raise Closed from error
        return response

    def sending(self) -> bool:
        return self._sends is not None

    async def submit(
        self, requests: Sequence[SendStreamRequest], deadline: Deadline, metadata: Callable[[], Metadata]
    ) -> list[Outcome]:
        done = threading.Lock()
        done.acquire()
        caller = Caller(len(requests), deadline, done.release)
        with self._lock:
            call = self._sends
            if call is None:
                call = self._sends = _SendCall(self, self._lock, self._opened(), metadata())
            call.add(requests, caller)
        try:
            done.acquire(timeout=deadline.remaining())
        finally:
            if caller.left:
                call.sends.forget(requests)
        return caller.outcomes

    def events(self, request: StreamEventsRequest, metadata: Metadata) -> _EventCall:
        try:
            return _EventCall(self._opened(), request, metadata)
        except ValueError as error:
            raise Closed from error

    async def sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise Closed

    async def once(self, work: Callable[[], Awaitable[None]], timeout: float) -> None:
        if not self._once.acquire(timeout=timeout):
            raise TimeIsUp
        try:
            await work()
        finally:
            self._once.release()

    def release(self, call: _SendCall) -> None:
        """No more sends for this stream; with the lock held."""
        if self._sends is call:
            self._sends = None

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            channel = self._channel
        if channel is not None:
            channel.close()

    def _opened(self) -> grpc.Channel:
        if self._closed.is_set() or self._channel is None:
            raise Closed
        return self._channel


class _SendCall:
    """One open stream of sends: grpc's thread takes requests, an own one reads answers."""

    def __init__(self, io: SyncIo, lock: threading.Lock, channel: grpc.Channel, metadata: Metadata) -> None:
        self._io = io
        self.sends = Sends()
        # The lock of the connection, which is held while sends are added and taken.
        self._changed = threading.Condition(lock)
        self._ended = False
        call = channel.stream_stream(
            SEND_STREAM.path,
            request_serializer=SendStreamRequest.SerializeToString,
            response_deserializer=SendStreamResponse.FromString,
        )
        try:
            self._answers: Iterator[SendStreamResponse] = call(iter(self._next, None), metadata=metadata)
        except ValueError as error:
            raise Closed from error
        threading.Thread(target=self._read, name="claudemesh-sends", daemon=True).start()

    def add(self, requests: Sequence[SendStreamRequest], caller: Caller) -> None:
        """With the lock held."""
        self.sends.add(requests, caller)
        self._changed.notify()

    def _next(self) -> SendStreamRequest | None:
        """Waits for the next message; None when the stream is to end."""
        with self._changed:
            while not self._ended:
                self._gather()
                batch = self.sends.batch()
                if batch is not None:
                    return batch
                if not self._changed.wait(STREAM_IDLE) and not self.sends:
                    self._io.release(self)
                    break
        return None

    def _gather(self) -> None:
        """While others are under way: callers that one answer woke come back one after the other."""
        seen = 0
        while seen < self.sends.unsent() < len(self.sends):
            seen = self.sends.unsent()
            self._changed.release()
            time.sleep(0)
            self._changed.acquire()

    def _read(self) -> None:
        error: Outcome = StreamLost()
        try:
            for answer in self._answers:
                self.sends.answer(answer)
        except grpc.RpcError as failure:
            error = failure
        finally:
            with self._changed:
                self._io.release(self)
                self._ended = True
                self._changed.notify()
            self.sends.fail(error)


class _EventCall:
    """One open stream of events."""

    def __init__(self, channel: grpc.Channel, request: StreamEventsRequest, metadata: Metadata) -> None:
        call = channel.unary_stream(
            STREAM_EVENTS.path,
            request_serializer=StreamEventsRequest.SerializeToString,
            response_deserializer=StreamEventsResponse.FromString,
        )
        self._call: Any = call(request, metadata=metadata)
        self._late = False

    async def headers(self) -> bool:
        timer = threading.Timer(HEADERS_TIMEOUT, self._expire)
        timer.daemon = True
        timer.start()
        try:
            self._call.initial_metadata()
        finally:
            timer.cancel()
        if self._late:
            raise TimeIsUp
        return bool(self._call.is_active())

    async def read(self) -> StreamEventsResponse | None:
        response: StreamEventsResponse | None = next(self._call, None)
        return response

    def cancel(self) -> None:
        self._call.cancel()

    def _expire(self) -> None:
        self._late = True
        self._call.cancel()
