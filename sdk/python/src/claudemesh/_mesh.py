"""The blocking client."""

from __future__ import annotations

import builtins
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from claudemesh._core import Core, Inbox
from claudemesh._discovery import Arguments, working_directory
from claudemesh._events import EventFeed
from claudemesh._io import run
from claudemesh._link import Link
from claudemesh._model import Event, Message, PriorityName, RoleName, SendResult, StatusName, WaitFor
from claudemesh._raw import Raw
from claudemesh._sync_io import SyncIo
from claudemesh.v1.control_pb2 import GetHealthResponse, GetVersionResponse
from claudemesh.v1.inbox_pb2 import InboxMessage
from claudemesh.v1.messaging_pb2 import GetSendResponse, PostTopicResponse, SendResponse
from claudemesh.v1.peers_pb2 import Peer, SetProfileResponse
from claudemesh.v1.topics_pb2 import Topic


class Mesh:
    """A client of one daemon, made by `connect`. Threads may share it.

    Every call has a deadline: 10 s, or `timeout` seconds. Failures are raised as
    `claudemesh.ClaudemeshError`, in a class of `claudemesh.errors` for each code.
    """

    topics: Topics
    """The topics of the mesh."""

    def __init__(self, arguments: Arguments) -> None:
        self._io = SyncIo()
        self._link = Link(self._io, arguments, os.environ, working_directory())
        self._core = Core(self._link)
        self._raw: Raw | None = None
        self._feeds: weakref.WeakSet[EventFeed] = weakref.WeakSet()
        self.topics = Topics(self._core)

    @property
    def raw(self) -> Raw:
        """The generated client, for what has no method here."""
        self._link.check()
        if self._raw is None:
            self._raw = Raw(self._link.endpoint(), self._link.metadata)
        return self._raw

    def send(
        self,
        to: str,
        text: str,
        *,
        id: str = "",
        priority: PriorityName | None = None,
        meta: Mapping[str, Any] | None = None,
        reply_to: str = "",
        mentions: Sequence[str] = (),
        allow_unencrypted: bool = False,
        wait: WaitFor | None = None,
        timeout: float | None = None,
    ) -> SendResponse:
        """Queues a message for a member, on the daemon's disk when this returns.

        `to` is a name, a key or the beginning of one, or a `#topic`. `id` is made when
        it is not given; an error of the send holds it as `client_message_id`, and the
        same send may be repeated with it. `wait` goes on until the broker has the
        message (`accepted`) or the receiver's daemon (`delivered`).
        """
        message = Message(to, text, id, priority, meta, reply_to, mentions, allow_unencrypted)
        return run(self._core.send(message, wait, timeout))

    def send_many(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[SendResult]:
        """Queues many messages. Each has a result of its own, in the order given."""
        return run(self._core.send_many(messages, timeout))

    def post(
        self,
        topic: str,
        text: str,
        *,
        id: str = "",
        priority: PriorityName | None = None,
        meta: Mapping[str, Any] | None = None,
        reply_to: str = "",
        mentions: Sequence[str] = (),
        allow_unencrypted: bool = False,
        wait: Literal["accepted"] | None = None,
        timeout: float | None = None,
    ) -> PostTopicResponse:
        """Queues a message for the subscribers of a topic; arguments as for `send`."""
        message = Message(topic, text, id, priority, meta, reply_to, mentions, allow_unencrypted)
        return run(self._core.post(message, wait, timeout))

    def get_send(self, id: str, *, timeout: float | None = None) -> GetSendResponse:
        """Tells how far the send of this id has come."""
        return run(self._core.get_send(id, timeout))

    def inbox(
        self,
        *,
        since: datetime | None = None,
        topic: str = "",
        sender: str = "",
        after: str = "",
        limit: int | None = None,
        newest_first: bool = False,
        timeout: float | None = None,
    ) -> Iterator[InboxMessage]:
        """Iterates over the stored messages. Pages are fetched as needed; `limit` is the number in all."""
        return InboxIterator(Inbox(self._link, since, topic, sender, after, limit, newest_first, timeout))

    def events(
        self,
        *,
        after: str = "",
        from_start: bool = False,
        types: Iterable[str] = (),
        topic: str = "",
        sender: str = "",
    ) -> Events:
        """Follows events until it is closed, over restarts of the daemon.

        Begins after the event `after`, at the oldest stored message (`from_start`), or
        with what happens from now on. Use it as a context manager, or close it.
        """
        feed = EventFeed(self._link, after, from_start, types, topic, sender)
        self._feeds.add(feed)
        return Events(feed)

    def peers(
        self, *, include_offline: bool = False, roles: Iterable[RoleName] = (), timeout: float | None = None
    ) -> list[Peer]:
        """Lists the members, this one included."""
        return run(self._core.peers(include_offline, roles, timeout))

    def profile(
        self,
        *,
        summary: str | None = None,
        status: StatusName | None = None,
        visible: bool | None = None,
        timeout: float | None = None,
    ) -> SetProfileResponse:
        """Changes what others see of this member; what is left out stays as it is."""
        return run(self._core.profile(summary, status, visible, timeout))

    def health(self, *, timeout: float | None = None) -> GetHealthResponse:
        """Tells whether the daemon is connected and how much waits."""
        return run(self._core.health(timeout))

    def version(self, *, timeout: float | None = None) -> GetVersionResponse:
        """Tells the version of the daemon and what it serves."""
        return run(self._core.version(timeout))

    def wait_ready(self, *, timeout: float | None = None, connected: bool = False) -> GetHealthResponse:
        """Waits until the daemon answers and is ready; with `connected`, until it has its link too."""
        return run(self._core.wait_ready(timeout, connected))

    def close(self) -> None:
        """Ends streams and the connection; what waits gets `ClientClosed`."""
        if self._link.closed or self._link.forked():
            self._link.closed = True
            return
        self._link.closed = True
        for feed in list(self._feeds):
            feed.close()
        self._io.close()
        if self._raw is not None:
            self._raw.close()

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Topics:
    """The topics of the mesh."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def list(self, *, subscribed_only: bool = False, timeout: float | None = None) -> builtins.list[Topic]:
        """Lists the topics that this member may see, by name."""
        return run(self._core.list_topics(subscribed_only, timeout))

    def create(self, name: str, *, description: str = "", timeout: float | None = None) -> Topic:
        """Makes an encrypted topic and subscribes this member. It is never repeated by itself."""
        return run(self._core.create_topic(name, description, timeout))

    def subscribe(self, name: str, *, timeout: float | None = None) -> Topic:
        """Subscribes this member to a topic."""
        return run(self._core.subscribe(name, timeout))

    def unsubscribe(self, name: str, *, timeout: float | None = None) -> bool:
        """Ends a subscription; tells whether there was one."""
        return run(self._core.unsubscribe(name, timeout))


class Events:
    """An iteration over events, until it is closed."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> Event:
        event = run(self._feed.next())
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Ends the iteration, also one that waits in another thread."""
        self._feed.close()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.close()


class InboxIterator:
    """An iteration over stored messages."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def __iter__(self) -> InboxIterator:
        return self

    def __next__(self) -> InboxMessage:
        message = run(self._inbox.next())
        if message is None:
            raise StopIteration
        return message


def connect(
    *,
    socket: str | os.PathLike[str] = "",
    address: str = "",
    token_file: str | os.PathLike[str] = "",
    token: str = "",
    mesh: str = "",
) -> Mesh:
    """A client of the daemon of this host.

    Without arguments the daemon is found by `CLAUDEMESH_DAEMON_SOCK`,
    `CLAUDEMESH_ADDR` with `CLAUDEMESH_TOKEN_FILE`, `CLAUDEMESH_MESH`, the file
    `.claudemesh/mesh` in the working directory or above, or as the only one that
    runs. Nothing is sent yet: the first call talks to the daemon.
    """
    return Mesh(Arguments.of(socket, address, token_file, token, mesh))
