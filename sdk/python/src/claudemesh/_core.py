"""The calls, written once for the blocking and the asyncio client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from claudemesh._error import ClaudemeshError, from_detail
from claudemesh._io import (
    CREATE_TOPIC,
    GET_HEALTH,
    GET_SEND,
    GET_VERSION,
    LIST_MESSAGES,
    LIST_PEERS,
    LIST_TOPICS,
    POST_TOPIC,
    SET_PROFILE,
    SUBSCRIBE_TOPIC,
    UNSUBSCRIBE_TOPIC,
    Closed,
    Deadline,
    Outcome,
)
from claudemesh._link import UNAVAILABLE, Link
from claudemesh._model import (
    Message,
    RoleName,
    SendResult,
    StatusName,
    WaitFor,
    enum_name,
    flag,
    invalid,
    message_fields,
    optional,
    role_values,
    send_id,
    send_request,
    several,
    status_value,
    text,
    time_value,
)
from claudemesh._retry import Backoff
from claudemesh._trace import trace_context
from claudemesh.errors import (
    DaemonNotRunning,
    DeadlineExceeded,
    DeliveryExpired,
    FailedPrecondition,
    MessageRejected,
    Unauthenticated,
    WaitTimeout,
)
from claudemesh.v1.common_pb2 import SendStatus
from claudemesh.v1.control_pb2 import GetHealthResponse, GetVersionResponse, HealthState
from claudemesh.v1.inbox_pb2 import InboxMessage, MessageOrder
from claudemesh.v1.messaging_pb2 import (
    GetSendResponse,
    PostTopicResponse,
    SendResponse,
    SendStreamRequest,
    SendStreamResponse,
)
from claudemesh.v1.peers_pb2 import Peer, SetProfileResponse
from claudemesh.v1.topics_pb2 import Topic

# Greatest number of entries that a list gives in one answer.
PAGE = 1000
INBOX_PAGE = 100

# So many messages of `send_many` are on their way at once: the daemon reads on
# while at most 256 are unanswered, and others use the stream too.
SLICE = 128

FIRST_POLL = 0.05
GREATEST_POLL = 0.5

# Why a send to a topic cannot be waited for any further.
MANY_RECEIVERS = "a post has many receivers and can be waited for until it is accepted"

# What each kind of waiting is content with.
REACHED: dict[str, frozenset[SendStatus.ValueType]] = {
    "accepted": frozenset({SendStatus.SEND_STATUS_ACCEPTED, SendStatus.SEND_STATUS_DELIVERED}),
    "delivered": frozenset({SendStatus.SEND_STATUS_DELIVERED}),
}
# How a send ends without having come as far as was waited for. A status that
# this version does not know is no end.
ENDS = frozenset(
    {
        SendStatus.SEND_STATUS_REJECTED,
        SendStatus.SEND_STATUS_EXPIRED,
        SendStatus.SEND_STATUS_DEAD,
        SendStatus.SEND_STATUS_ABORTED,
    }
)


class Core:
    """The calls over a link."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def send(self, message: Message, wait: WaitFor | None, timeout: float | None) -> SendResponse:
        self.link.check()
        message_id = send_id(message)
        with _OfSend(message_id):
            deadline = self.link.deadline(timeout)
            if wait is not None:
                _check_wait(wait, to_topic=text("to", message.to).startswith("#"))
            request = self._request(message_id, message, trace_context())
            (outcome,) = await self._submit([request], deadline)
            if isinstance(outcome, ClaudemeshError):
                raise outcome
            if wait is not None and not _has_reached(outcome, wait):
                _take_over(outcome, await self._wait(outcome, wait, deadline))
            return outcome

    async def send_many(self, messages: Iterable[Message], timeout: float | None) -> list[SendResult]:
        self.link.check()
        deadline = self.link.deadline(timeout)
        context = trace_context()
        named = [(send_id(message), message) for message in _messages(messages)]
        results: list[SendResult] = []
        for start in range(0, len(named), SLICE):
            part = named[start : start + SLICE]
            # What makes no request fails by itself.
            made: list[SendStreamRequest | ClaudemeshError] = []
            for message_id, message in part:
                try:
                    made.append(self._request(message_id, message, context))
                except ClaudemeshError as error:
                    error.client_message_id = message_id
                    made.append(error)
            requests = [one for one in made if isinstance(one, SendStreamRequest)]
            outcomes = iter(await self._submit(requests, deadline) if requests else ())
            for (message_id, _), one in zip(part, made, strict=True):
                outcome = one if isinstance(one, ClaudemeshError) else next(outcomes)
                if isinstance(outcome, ClaudemeshError):
                    results.append(SendResult(message_id, error=outcome))
                else:
                    results.append(SendResult(message_id, response=outcome))
        return results

    def _request(self, message_id: str, message: Message, context: Mapping[str, str]) -> SendStreamRequest:
        request = SendStreamRequest(send=send_request(message, message_id), trace_context=context or None)
        self.link.check_size(request)
        return request

    async def _submit(
        self, requests: Sequence[SendStreamRequest], deadline: Deadline
    ) -> list[SendResponse | ClaudemeshError]:
        """Sends over the shared stream. What ends with UNAVAILABLE goes out again under its id."""
        results = await self._submit_once(requests, deadline)
        backoff = Backoff()
        fresh_token = False
        while again := [place for place, result in enumerate(results) if _may_repeat(result)]:
            failure = results[again[-1]]
            if isinstance(failure, Unauthenticated):
                if fresh_token or not self.link.renew_token():
                    break
                fresh_token = True
            elif isinstance(failure, ClaudemeshError):
                try:
                    await self.link.pause(failure, backoff, deadline)
                except ClaudemeshError as ended:
                    if ended is not failure:
                        for place in again:
                            results[place] = _for_send(ended, requests[place])
                    break
            repeated = await self._submit_once([requests[place] for place in again], deadline)
            for place, result in zip(again, repeated, strict=True):
                results[place] = result
        return results

    async def _submit_once(
        self, requests: Sequence[SendStreamRequest], deadline: Deadline
    ) -> list[SendResponse | ClaudemeshError]:
        try:
            # The daemon of an open stream was asked before.
            if not self.link.io.sending():
                await self.link.require("send", deadline)
                self.link.prepare()
            outcomes = await self.link.io.submit(requests, deadline, self.link.metadata)
        except (Closed, ClaudemeshError) as ended:
            error = self.link.error(ended) if isinstance(ended, Closed) else ended
            return [_for_send(error, request) for request in requests]
        return [self._judge(request, outcome) for request, outcome in zip(requests, outcomes, strict=True)]

    def _judge(self, request: SendStreamRequest, outcome: Outcome) -> SendResponse | ClaudemeshError:
        if isinstance(outcome, SendStreamResponse):
            self.link.answered()
            if not outcome.HasField("error"):
                return outcome.response
            error = from_detail(outcome.error)
        else:
            error = self.link.error(outcome)
        error.client_message_id = request.send.client_message_id
        return error

    async def post(self, message: Message, wait: WaitFor | None, timeout: float | None) -> PostTopicResponse:
        """Posts a message whose destination is a topic."""
        self.link.check()
        message_id = send_id(message)
        with _OfSend(message_id):
            deadline = self.link.deadline(timeout)
            _check_wait(wait, to_topic=True)
            fields = {"topic": text("topic", message.to), **message_fields(message, message_id)}
            response = await self.link.call(POST_TOPIC, fields, deadline, feature="topic")
            if wait is not None and not _has_reached(response, wait):
                _take_over(response, await self._wait(response, wait, deadline))
            return response

    async def _wait(
        self, response: SendResponse | PostTopicResponse, wait: WaitFor, deadline: Deadline
    ) -> GetSendResponse:
        """Asks how far the send is until it is far enough, or ended otherwise."""
        message_id = response.client_message_id
        delay = FIRST_POLL
        status = response.status
        while True:
            try:
                send = await self.link.call(GET_SEND, {"client_message_id": message_id}, deadline, feature="send")
            except ClaudemeshError as error:
                # UNAVAILABLE is tried again until the time is up.
                if error.grpc_code not in (UNAVAILABLE, DeadlineExceeded.default_grpc_code):
                    raise
                raise _late(message_id, status) from error
            if send.status in REACHED[wait]:
                return send
            if send.status in ENDS:
                raise _ended(send)
            status = send.status
            if delay >= deadline.remaining():
                raise _late(message_id, status)
            try:
                await self.link.io.sleep(delay)
            except Closed as closed:
                raise self.link.error(closed) from closed
            delay = min(GREATEST_POLL, delay * 2)

    async def get_send(self, id: str, timeout: float | None) -> GetSendResponse:
        with _OfSend(text("id", id)):
            fields = {"client_message_id": id}
            return await self.link.call(GET_SEND, fields, self.link.deadline(timeout), feature="send")

    async def peers(self, include_offline: bool, roles: Iterable[RoleName], timeout: float | None) -> list[Peer]:
        deadline = self.link.deadline(timeout)
        fields = {
            "include_offline": flag("include_offline", include_offline),
            "roles": role_values(roles),
            "limit": PAGE,
        }
        peers: list[Peer] = []
        token = ""
        while True:
            page = await self.link.call(LIST_PEERS, {**fields, "page_token": token}, deadline, feature="peers")
            peers.extend(page.peers)
            token = page.next_page_token
            if not token:
                return peers

    async def profile(
        self, summary: str | None, status: StatusName | None, visible: bool | None, timeout: float | None
    ) -> SetProfileResponse:
        fields = {
            "summary": optional("summary", summary),
            "status": None if status is None else status_value(status),
            "visible": None if visible is None else flag("visible", visible),
        }
        return await self.link.call(SET_PROFILE, fields, self.link.deadline(timeout), feature="profile")

    async def list_topics(self, subscribed_only: bool, timeout: float | None) -> list[Topic]:
        deadline = self.link.deadline(timeout)
        flag("subscribed_only", subscribed_only)
        topics: list[Topic] = []
        token = ""
        while True:
            fields = {"subscribed_only": subscribed_only, "limit": PAGE, "page_token": token}
            page = await self.link.call(LIST_TOPICS, fields, deadline, feature="topic")
            topics.extend(page.topics)
            token = page.next_page_token
            if not token:
                return topics

    async def create_topic(self, name: str, description: str, timeout: float | None) -> Topic:
        fields = {"topic": text("name", name), "description": optional("description", description)}
        deadline = self.link.deadline(timeout)
        # A repeat could not tell its own topic from somebody else's.
        return (await self.link.call(CREATE_TOPIC, fields, deadline, feature="topic", repeat=False)).topic

    async def subscribe(self, name: str, timeout: float | None) -> Topic:
        deadline = self.link.deadline(timeout)
        return (await self.link.call(SUBSCRIBE_TOPIC, {"topic": text("name", name)}, deadline, feature="topic")).topic

    async def unsubscribe(self, name: str, timeout: float | None) -> bool:
        deadline = self.link.deadline(timeout)
        fields = {"topic": text("name", name)}
        return (await self.link.call(UNSUBSCRIBE_TOPIC, fields, deadline, feature="topic")).was_subscribed

    async def health(self, timeout: float | None) -> GetHealthResponse:
        return await self.link.call(GET_HEALTH, {}, self.link.deadline(timeout))

    async def version(self, timeout: float | None) -> GetVersionResponse:
        return await self.link.call(GET_VERSION, {}, self.link.deadline(timeout))

    async def wait_ready(self, timeout: float | None, connected: bool) -> GetHealthResponse:
        deadline = self.link.deadline(timeout)
        flag("connected", connected)
        backoff = Backoff()
        while True:
            failure: ClaudemeshError
            try:
                health = await self.link.call(GET_HEALTH, {}, deadline)
                if health.state == HealthState.HEALTH_STATE_READY and (health.connected or not connected):
                    return health
                state = enum_name(HealthState.DESCRIPTOR, health.state)
                link = "" if health.connected else " without a link to the broker"
                failure = DeadlineExceeded(f"the daemon is {state}{link} after {deadline.seconds:g} s")
            except DaemonNotRunning as error:
                failure = error
            delay = backoff.next()
            if delay >= deadline.remaining():
                raise failure
            try:
                await self.link.io.sleep(delay)
            except Closed as closed:
                raise self.link.error(closed) from closed


