"""The examples run, each as a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import claudemesh
from claudemesh.testing import DevMesh
from conftest import eventually

EXAMPLES = Path(__file__).parents[1] / "examples"


@contextmanager
def started(dev: DevMesh, member: str, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """An example as a program of a member."""
    environment = {**os.environ, "CLAUDEMESH_DAEMON_SOCK": dev[member].sock, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def bodies(mesh: claudemesh.Mesh) -> list[str]:
    return [message.body for message in mesh.inbox()]


def test_the_worker_reports_and_does_it_again(mesh: DevMesh) -> None:
    (alice,) = mesh.clients("alice")
    with started(mesh, "bob", "worker.py", "alice", "--steps", "2") as worker:
        assert line(worker) == "done; alice may say retry"
        alice.send("bob", "retry")
        assert line(worker) == "again"
        assert eventually(lambda: len(bodies(alice)) == 5)
        reports = ["step 1 of 2 is done", "step 2 of 2 is done"]
        assert bodies(alice) == [*reports, "again", *reports]
        last = list(alice.inbox())[-1]
        alice.send("bob", "well done", reply_to=last.client_message_id)
        assert line(worker) == "alice says: well done"
        assert worker.wait(10) == 0


def test_the_bot_answers_mentions(mesh: DevMesh) -> None:
    (alice,) = mesh.clients("alice")
    alice.topics.create("ops")
    with started(mesh, "bob", "bot.py", "ops") as bot:
        assert line(bot) == "listening"
        alice.post("ops", "nobody is meant")
        alice.post("ops", "are you there?", mentions=["bob"])
        assert line(bot) == "answered alice"
        assert eventually(lambda: bodies(alice)) == ["alice, you said: are you there?"]


def test_the_alert_waits_for_the_answer(mesh: DevMesh) -> None:
    (bob,) = mesh.clients("bob")
    with started(mesh, "alice", "alert.py", "bob", "the disk is full") as alert:
        assert line(alert) == "delivered; waiting for an answer"
        (message,) = bob.inbox()
        assert message.body == "the disk is full"
        bob.send("alice", "unrelated")
        bob.send("alice", "ok", reply_to=message.client_message_id)
        assert line(alert) == "bob: ok"
        assert alert.wait(10) == 0


def test_the_alert_gives_up(mesh: DevMesh) -> None:
    mesh.stop("bob")
    with started(mesh, "alice", "alert.py", "bob", "the disk is full", "--minutes", "0.02") as alert:
        assert "stays queued" in line(alert)
        assert alert.wait(10) == 3
