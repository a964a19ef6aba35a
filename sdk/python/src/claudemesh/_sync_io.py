"""The blocking connection."""

from __future__ import annotations

import queue
import threading
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
from claudemesh._sends import StreamLost, Unanswered
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

    async def submit(
        self, requests: Sequence[SendStreamRequest], deadline: Deadline, metadata: Callable[[], Metadata]
    ) -> list[Outcome]:
        slots = [_Slot() for _ in requests]
        with self._lock:
            if self._closed.is_set():
                raise Closed
            sends = self._sends
            if sends is None:
                sends = self._sends = _SendCall(self, self._opened(), metadata())
            for request, slot in zip(requests, slots, strict=True):
                sends.unanswered.add(request, slot)
                sends.queue.put(request)
        try:
            return [slot.wait(deadline.remaining()) for slot in slots]
        finally:
            for request in requests:
                sends.unanswered.forget(request.index)

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

    def release(self, sends: _SendCall) -> bool:
        """Gives up a stream of sends that nobody uses; false when somebody does."""
        with self._lock:
            if sends.queue.empty() and not sends.unanswered:
                self._forget(sends)
                return True
            return False

    def ended(self, sends: _SendCall, error: Outcome) -> None:
        """Tells all who wait that the stream is over."""
        with self._lock:
            self._forget(sends)
            sends.unanswered.fail(error)
            sends.queue.put(None)

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            channel = self._channel
        if channel is not None:
            channel.close()

    def _forget(self, sends: _SendCall) -> None:
        if self._sends is sends:
            self._sends = None

    def _opened(self) -> grpc.Channel:
        if self._closed.is_set() or self._channel is None:
            raise Closed
        return self._channel


class _Slot:
    """Where one thread waits for one outcome."""

    __slots__ = ("_outcome", "_waiting")

    def __init__(self) -> None:
        self._outcome: Outcome | None = None
        self._waiting = threading.Lock()
        self._waiting.acquire()

    def done(self) -> bool:
        return self._outcome is not None

    def set_result(self, outcome: Outcome, /) -> None:
        self._outcome = outcome
        self._waiting.release()

    def wait(self, timeout: float) -> Outcome:
        self._waiting.acquire(timeout=timeout)
        return TimeIsUp() if self._outcome is None else self._outcome


class _SendCall:
    """One open stream of sends: grpc's thread takes requests, an own one reads answers."""

    def __init__(self, io: SyncIo, channel: grpc.Channel, metadata: Metadata) -> None:
        self._io = io
        self.unanswered: Unanswered[_Slot] = Unanswered()
        self.queue: queue.SimpleQueue[SendStreamRequest | None] = queue.SimpleQueue()
        call = channel.stream_stream(
            SEND_STREAM.path,
            request_serializer=SendStreamRequest.SerializeToString,
            response_deserializer=SendStreamResponse.FromString,
        )
        try:
            self._answers: Iterator[SendStreamResponse] = call(self._requests(), metadata=metadata)
        except ValueError as error:
            raise Closed from error
        threading.Thread(target=self._read, name="claudemesh-sends", daemon=True).start()

    def _requests(self) -> Iterator[SendStreamRequest]:
        while True:
            try:
                request = self.queue.get(timeout=STREAM_IDLE)
            except queue.Empty:
                if self._io.release(self):
                    return
                continue
            batch, goes_on = self.unanswered.batch(request, self._waiting)
            if batch is not None:
                yield batch
            if not goes_on:
                return

    def _waiting(self) -> SendStreamRequest | None:
        try:
            return self.queue.get_nowait()
        except queue.Empty:
            raise LookupError from None

    def _read(self) -> None:
        error: Outcome = StreamLost()
        try:
            for answer in self._answers:
                self.unanswered.answer(answer)
        except grpc.RpcError as failure:
            error = failure
        finally:
            self._io.ended(self, error)


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