class Inbox:
    """An iteration over stored messages, page by page."""

    def __init__(
        self,
        link: Link,
        since: datetime | None,
        topic: str,
        sender: str,
        after: str,
        limit: int | None,
        newest_first: bool,
        timeout: float | None,
    ) -> None:
        link.check()
        link.deadline(timeout)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise invalid("limit", "must be a whole number, 0 or more")
        newest_first = flag("newest_first", newest_first)
        order = MessageOrder.MESSAGE_ORDER_NEWEST_FIRST if newest_first else MessageOrder.MESSAGE_ORDER_OLDEST_FIRST
        self._link = link
        self._timeout = timeout
        self._left = limit
        self._fields = {
            "since": time_value("since", since),
            "topic": optional("topic", topic),
            "sender": optional("sender", sender),
            "after": optional("after", after),
            "order": order,
        }
        self._page: list[InboxMessage] = []
        self._token: str | None = ""

    async def next(self) -> InboxMessage | None:
        """The next message; None after the last one."""
        while not self._page:
            if self._token is None or self._left == 0:
                return None
            limit = INBOX_PAGE if self._left is None else min(INBOX_PAGE, self._left)
            fields = {**self._fields, "limit": limit, "page_token": self._token}
            deadline = self._link.deadline(self._timeout)
            page = await self._link.call(LIST_MESSAGES, fields, deadline, feature="inbox")
            self._page = list(reversed(page.messages))
            self._token = page.next_page_token or None
        if self._left is not None:
            self._left -= 1
        return self._page.pop()


