"""The connection of asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

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
from claudemesh.errors import InvalidArgument
from claudemesh.v1.events_pb2 import StreamEventsRequest, StreamEventsResponse
from claudemesh.v1.messaging_pb2 import SendStreamRequest, SendStreamResponse

# Deadlines are looked at no more often than that, in seconds.
TICK = 0.01


class AsyncIo:
    """Belongs to the event loop of its first call; see `claudemesh._io.Io`."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[str, Any] = {}
        self._closed = asyncio.Event()
        self._once = asyncio.Lock()
        self._sends: _SendCall | None = None

    def open(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def connected(self) -> bool:
        return self._channel is not None and self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def unary(
        self, rpc: Rpc[Request, Response], request: Request, timeout: float, metadata: Metadata
    ) -> Response:
        channel = self._opened()
        call = self._calls.get(rpc.path)
        if call is None:
            call = channel.unary_unary(
                rpc.path,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.response.FromString,
            )
            self._calls[rpc.path] = call
        try:
            response: Response = await call(request, timeout=timeout, metadata=metadata)
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            # A channel that is closed cancels its calls as the caller's task would.
            if self._closed.is_set():
                raise Closed from error
            raise
        return response

    def sending(self) -> bool:
        return self._sends is not None

    async def submit(
        self, requests: Sequence[SendStreamRequest], deadline: Deadline, metadata: Callable[[], Metadata]
    ) -> list[Outcome]:
        channel = self._opened()
        call = self._sends
        if call is None:
            call = self._sends = _SendCall(self, channel, metadata())
        done: asyncio.Future[None] = call.loop.create_future()
        caller = Caller(len(requests), deadline, lambda: None if done.done() else done.set_result(None))
        call.add(requests, caller)
        try:
            await done
        finally:
            if caller.left:
                call.sends.forget(requests)
        return caller.outcomes

    def events(self, request: StreamEventsRequest, metadata: Metadata) -> _EventCall:
        return _EventCall(self._opened(), request, metadata)

    async def sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closed.wait(), seconds)
        except asyncio.TimeoutError:
            return
        raise Closed

    async def once(self, work: Callable[[], Awaitable[None]], timeout: float) -> None:
        try:
            await asyncio.wait_for(self._once.acquire(), timeout)
        except asyncio.TimeoutError as error:
            raise TimeIsUp from error
        try:
            await work()
        finally:
            self._once.release()

    def release(self, call: _SendCall) -> None:
        """No more sends for this stream."""
        if self._sends is call:
            self._sends = None

    async def close(self) -> None:
        self._closed.set()
        call, self._sends = self._sends, None
        if call is not None:
            await call.close()
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _opened(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if self._closed.is_set() or self._endpoint is None:
            raise Closed
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise InvalidArgument("this client belongs to another event loop; make one for each")
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._endpoint.target, options=channel_options())
        return self._channel


class _SendCall:
    """One open stream of sends: a task writes requests, another reads answers."""

    def __init__(self, io: AsyncIo, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self._io = io
        self.sends = Sends()
        self._changed = asyncio.Event()
        self._ended = False
        self.loop = asyncio.get_running_loop()
        self._used = time.monotonic()
        # One timer for all that wait, which is cheaper than one for each.
        self._next_check = self._used + STREAM_IDLE
        self._timer = self.loop.call_later(STREAM_IDLE, self._check)
        call = channel.stream_stream(
            SEND_STREAM.path,
            request_serializer=SendStreamRequest.SerializeToString,
            response_deserializer=SendStreamResponse.FromString,
        )
        self._call: Any = call(metadata=metadata)
        self._writer = asyncio.create_task(self._write(), name="claudemesh-sends-write")
        self._reader = asyncio.create_task(self._read(), name="claudemesh-sends-read")

    def add(self, requests: Sequence[SendStreamRequest], caller: Caller) -> None:
        self._used = time.monotonic()
        self.sends.add(requests, caller)
        self._changed.set()
        if caller.deadline.end < self._next_check:
            self._check_at(caller.deadline.end)

    async def close(self) -> None:
        self._writer.cancel()
        self._reader.cancel()
        self._call.cancel()
        await asyncio.gather(self._writer, self._reader, return_exceptions=True)
        # A reader that had not begun did not say it.
        self._end(StreamLost())
        # Their tracebacks lead back here, and the connection would stay open until
        # the garbage collector comes by.
        del self._writer, self._reader

    def _end(self, error: Outcome) -> None:
        self._io.release(self)
        self._timer.cancel()
        self._writer.cancel()
        self.sends.fail(error)

    def _check_at(self, when: float) -> None:
        """Sets the timer."""
        self._timer.cancel()
        now = time.monotonic()
        # Deadlines that are close to each other are met together.
        self._next_check = max(when, now + TICK)
        self._timer = self.loop.call_later(self._next_check - now, self._check)

    def _check(self) -> None:
        """Wakes those whose time is up; ends the stream when nobody used it for a while."""
        now = time.monotonic()
        deadline = self.sends.expire(now)
        if self.sends:
            self._used = now
        if now - self._used < STREAM_IDLE:
            self._check_at(min(deadline, self._used + STREAM_IDLE))
        else:
            self._io.release(self)
            self._ended = True
            self._changed.set()

    async def _write(self) -> None:
        try:
            while not self._ended:
                # All tasks that one answer woke have added theirs when this one goes on.
                await self._changed.wait()
                self._changed.clear()
                while (batch := self.sends.batch()) is not None:
                    await self._call.write(batch)
            await self._call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The reader tells why.
            return

    async def _read(self) -> None:
        error: Outcome = StreamLost()
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                self.sends.answer(answer)
        except grpc.RpcError as failure:
            error = failure
        finally:
            self._end(error)


class _EventCall:
    """One open stream of events."""

    def __init__(self, channel: grpc.aio.Channel, request: StreamEventsRequest, metadata: Metadata) -> None:
        call = channel.unary_stream(
            STREAM_EVENTS.path,
            request_serializer=StreamEventsRequest.SerializeToString,
            response_deserializer=StreamEventsResponse.FromString,
        )
        self._call: Any = call(request, metadata=metadata)
        self._pending: asyncio.Task[Any] | None = None
        self._cancelled = False

    async def headers(self) -> bool:
        try:
            await asyncio.wait_for(self._call.initial_metadata(), HEADERS_TIMEOUT)
        except asyncio.TimeoutError as error:
            raise TimeIsUp from error
        except grpc.RpcError:
            return False
        return not self._call.done()

    async def read(self) -> StreamEventsResponse | None:
        # grpc would end the call with a reader that is cancelled, and an event that
        # it had taken would be lost.
        if self._pending is None:
            self._pending = asyncio.create_task(self._call.read())
        try:
            response = await asyncio.shield(self._pending)
        except asyncio.CancelledError as error:
            if not self._cancelled:
                raise
            raise Closed from error
        except BaseException:
            self._pending = None
            raise
        self._pending = None
        return None if response is grpc.aio.EOF else response

    def cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()
        if self._pending is not None:
            self._pending.cancel()
