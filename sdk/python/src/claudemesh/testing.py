"""A mesh for tests: a broker and daemons that end with the test.

    from claudemesh.testing import DevMesh

    with DevMesh() as mesh:
        alice, bob = mesh.clients()
        alice.send("bob", "hi", wait="delivered")
        mesh.restart("bob")

With pytest, the fixture `mesh` gives such a mesh. The program is the one in
`CLAUDEMESH_BIN`, else `claudemesh` on the path.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import claudemesh.aio
from claudemesh import _mesh, errors
from claudemesh._error import build

__all__ = ["DevMesh", "Member", "binary"]

START_TIMEOUT = 60.0
COMMAND_TIMEOUT = 60.0
END_TIMEOUT = 20.0


def binary() -> Path:
    """The program that is tested with."""
    found = os.environ.get("CLAUDEMESH_BIN") or shutil.which("claudemesh")
    if not found:
        raise errors.InvalidArgument("no claudemesh program: set CLAUDEMESH_BIN to its path, or put it on the PATH")
    return Path(found)


@dataclass(frozen=True)
class Member:
    """A member of the mesh, with a daemon of its own."""

    name: str
    home: str
    sock: str
    address: str
    token_file: str
    pubkey: str
    member_id: str
    log: str
    """The file with the daemon's log."""

    def connect(self, *, tcp: bool = False) -> _mesh.Mesh:
        """A new client of the daemon."""
        if tcp:
            return _mesh.connect(address=self.address, token_file=self.token_file)
        return _mesh.connect(socket=self.sock)

    def connect_async(self, *, tcp: bool = False) -> claudemesh.aio.AsyncMesh:
        """A new client for asyncio."""
        if tcp:
            return claudemesh.aio.connect(address=self.address, token_file=self.token_file)
        return claudemesh.aio.connect(socket=self.sock)


class DevMesh:
    """A broker and daemons in a temporary directory, which end with this process."""

    def __init__(self, *members: str, clock: bool = False, directory: str | os.PathLike[str] = "") -> None:
        """Starts the mesh and waits until its members are connected.

        The members are `alice` and `bob` unless others are named. `clock` makes
        `advance` possible and needs libfaketime. A given directory is kept.
        """
        command = [str(binary()), "dev", "--json", "--members", ",".join(members or ("alice", "bob"))]
        command += ["--clock"] if clock else []
        command += ["--dir", os.fspath(directory)] if directory else []
        self._program = command[0]
        self.members: dict[str, Member] = {}
        self._clients: list[_mesh.Mesh] = []
        self._next = 0
        self._lock = threading.Lock()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        except OSError as error:
            raise errors.InvalidArgument(
                f"{command[0]} cannot be started: {error.strerror}; set CLAUDEMESH_BIN to the path of the program"
            ) from error
        threading.Thread(target=self._read, name="claudemesh-dev", daemon=True).start()
        try:
            ready = self._line(START_TIMEOUT)
            if ready.get("event") != "ready":
                raise self._failure(ready)
        except BaseException:
            self.close()
            raise
        self.directory = Path(ready["dir"])
        self.broker: str = ready["broker"]
        for member in ready["members"]:
            self._note(member)

    def __getitem__(self, name: str) -> Member:
        member = self.members.get(name)
        if member is None:
            raise errors.UnknownPeer(f"the mesh has no member {name!r}; there are {', '.join(self.members)}")
        return member

    def client(self, name: str, *, tcp: bool = False) -> _mesh.Mesh:
        """A new client of a member's daemon, closed with the mesh."""
        client = self[name].connect(tcp=tcp)
        self._clients.append(client)
        return client

    def clients(self, *names: str) -> list[_mesh.Mesh]:
        """A new client for each of these members, else for all."""
        return [self.client(name) for name in names or self.members]

    def kill(self, member: str) -> None:
        """Ends the daemon as a crash does."""
        self.command("kill", member=member)

    def stop(self, member: str) -> None:
        """Ends the daemon in order."""
        self.command("stop", member=member)

    def start(self, member: str) -> Member:
        """Starts the daemon again, and waits until it serves."""
        return self._note(self.command("start", member=member)["member"])

    def restart(self, member: str) -> Member:
        """Stops and starts the daemon."""
        return self._note(self.command("restart", member=member)["member"])

    def pause(self, member: str) -> None:
        """Freezes the daemon, so that it says nothing."""
        self.command("pause", member=member)

    def resume(self, member: str) -> None:
        """Ends `pause`."""
        self.command("resume", member=member)

    def cut(self, member: str) -> None:
        """Closes the daemon's link to the broker and refuses new ones."""
        self.command("cut", member=member)

    def stall(self, member: str) -> None:
        """Lets nothing through the link any more, without closing it."""
        self.command("stall", member=member)

    def mend(self, member: str) -> None:
        """Ends `cut` and `stall`."""
        self.command("mend", member=member)

    def add(self, member: str) -> Member:
        """Lets one more member join."""
        return self._note(self.command("add", member=member)["member"])

    def stop_broker(self) -> None:
        """Ends the broker."""
        self.command("broker_stop")

    def start_broker(self) -> None:
        """Starts the broker again, with what it had."""
        self.command("broker_start")

    def advance(self, seconds: float) -> None:
        """Moves the clocks of the broker and the daemons; needs `clock=True`."""
        self.command("clock", advance_s=seconds)

    def command(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Has `claudemesh dev` do something; raises `ClaudemeshError` when it cannot."""
        with self._lock:
            self._next += 1
            line = json.dumps({"id": self._next, "do": do, **arguments})
            stdin = self._process.stdin
            if stdin is None or stdin.closed:
                raise errors.ClientClosed("the mesh is closed")
            try:
                stdin.write(line + "\n")
                stdin.flush()
            except BrokenPipeError:
                raise self._ended() from None
            answer = self._line(COMMAND_TIMEOUT)
        if not answer.get("ok"):
            raise self._failure(answer)
        return answer

    def close(self) -> None:
        """Ends the daemons and the broker and removes their directory."""
        for client in self._clients:
            client.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> DevMesh:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self, member: dict[str, str]) -> Member:
        noted = Member(**{name: member[name] for name in Member.__dataclass_fields__})
        self.members[noted.name] = noted
        return noted

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _line(self, timeout: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise errors.DeadlineExceeded(f"claudemesh dev said nothing for {timeout:g} s") from None
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> errors.ClaudemeshError:
        return errors.InternalError(
            f"`{self._program} dev` has ended with {self._process.wait(END_TIMEOUT)}; what it said is on standard error"
        )

    @staticmethod
    def _failure(answer: dict[str, Any]) -> errors.ClaudemeshError:
        error = answer.get("error", {})
        return build(error.get("code", "internal_error"), 2, error.get("message", json.dumps(answer)))