class _OfSend:
    """Errors are those of the send with this id."""

    __slots__ = ("_id",)

    def __init__(self, message_id: str) -> None:
        self._id = message_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ClaudemeshError):
            error.client_message_id = error.client_message_id or self._id


def _messages(messages: Any) -> list[Message]:
    listed = several("messages", messages)
    for message in listed:
        if not isinstance(message, Message):
            raise invalid("messages", f"must hold a claudemesh.Message for each, not {message!r:.80}")
    return listed


def _check_wait(wait: str | None, *, to_topic: bool) -> None:
    if wait is not None and wait not in list(REACHED):
        raise invalid("wait", f"{wait!r:.80} is none of {', '.join(REACHED)}")
    if wait == "delivered" and to_topic:
        raise invalid("wait", MANY_RECEIVERS)


def _late(message_id: str, status: SendStatus.ValueType) -> WaitTimeout:
    """The time of a wait is up; says what is known of the message."""
    state = enum_name(SendStatus.DESCRIPTOR, status)
    if status == SendStatus.SEND_STATUS_ACCEPTED:
        known = "accepted by the broker, not yet delivered"
    elif status in (SendStatus.SEND_STATUS_QUEUED, SendStatus.SEND_STATUS_INFLIGHT):
        known = "on this host's disk, not yet accepted by the broker"
    else:
        known = f"in the state {state}"
    return WaitTimeout(
        f"the time is up, and the message is {known}; it goes on by itself, and its id tells how far it is",
        metadata={"client_message_id": message_id, "status": state},
    )


