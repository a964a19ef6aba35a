"""The unanswered sends of a shared stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import grpc

from claudemesh._io import Outcome
from claudemesh.v1.messaging_pb2 import SendStreamRequest, SendStreamResponse

# A message of a stream costs grpc more than a send costs us, so that sends that wait
# together go together. The daemon takes that many at once.
MAX_BATCH = 32
# What is added to a batch that is as large in bytes begins the next one.
LARGE_BATCH = 512 * 1024


class Slot(Protocol):
    """Where the outcome of a send is put: a future."""

    def done(self) -> bool: ...

    def set_result(self, result: Outcome, /) -> None: ...


S = TypeVar("S", bound=Slot)


class StreamLost(grpc.RpcError):
    """The stream ended without an answer and without an error."""

    def __init__(self) -> None:
        super().__init__("the stream of sends ended")

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "the stream of sends ended before the answer"

    def trailing_metadata(self) -> tuple[()]:
        return ()


class Unanswered(Generic[S]):
    """Which slot waits for the answer with which index."""

    def __init__(self) -> None:
        self._slots: dict[int, S] = {}
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._slots)

    def __contains__(self, index: int) -> bool:
        return index in self._slots

    def add(self, request: SendStreamRequest, slot: S) -> None:
        """Gives the request an index of its own."""
        self._next = (self._next + 1) % 2**32
        request.index = self._next
        self._slots[self._next] = slot

    def batch(
        self, first: SendStreamRequest | None, next_one: Callable[[], SendStreamRequest | None]
    ) -> tuple[SendStreamRequest | None, bool]:
        """One message of what waits, and whether more may come after it.

        `next_one` raises `LookupError` when nothing waits; None is the end of all.
        """
        batch: list[SendStreamRequest] = []
        request, size = first, 0
        while request is not None:
            # Left out when its caller has given up.
            if request.index in self._slots:
                batch.append(request)
                size += request.ByteSize()
            if len(batch) == MAX_BATCH or size >= LARGE_BATCH:
                break
            try:
                request = next_one()
            except LookupError:
                break
        return (SendStreamRequest(batch=batch) if batch else None), request is not None

    def forget(self, index: int) -> None:
        self._slots.pop(index, None)

    def answer(self, response: SendStreamResponse) -> None:
        for one in response.batch or (response,):
            _settle(self._slots.pop(one.index, None), one)

    def fail(self, error: Outcome) -> None:
        """Ends all that wait."""
        slots, self._slots = self._slots, {}
        for slot in slots.values():
            _settle(slot, error)


def _settle(slot: Slot | None, outcome: Outcome) -> None:
    # Nobody waits for a slot that timed out or was cancelled.
    if slot is not None and not slot.done():
        slot.set_result(outcome)
