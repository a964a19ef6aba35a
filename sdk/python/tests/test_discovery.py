"""The cases of sdk/conformance/discovery.json."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import claudemesh
from claudemesh import errors
from claudemesh._discovery import Arguments, Endpoint, Tcp, Unix, find

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "conformance/discovery.json").read_text("utf-8"))[
    "cases"
]


@contextmanager
def laid_out(case: dict[str, Any], top: Path) -> Iterator[None]:
    """The directories and files of a case, with the locks held."""
    with ExitStack() as held:
        for name, state in case.get("daemons", {}).items():
            directory = top / name
            directory.mkdir(parents=True)
            if state == "no_lock":
                continue
            lock = held.enter_context((directory / "lock").open("w"))
            if state == "running":
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name, content in case.get("files", {}).items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode())
        (top / case.get("cwd", "work")).mkdir(parents=True, exist_ok=True)
        yield


def expanded(value: Any, top: Path) -> Any:
    return json.loads(json.dumps(value).replace("${TMP}", str(top)))


def as_data(found: Endpoint) -> dict[str, str]:
    if isinstance(found, Unix):
        return {"kind": "unix", "path": found.path}
    data = {"kind": "tcp", "address": found.address, "token_file": found.token_file, "token": found.token}
    return {name: value for name, value in data.items() if value}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case(case: dict[str, Any], tmp_path: Path) -> None:
    # The base of pytest's own directories can be too long for a socket.
    top = Path(os.path.realpath(tmp_path))
    environment = {"HOME": str(top / "home"), **expanded(case.get("env", {}), top)}
    arguments = Arguments(**expanded(case.get("args", {}), top))
    expect = expanded(case["expect"], top)
    with laid_out(case, top):
        if "error" not in expect:
            assert as_data(find(arguments, environment, top / case.get("cwd", "work"))) == expect
            return
        with pytest.raises(errors.ClaudemeshError) as raised:
            find(arguments, environment, top / case.get("cwd", "work"))
    assert raised.value.code == expect["error"]
    assert type(raised.value) is errors.CODES[expect["error"]]
    for name in expect.get("names", ()):
        assert name in raised.value.message


def test_probing_does_not_take_the_lock(tmp_path: Path) -> None:
    """Covers: R327. A probe gives the lock back at once, and a daemon could take it."""
    lock = tmp_path / ".claudemesh/daemon/demo/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    for _ in range(3):
        with pytest.raises(errors.DaemonNotRunning):
            find(Arguments(), {"HOME": str(tmp_path)}, tmp_path)
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_two_that_probe_at_once_see_no_daemon(tmp_path: Path) -> None:
    lock = tmp_path / ".claudemesh/daemon/demo/lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(errors.DaemonNotRunning):
            find(Arguments(), {"HOME": str(tmp_path)}, tmp_path)


def test_socket_path_too_long() -> None:
    with pytest.raises(errors.SocketPathTooLong, match="at most 10"):
        claudemesh.connect(socket=f"/{'x' * 107}")


def test_relative_socket_is_of_the_directory_at_that_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(Arguments(socket="sock"), {}, tmp_path) == Unix(str(tmp_path / "sock"))


def test_a_pipe_in_the_directory_hangs_nobody(tmp_path: Path) -> None:
    (tmp_path / ".claudemesh").mkdir()
    os.mkfifo(tmp_path / ".claudemesh/mesh")
    with pytest.raises(errors.InvalidArgument, match="no plain file"):
        find(Arguments(), {"HOME": str(tmp_path)}, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_names_no_mesh(tmp_path: Path) -> None:
    (tmp_path / ".claudemesh").mkdir()
    (tmp_path / ".claudemesh/mesh").write_text("demo\n")
    os.chown(tmp_path / ".claudemesh/mesh", 12345, -1)
    with pytest.raises(errors.InvalidArgument, match="another user"):
        find(Arguments(), {"HOME": str(tmp_path)}, tmp_path)


def test_the_token_is_not_printed() -> None:
    assert "secret" not in repr(Tcp("127.0.0.1:1", token="secret")) + str(Tcp("127.0.0.1:1", token="secret"))


def test_connect_does_not_fail_while_no_daemon_runs(tmp_path: Path) -> None:
    program = (
        "import claudemesh\n"
        "mesh = claudemesh.connect()\n"
        "try: mesh.health()\n"
        "except claudemesh.errors.DaemonNotRunning as error: print(error.code)\n"
    )
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "daemon_not_running\n"
