"""The test kit itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import claudemesh
from claudemesh import errors
from claudemesh.testing import DevMesh
from conftest import eventually


def test_a_mesh_ends_with_its_block() -> None:
    with DevMesh() as dev:
        alice, bob = dev.clients()
        alice.send("bob", "hi", wait="delivered")
        assert [message.body for message in bob.inbox()] == ["hi"]
        directory = dev.directory
        sock = dev["alice"].sock
        assert directory.is_dir()
    assert not directory.exists()
    assert not Path(sock).exists()
    with pytest.raises(errors.ClientClosed):
        alice.health()
    with pytest.raises(errors.ClientClosed, match="the mesh is closed"):
        dev.kill("alice")


def test_a_mesh_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "from claudemesh.testing import DevMesh\n"
        "import os, signal\n"
        "dev = DevMesh()\n"
        "print(dev.directory, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    directory = Path(done.stdout.strip())
    assert directory.name
    assert eventually(lambda: not directory.exists())


def test_members_can_be_disturbed(mesh: DevMesh) -> None:
    (alice,) = mesh.clients("alice")
    mesh.add("carol")
    (carol,) = mesh.clients("carol")
    alice.send("carol", "welcome", wait="delivered", timeout=30)
    mesh.cut("alice")
    assert eventually(lambda: not alice.health().connected)
    mesh.mend("alice")
    alice.wait_ready(timeout=30, connected=True)
    mesh.stall("carol")
    with pytest.raises(errors.WaitTimeout):
        alice.send("carol", "nothing comes through", wait="delivered", timeout=0.5)
    mesh.mend("carol")
    mesh.stop_broker()
    mesh.start_broker()
    for member in ("alice", "carol"):
        mesh.kill(member)
        mesh.start(member)
    alice.wait_ready(timeout=30, connected=True)
    carol.wait_ready(timeout=30, connected=True)
    alice.send("carol", "again", wait="delivered", timeout=30)
    with pytest.raises(errors.UnknownPeer):
        mesh.kill("nobody")


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAUDEMESH_BIN", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(errors.InvalidArgument, match="CLAUDEMESH_BIN"):
        DevMesh()


def test_a_program_that_is_no_daemon_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAUDEMESH_BIN", "/bin/false")
    with pytest.raises(errors.InternalError, match="/bin/false dev"):
        DevMesh()


@pytest.mark.parametrize("program", ["/nope", "/etc/passwd", "/"])
def test_a_program_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setenv("CLAUDEMESH_BIN", program)
    with pytest.raises(errors.InvalidArgument, match=f"{program} cannot be started.*CLAUDEMESH_BIN"):
        DevMesh()


def test_a_member_that_is_not_there_is_told(shared: DevMesh) -> None:
    with pytest.raises(errors.UnknownPeer, match="'zed'; there are alice, bob"):
        shared.client("zed")


def test_members_can_be_chosen() -> None:
    with DevMesh("x", "y", "z") as dev:
        assert list(dev.members) == ["x", "y", "z"]
        with pytest.raises(claudemesh.ClaudemeshError):
            dev.advance(1)


def test_the_kit_needs_no_pytest() -> None:
    program = (
        "import sys\nsys.modules['pytest'] = None\n"
        "from claudemesh.testing import DevMesh\n"
        "with DevMesh() as dev: print(dev.client('alice').health().mesh)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "dev\n"


def test_the_kit_for_asyncio(shared: DevMesh) -> None:
    program = (
        "import asyncio, os\nimport claudemesh.aio\n"
        "async def main():\n"
        "    async with claudemesh.aio.connect() as mesh: print((await mesh.health()).mesh)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "CLAUDEMESH_ADDR": shared["alice"].address}
    environment["CLAUDEMESH_TOKEN_FILE"] = shared["alice"].token_file
    environment.pop("CLAUDEMESH_DAEMON_SOCK", None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "dev\n"