def _has_reached(response: SendResponse | PostTopicResponse, wait: WaitFor) -> bool:
    if isinstance(response, SendResponse) and response.HasField("delivered_at"):
        response.status = SendStatus.SEND_STATUS_DELIVERED
    return response.status in REACHED[wait]


def _take_over(response: SendResponse | PostTopicResponse, send: GetSendResponse) -> None:
    """Writes into the answer of a send how far it has come since."""
    response.status = send.status
    response.broker_message_id = send.broker_message_id
    response.history_id = send.history_id
    if isinstance(response, SendResponse):
        if send.HasField("delivered_at"):
            response.delivered_at.CopyFrom(send.delivered_at)
    elif send.HasField("delivered_count"):
        response.delivered_count = send.delivered_count


def _ended(send: GetSendResponse) -> ClaudemeshError:
    """Why a send will not come any further."""
    status = enum_name(SendStatus.DESCRIPTOR, send.status)
    told = from_detail(send.error) if send.HasField("error") and send.error.code else None
    reason = told.message if told else f"the message ended as {status}"
    metadata = told.metadata if told else {}
    error: ClaudemeshError
    if send.status == SendStatus.SEND_STATUS_REJECTED:
        error = MessageRejected(reason, metadata=metadata)
    elif send.status == SendStatus.SEND_STATUS_EXPIRED:
        error = DeliveryExpired(reason, metadata=metadata)
    else:
        error = told or FailedPrecondition(reason, code=status)
    error.metadata.setdefault("client_message_id", send.client_message_id)
    error.client_message_id = send.client_message_id
    return error


def _may_repeat(result: SendResponse | ClaudemeshError) -> bool:
    return isinstance(result, ClaudemeshError) and (
        result.grpc_code == UNAVAILABLE or isinstance(result, Unauthenticated)
    )


def _for_send(error: ClaudemeshError, request: SendStreamRequest) -> ClaudemeshError:
    """An error of several sends, as that of one of them."""
    own = error.__class__(
        error.message,
        code=error.code,
        metadata=error.metadata,
        candidates=error.candidates,
        field_violations=error.field_violations,
        retryable=error.retryable,
        retry_after=error.retry_after,
        grpc_code=error.grpc_code,
    )
    own.client_message_id = own.client_message_id or request.send.client_message_id
    own.__cause__ = error.__cause__
    return own
