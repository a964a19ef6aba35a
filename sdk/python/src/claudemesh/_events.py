"""Following events, over restarts of the daemon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from claudemesh._error import ClaudemeshError
from claudemesh._io import HEADERS_TIMEOUT, Closed, Deadline, EventCall, TimeIsUp
from claudemesh._link import Link
from claudemesh._model import Event, event_of, flag, invalid, optional, type_values
from claudemesh._retry import Backoff
from claudemesh.errors import Unauthenticated
from claudemesh.v1.events_pb2 import StreamEventsRequest


class EventFeed:
    """An iteration over events, which resumes after the last one that had an id."""

    def __init__(self, link: Link, after: str, from_start: bool, types: Iterable[str], topic: str, sender: str) -> None:
        link.check()
        self._link = link
        self._position = optional("after", after) or ""
        self._from_start = flag("from_start", from_start)
        if self._position and from_start:
            raise invalid("after", "is given together with from_start")
        self._filter = {
            "types": type_values(types),
            "topic": optional("topic", topic),
            "sender": optional("sender", sender),
        }
        self._call: EventCall | None = None
        self._backoff = Backoff()
        self._fresh_token = False
        self._ended = False

    async def next(self) -> Event | None:
        """The next event; None after the end."""
        self._link.check_process()
        while not self._ended:
            try:
                call = self._call or await self._open()
                raw = await call.read()
                if raw is None:
                    # A daemon that stops says so; an end without a word is a lost connection.
                    self._drop()
                    await self._pause()
                    continue
            except Closed:
                self.close()
                return None
            except TimeIsUp:
                # Headers that do not come tell that the connection is of no use.
                self._drop()
                await self._pause()
            except grpc.RpcError as error:
                if self._ended or self._link.closed:
                    self.close()
                    return None
                await self._recover(self._link.error(error))
            except ClaudemeshError as error:
                await self._recover(error)
            else:
                if raw.event_id:
                    self._position = raw.event_id
                    self._from_start = False
                return event_of(raw)
        return None

    async def _open(self) -> EventCall:
        deadline = Deadline(HEADERS_TIMEOUT)
        await self._link.require("events", deadline)
        self._link.prepare()
        call = self._link.io.events(self._request(), self._link.metadata())
        self._call = call
        try:
            if await call.headers():
                self._link.answered()
                self._backoff = Backoff()
                self._fresh_token = False
        except BaseException:
            self._drop()
            raise
        return call

    async def _recover(self, error: ClaudemeshError) -> None:
        """Waits before the stream is opened anew, or ends it by the error."""
        self._drop()
        if isinstance(error, Unauthenticated) and not self._fresh_token and self._link.renew_token():
            self._fresh_token = True
            return
        try:
            await self._link.pause(error, self._backoff, None)
        except ClaudemeshError:
            self.close()
            if not self._link.closed:
                raise

    async def _pause(self) -> None:
        try:
            await self._link.io.sleep(self._backoff.next())
        except Closed:
            self.close()

    def close(self) -> None:
        self._ended = True
        self._drop()

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None and not self._link.forked():
            call.cancel()

    def _request(self) -> StreamEventsRequest:
        fields: dict[str, Any] = {**self._filter, "after": self._position, "from_start": self._from_start}
        return StreamEventsRequest(**fields)
