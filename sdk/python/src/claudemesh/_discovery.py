"""Which daemon a client talks to.

The order is described in sdk/README.md and held as cases in
sdk/conformance/discovery.json.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claudemesh._model import invalid, optional
from claudemesh.errors import DaemonNotRunning, InvalidArgument, MeshRequired, SocketPathTooLong

# What fits into a `sockaddr_un` with its final zero byte.
MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107

# No more of `.claudemesh/mesh` is read: a name and white space.
MAX_MESH_FILE = 256

MESH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Unix:
    """A daemon's socket."""

    path: str

    @property
    def target(self) -> str:
        return f"unix:{self.path}"

    def __str__(self) -> str:
        return self.path

    def check(self) -> None:
        """Refuses what no socket can be at; grpc would say nothing useful."""
        size = len(os.fsencode(self.path))
        if size > MAX_SOCKET_PATH:
            raise SocketPathTooLong(f"{self.path} has {size} bytes; the path of a socket has at most {MAX_SOCKET_PATH}")


@dataclass(frozen=True)
class Tcp:
    """A daemon's address, with the token or the file that holds it."""

    address: str
    token_file: str = ""
    token: str = ""

    def __repr__(self) -> str:
        # The token is a secret.
        return f"Tcp(address={self.address!r}, token_file={self.token_file!r})"

    @property
    def target(self) -> str:
        host = self.address.rpartition(":")[0]
        return f"ipv6:{self.address}" if host.startswith("[") else f"dns:{self.address}"

    def __str__(self) -> str:
        return self.address


Endpoint = Unix | Tcp


@dataclass(frozen=True)
class Arguments:
    """What the caller of `connect` gave; empty means not given."""

    socket: str = ""
    address: str = ""
    token_file: str = ""
    token: str = ""
    mesh: str = ""

    @staticmethod
    def of(socket: Any, address: Any, token_file: Any, token: Any, mesh: Any) -> Arguments:
        return Arguments(
            _argument("socket", socket, path=True),
            _argument("address", address),
            _argument("token_file", token_file, path=True),
            _argument("token", token),
            _argument("mesh", mesh),
        )


def _argument(field: str, value: Any, *, path: bool = False) -> str:
    if path and isinstance(value, os.PathLike):
        value = os.fspath(value)
    given: str = optional(field, value) or ""
    if "\0" in given:
        raise invalid(field, "holds a NUL")
    if field == "token" and not (given.isascii() and given.isprintable() and " " not in given):
        raise invalid(field, "must be visible ASCII")
    return given


def working_directory() -> Path | None:
    """None when it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def find(arguments: Arguments, environment: Mapping[str, str], directory: Path | None) -> Endpoint:
    """The daemon to talk to, by the first source that names one."""
    explicit = _explicit(arguments)
    if explicit is not None:
        return explicit
    if not arguments.mesh:
        if socket := environment.get("CLAUDEMESH_DAEMON_SOCK"):
            return _unix(socket)
        if address := environment.get("CLAUDEMESH_ADDR"):
            token_file = environment.get("CLAUDEMESH_TOKEN_FILE", "")
            if not token_file:
                raise InvalidArgument(
                    "CLAUDEMESH_ADDR is set without CLAUDEMESH_TOKEN_FILE; "
                    "set it to the path of the daemon's local_token"
                )
            return Tcp(_address(address, "CLAUDEMESH_ADDR"), token_file)
    daemons = _root(environment) / "daemon"
    return _unix(str(daemons / (_named(arguments, environment, directory) or _only_running(daemons)) / "sock"))


def _explicit(arguments: Arguments) -> Endpoint | None:
    if sum(map(bool, (arguments.socket, arguments.address, arguments.mesh))) > 1:
        raise InvalidArgument("give one of socket, address and mesh")
    if arguments.token and arguments.token_file:
        raise InvalidArgument("give one of token and token_file")
    has_token = bool(arguments.token or arguments.token_file)
    if has_token != bool(arguments.address):
        raise InvalidArgument("an address needs a token_file or a token, and they belong to an address")
    if arguments.socket:
        return _unix(arguments.socket)
    if arguments.address:
        return Tcp(_address(arguments.address, "address"), arguments.token_file, arguments.token)
    return None


def _unix(path: str) -> Unix:
    return Unix(str(Path(path).absolute()))


def _address(text: str, origin: str) -> str:
    address = text.removeprefix("http://").rstrip("/")
    found = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", address, re.ASCII)
    if found is None or not 0 < int(found[1]) < 65536:
        raise invalid(origin, f"{text[:80]!r} is no address; write host:port, such as 127.0.0.1:47910")
    return address


def _root(environment: Mapping[str, str]) -> Path:
    if home := environment.get("CLAUDEMESH_HOME"):
        return Path(home).absolute()
    home = environment.get("HOME") or str(Path.home())
    return Path(home) / ".claudemesh"


def _named(arguments: Arguments, environment: Mapping[str, str], directory: Path | None) -> str | None:
    """The mesh that argument, variable or directory names.

    It is checked to be fit for a path: the directory may be somebody else's.
    """
    if arguments.mesh:
        mesh, origin = arguments.mesh, "mesh"
    elif variable := environment.get("CLAUDEMESH_MESH"):
        mesh, origin = variable, "CLAUDEMESH_MESH"
    else:
        found = None if directory is None else _mesh_file(directory)
        if found is None:
            return None
        mesh, origin = found
    if not MESH_NAME.fullmatch(mesh):
        raise invalid(
            origin,
            f"{mesh[:80]!r} is no name of a mesh: 1 to 64 letters, digits, - and _, beginning with a letter or a digit",
        )
    return mesh


def _mesh_file(directory: Path) -> tuple[str, str] | None:
    for place in (directory, *directory.parents):
        path = place / ".claudemesh" / "mesh"
        try:
            # Whoever made the directory may have put a pipe there, which opens for ever.
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise InvalidArgument(f"cannot read {path}: it is no plain file; name the mesh another way")
            # Nor is it theirs to say whose mesh is sent to.
            if found.st_uid not in (0, os.geteuid()):
                raise InvalidArgument(f"cannot read {path}: it belongs to another user; name the mesh another way")
            with path.open("rb") as file:
                text = file.read(MAX_MESH_FILE)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InvalidArgument(f"cannot read {path}: {error.strerror}; name the mesh another way") from error
        return text.partition(b"\n")[0].strip().decode("utf-8", "replace"), str(path)
    return None


def _only_running(daemons: Path) -> str:
    try:
        meshes = sorted(entry.name for entry in os.scandir(daemons) if entry.is_dir())
    except FileNotFoundError:
        meshes = []
    except OSError as error:
        raise InvalidArgument(f"cannot list {daemons}: {error.strerror}; name the mesh") from error
    running = [mesh for mesh in meshes if _is_locked(daemons / mesh / "lock")]
    if not running:
        raise DaemonNotRunning(f"no daemon runs below {daemons}; start one: claudemesh daemon up --mesh <MESH>")
    if len(running) > 1:
        raise MeshRequired(
            f"several daemons run: {', '.join(running)}; name a mesh by the argument mesh or by CLAUDEMESH_MESH",
            metadata={"meshes": ",".join(running)},
        )
    return running[0]


def _is_locked(path: Path) -> bool:
    """Whether a live process holds the lock.

    The attempt is shared, so that two that ask at the same time do not take each
    other for the daemon, and is given back at once.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False
