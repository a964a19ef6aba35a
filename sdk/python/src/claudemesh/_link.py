"""The rules that hold for every call: discovery, token, versions, retries, errors."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc

from claudemesh._discovery import Arguments, Endpoint, Tcp, Unix, find
from claudemesh._error import ClaudemeshError, from_rpc
from claudemesh._io import GET_VERSION, MAX_MESSAGE, Closed, Deadline, Io, Metadata, Request, Response, Rpc, TimeIsUp
from claudemesh._model import invalid
from claudemesh._retry import Backoff
from claudemesh._trace import trace_context
from claudemesh.errors import (
    ClientClosed,
    ClientForked,
    DaemonNotRunning,
    DeadlineExceeded,
    NotServed,
    PayloadTooLarge,
    PermissionDenied,
    Unauthenticated,
    VersionUnsupported,
)
from claudemesh.v1.control_pb2 import GetVersionResponse

DEFAULT_TIMEOUT = 10.0

IPC_API = "v1"

# How grpc begins to tell that it could not connect at all. What it says of a
# connection that it had is worded otherwise.
NOT_CONNECTED = ("failed to connect to all addresses", "DNS resolution failed")

# What grpc says when the time is up on this side.
OUT_OF_TIME = ("Deadline Exceeded", "deadline_exceeded")

UNAVAILABLE: int = grpc.StatusCode.UNAVAILABLE.value[0]


class Link:
    """The way to one daemon, and what is known about it."""

    def __init__(self, io: Io, arguments: Arguments, environment: Mapping[str, str], directory: Path | None) -> None:
        self.io = io
        self.closed = False
        self._pid = os.getpid()
        self._find: Callable[[], Endpoint] = lambda: find(arguments, environment, directory)
        self._endpoint: Endpoint | None = None
        self._token = ""
        self._was_connected = False
        self._version: GetVersionResponse | None = None
        # Not running now, it may run by the time of the first call.
        with contextlib.suppress(DaemonNotRunning):
            self.endpoint()

    def check(self) -> None:
        """Refuses a client that cannot be used any more."""
        self.check_process()
        if self.closed:
            raise ClientClosed("the client is closed")

    def check_process(self) -> None:
        if self.forked():
            raise ClientForked("this client was made by another process; call connect() after the fork")

    def forked(self) -> bool:
        """This is a child of the process that made the client; grpc must not be touched here."""
        return self._pid != os.getpid()

    def endpoint(self) -> Endpoint:
        if self._endpoint is None:
            endpoint = self._find()
            if isinstance(endpoint, Unix):
                endpoint.check()
            self.io.open(endpoint)
            self._endpoint = endpoint
        return self._endpoint

    def deadline(self, timeout: float | None) -> Deadline:
        seconds = DEFAULT_TIMEOUT if timeout is None else timeout
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds > 0:
            raise invalid("timeout", "must be a number of seconds above 0")
        # grpc takes no longer ones.
        return Deadline(float(min(seconds, 3e8)))

    async def call(
        self,
        rpc: Rpc[Request, Response],
        fields: Mapping[str, Any],
        deadline: Deadline,
        *,
        feature: str = "",
        repeat: bool = True,
    ) -> Response:
        """Makes a call, and makes it again as the rules say."""
        request = rpc.request(**fields)
        backoff = Backoff()
        fresh_token = False
        while True:
            try:
                self.check_size(request)
                if feature:
                    await self.require(feature, deadline)
                return await self.attempt(rpc, request, deadline)
            except Unauthenticated:
                if fresh_token or not self.renew_token():
                    raise
                fresh_token = True
            except ClaudemeshError as error:
                if not repeat:
                    raise
                await self.pause(error, backoff, deadline)

    async def attempt(self, rpc: Rpc[Request, Response], request: Request, deadline: Deadline) -> Response:
        """Makes a call once."""
        self.prepare()
        try:
            response = await self.io.unary(rpc, request, deadline.remaining(), self.metadata())
        except (grpc.RpcError, TimeIsUp, Closed) as error:
            raise self.error(error) from error
        self.answered()
        return response

    def prepare(self) -> None:
        """What has to hold before anything is sent."""
        self.check()
        endpoint = self.endpoint()
        if isinstance(endpoint, Unix) and not self.io.connected():
            _check_owner(endpoint)

    def check_size(self, request: Any) -> None:
        # A larger message would end the stream that others use too. The rest is
        # room for what surrounds the request.
        if request.ByteSize() > MAX_MESSAGE - 65_536:
            raise PayloadTooLarge(f"the request has {request.ByteSize()} bytes; a text has at most 1 MiB")

    async def require(self, feature: str, deadline: Deadline) -> None:
        """Asks for the version once per connection, and whether it has what is needed."""
        self.check()
        if not self.io.connected():
            # The next connection may lead to another version.
            self._version = None
        if self._version is None:
            try:
                await self.io.once(lambda: self._ask_version(deadline), deadline.remaining())
            except (TimeIsUp, Closed) as error:
                raise self.error(error) from error
        version = self._version
        if version is None:
            return
        if version.ipc_api != IPC_API:
            raise VersionUnsupported(
                f"the daemon {version.daemon_version} speaks {version.ipc_api or 'no version'} of the API, "
                f"this library {IPC_API}; install versions that belong together",
                metadata={"daemon_version": version.daemon_version, "ipc_api": version.ipc_api},
            )
        if feature not in version.ipc_features:
            raise NotServed(
                f"the daemon {version.daemon_version} does not serve {feature!r}; it serves "
                f"{', '.join(version.ipc_features) or 'nothing'}",
                metadata={"daemon_version": version.daemon_version, "feature": feature},
            )

    async def _ask_version(self, deadline: Deadline) -> None:
        if self._version is None:
            self._version = await self.attempt(GET_VERSION, GET_VERSION.request(), deadline)

    async def pause(self, error: ClaudemeshError, backoff: Backoff, deadline: Deadline | None) -> None:
        """Waits before the next attempt, or raises the error when there is none."""
        if error.grpc_code != UNAVAILABLE or (isinstance(error, DaemonNotRunning) and not self._was_connected):
            raise error
        delay = backoff.next() if error.retry_after is None else error.retry_after
        if deadline is not None and delay >= deadline.remaining():
            raise error
        try:
            await self.io.sleep(delay)
        except Closed as closed:
            raise ClientClosed("the client was closed") from closed

    def metadata(self) -> Metadata:
        """What goes along with a call: the token, and where it belongs in a trace."""
        entries = list(trace_context().items())
        endpoint = self.endpoint()
        if isinstance(endpoint, Tcp):
            self._token = self._token or endpoint.token or _read_token(endpoint.token_file)
            entries.append(("authorization", f"Bearer {self._token}"))
        return tuple(entries)

    def renew_token(self) -> bool:
        """Forgets a refused token that can be read anew."""
        endpoint = self.endpoint()
        if not isinstance(endpoint, Tcp) or not endpoint.token_file:
            return False
        self._token = ""
        return True

    def answered(self) -> None:
        """Notes that there was a connection, so that the next one is waited for."""
        self._was_connected = True

    def error(self, error: grpc.RpcError | TimeIsUp | Closed) -> ClaudemeshError:
        """What a failed attempt means to the caller."""
        if isinstance(error, Closed) or self.closed:
            return ClientClosed("the client was closed")
        if isinstance(error, TimeIsUp):
            return self._too_late()
        built, from_daemon = from_rpc(error)
        if from_daemon:
            self.answered()
        elif built.grpc_code == UNAVAILABLE:
            if not built.message.startswith(NOT_CONNECTED):
                self.answered()
            built = self._absent()
        elif isinstance(built, DeadlineExceeded) and built.message in OUT_OF_TIME:
            built = self._too_late()
        # What grpc said of it.
        built.__cause__ = error
        return built

    def _too_late(self) -> ClaudemeshError:
        if not self.io.connected():
            return self._absent()
        return DeadlineExceeded(
            f"the daemon{self._where} did not answer in time; whether it did what was asked is not known"
        )

    def _absent(self) -> ClaudemeshError:
        return DaemonNotRunning(f"no daemon answers{self._where}; start it with `claudemesh daemon up`")

    @property
    def _where(self) -> str:
        return "" if self._endpoint is None else f" at {self._endpoint}"


def _read_token(path: str) -> str:
    try:
        with Path(path).open(encoding="ascii") as file:
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds more than ASCII"
        raise Unauthenticated(
            f"cannot read the token in {path}: {reason}; name the daemon's file local_token"
        ) from error
    if not token or not token.isprintable() or " " in token:
        raise Unauthenticated(f"{path} holds no token; name the daemon's file local_token")
    return token


def _check_owner(endpoint: Unix) -> None:
    """A socket of another user is not this user's daemon, even where it could be opened."""
    try:
        # Asked once: a daemon that starts again may remove it between two questions.
        found = Path(endpoint.path).stat()
        ours = found.st_uid == os.geteuid() and bool(found.st_mode & stat.S_IWUSR)
    except PermissionError:
        ours = False
    except OSError:
        # The attempt to connect says it better.
        return
    if not ours:
        raise PermissionDenied(
            f"{endpoint.path} belongs to another user or is not open to this one; a daemon serves the user who runs it"
        )
