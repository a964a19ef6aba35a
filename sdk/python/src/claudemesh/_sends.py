"""The sends of a shared stream: what waits to go out, and who waits for an answer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import grpc

from claudemesh._io import Deadline, Outcome, TimeIsUp
from claudemesh.v1.messaging_pb2 import SendStreamRequest, SendStreamResponse

# A message of a stream costs grpc more than a send costs us, so that sends that wait
# together go together. Not as many as the daemon takes: it has one message to work on
# while answers to the other are given out.
MAX_BATCH = 32
# A batch is not made larger than that, in bytes; a send that is goes alone.
LARGE_BATCH = 512 * 1024

LATE = TimeIsUp()


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


class Caller:
    """Who waits for the answers to some sends, and is woken once when all are there."""

    __slots__ = ("deadline", "left", "outcomes", "wake")

    def __init__(self, sends: int, deadline: Deadline, wake: Callable[[], object]) -> None:
        self.outcomes: list[Outcome] = [LATE] * sends
        self.left = sends
        self.deadline = deadline
        self.wake = wake

    def settle(self, place: int, outcome: Outcome) -> None:
        self.outcomes[place] = outcome
        self.left -= 1
        if self.left == 0:
            self.wake()


class Sends:
    """The sends of one stream."""

    def __init__(self) -> None:
        self._unsent: deque[SendStreamRequest] = deque()
        # By index, with the place among those of the caller.
        self._unanswered: dict[int, tuple[Caller, int]] = {}
        self._last = 0

    def __len__(self) -> int:
        """How many are waited for."""
        return len(self._unanswered)

    def unsent(self) -> int:
        """How many of them wait to go out."""
        return len(self._unsent)

    def add(self, requests: Sequence[SendStreamRequest], caller: Caller) -> None:
        """Gives each an index of its own."""
        for place, request in enumerate(requests):
            self._last = (self._last + 1) % 2**32
            request.index = self._last
            self._unanswered[self._last] = (caller, place)
        self._unsent.extend(requests)

    def batch(self) -> SendStreamRequest | None:
        """What goes out next, in one message; None when nothing waits for that."""
        batch: list[SendStreamRequest] = []
        size = 0
        while self._unsent and len(batch) < MAX_BATCH:
            request = self._unsent[0]
            size += request.ByteSize()
            if batch and size > LARGE_BATCH:
                break
            self._unsent.popleft()
            # Left out when its caller has given up.
            if request.index in self._unanswered:
                batch.append(request)
        return SendStreamRequest(batch=batch) if batch else None

    def answer(self, response: SendStreamResponse) -> None:
        for one in response.batch or (response,):
            self._settle(one.index, one)

    def fail(self, error: Outcome) -> None:
        """Ends all that wait."""
        for index in list(self._unanswered):
            self._settle(index, error)

    def expire(self, now: float) -> float:
        """Wakes those whose time is up, and tells the deadline that comes next."""
        following = math.inf
        for caller in {caller for caller, _ in self._unanswered.values()}:
            if caller.deadline.end <= now:
                caller.wake()
            else:
                following = min(following, caller.deadline.end)
        return following

    def forget(self, requests: Sequence[SendStreamRequest]) -> None:
        """Their caller waits no longer."""
        for request in requests:
            self._unanswered.pop(request.index, None)

    def _settle(self, index: int, outcome: Outcome) -> None:
        waiting = self._unanswered.pop(index, None)
        # Nobody waits for a send that timed out or was cancelled.
        if waiting is not None:
            caller, place = waiting
            caller.settle(place, outcome)
