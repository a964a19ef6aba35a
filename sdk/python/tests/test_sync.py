"""The blocking client against real daemons."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import claudemesh
from claudemesh import errors
from claudemesh._ulid import ulid
from claudemesh.testing import DevMesh
from claudemesh.v1.common_pb2 import SendStatus
from claudemesh.v1.control_pb2 import GetVersionRequest
from conftest import eventually


@pytest.fixture
def alice(shared: DevMesh) -> Iterator[claudemesh.Mesh]:
    with shared["alice"].connect() as mesh:
        yield mesh


@pytest.fixture
def bob(shared: DevMesh) -> Iterator[claudemesh.Mesh]:
    with shared["bob"].connect() as mesh:
        yield mesh


def in_background(work: Callable[[], Any]) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def test_a_message_comes_by_event_and_into_the_inbox(mesh: DevMesh) -> None:
    """Covers: R327. A message that was sent is followed and listed on the other side."""
    alice, bob = mesh.clients()
    text = ulid()
    with bob.events(types=["message"]) as events:
        assert next(events).kind == "caught_up"
        sent = alice.send("bob", text, meta={"build": 42}, priority="now")
        event = next(events)
    assert (event.kind, event.value.body, event.value.meta["build"]) == ("message", text, 42)
    assert event.value.client_message_id == sent.client_message_id
    assert event.time is not None
    (stored,) = bob.inbox(newest_first=True, limit=1)
    assert stored == event.value
    again = bob.events(after=event.event_id)
    assert next(again).kind == "caught_up"
    again.close()
    assert list(again) == []


def test_inbox_goes_over_its_pages(mesh: DevMesh) -> None:
    alice, bob = mesh.clients()
    mark = alice.send("bob", "first", wait="delivered").client_message_id
    start = next(m for m in bob.inbox(newest_first=True) if m.client_message_id == mark)
    results = alice.send_many([claudemesh.Message("bob", f"{n}") for n in range(250)], timeout=60)
    assert [result.error for result in results] == [None] * 250
    assert eventually(lambda: len(list(bob.inbox(after=start.event_id))) >= 250, 60)
    listed = list(bob.inbox(after=start.event_id))
    assert [m.client_message_id for m in listed] == [result.id for result in results]
    assert [m.body for m in bob.inbox(after=start.event_id, limit=120)] == [str(n) for n in range(120)]
    assert list(bob.inbox(limit=0)) == []


def test_threads_share_a_client(alice: claudemesh.Mesh) -> None:
    with ThreadPoolExecutor(32) as pool:
        ids = list(pool.map(lambda n: alice.send("bob", f"{n}").client_message_id, range(320)))
    assert len(set(ids)) == 320


def test_each_message_of_many_has_its_own_result(alice: claudemesh.Mesh) -> None:
    messages = [
        claudemesh.Message("bob", "fine", id=ulid()),
        claudemesh.Message("nobody-at-all", "hi"),
        claudemesh.Message("bob", "x" * (9 << 20)),
        claudemesh.Message("bob", "hi", priority="urgent"),  # type: ignore[arg-type]  # pyright: ignore
        claudemesh.Message("bob", "fine too"),
    ]
    results = alice.send_many(messages)
    codes = [result.error.code if result.error else None for result in results]
    assert codes == [None, "unknown_peer", "payload_too_large", "invalid_argument", None]
    assert results[0].id == messages[0].id
    for result in results:
        assert result.id == (result.error.client_message_id if result.error else result.response.client_message_id)  # type: ignore[union-attr]  # pyright: ignore


def test_a_large_message_does_not_harm_the_small_one_before_it(alice: claudemesh.Mesh) -> None:
    messages = [claudemesh.Message("bob", "x" * 500_000), claudemesh.Message("bob", "y" * (8_300_000))]
    fine, refused = alice.send_many(messages)
    assert fine.error is None
    assert type(refused.error) is errors.PayloadTooLarge


def test_an_error_holds_what_the_daemon_said(alice: claudemesh.Mesh) -> None:
    with pytest.raises(errors.UnknownPeer) as raised:
        alice.send("bobb", "hi")
    error = raised.value
    assert (error.code, error.grpc_code, error.retryable) == ("unknown_peer", 5, False)
    assert [candidate.name for candidate in error.candidates] == ["bob"]
    assert len(error.client_message_id) == 26
    with pytest.raises(errors.SendNotFound):
        alice.get_send(ulid())


def test_the_same_send_again_is_one_message(alice: claudemesh.Mesh, bob: claudemesh.Mesh) -> None:
    message_id = ulid()
    alice.send("bob", "once", id=message_id, wait="delivered")
    again = alice.send("bob", "once", id=message_id, wait="delivered")
    assert (again.duplicate, again.status) == (True, SendStatus.SEND_STATUS_DELIVERED)
    assert sum(m.client_message_id == message_id for m in bob.inbox(newest_first=True, limit=500)) == 1
    with pytest.raises(errors.OutboxDoneFingerprintMismatch):
        alice.send("bob", "another", id=message_id)


@pytest.mark.parametrize("wait", ["accepted", "delivered"])
def test_waiting_ends_when_it_is_reached(alice: claudemesh.Mesh, wait: Any) -> None:
    assert alice.send("bob", "hi", wait=wait).broker_message_id


@pytest.mark.parametrize(
    "call",
    [
        lambda mesh: mesh.send("bob", "hi", timeout=0),
        lambda mesh: mesh.send("bob", "hi", wait="read"),
        lambda mesh: mesh.post("ops", "hi", wait="delivered"),
        lambda mesh: mesh.events(types=["nonsense"]),
        lambda mesh: mesh.events(after="x", from_start=True),
        lambda mesh: mesh.peers(roles=["king"]),
        lambda mesh: mesh.profile(status="busy"),
        lambda mesh: mesh.inbox(limit=-1),
        lambda mesh: mesh.send("bob", 7),
    ],
)
def test_wrong_arguments_are_refused_here(alice: claudemesh.Mesh, call: Callable[[Any], Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        call(alice)


def test_topics_and_posts(alice: claudemesh.Mesh, bob: claudemesh.Mesh) -> None:
    """Covers: R328."""
    name = f"t{ulid().lower()}"
    created = alice.topics.create(name, description="for a test")
    assert (created.name, created.subscribed) == (name, True)
    with pytest.raises(errors.TopicExists):
        alice.topics.create(name)
    assert bob.topics.subscribe(name).subscribed
    with bob.events(types=["message"], topic=name) as events:
        next(events)
        alice.post(name, "hello", mentions=["bob"], wait="accepted")
        assert next(events).value.body == "hello"
    assert name in [topic.name for topic in bob.topics.list(subscribed_only=True)]
    assert bob.topics.unsubscribe(name)
    assert not bob.topics.unsubscribe(name)


def test_peers_and_profile(alice: claudemesh.Mesh, bob: claudemesh.Mesh) -> None:
    summary = ulid()
    assert bob.profile(summary=summary, status="working").summary == summary
    assert eventually(lambda: any(peer.summary == summary for peer in alice.peers(include_offline=True)))
    assert {peer.display_name for peer in alice.peers(include_offline=True)} == {"alice", "bob"}


def test_a_daemon_is_asked_over_tcp(shared: DevMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy of the environment must not see a token.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    with shared["alice"].connect(tcp=True) as mesh:
        assert mesh.send("bob", "over tcp").client_message_id
        assert mesh.raw.control.GetVersion(GetVersionRequest(), timeout=5).ipc_api == "v1"
        with mesh.events() as events:
            assert next(events).kind == "caught_up"


def test_a_token_that_changes_is_read_again(shared: DevMesh, tmp_path: Path) -> None:
    """Covers: R113, R331."""
    alice = shared["alice"]
    token = tmp_path / "token"
    with claudemesh.connect(address=alice.address, token_file=token) as mesh:
        with pytest.raises(errors.Unauthenticated, match="token"):
            mesh.health()
        token.write_text("wrong\n")
        with pytest.raises(errors.Unauthenticated):
            mesh.send("bob", "hi")
        with mesh.events() as events, pytest.raises(errors.Unauthenticated):
            next(events)
        token.write_text(Path(alice.token_file).read_text())
        assert mesh.send("bob", "hi").client_message_id
        assert mesh.health().mesh == "dev"


def test_no_daemon_is_told_at_once(tmp_path: Path) -> None:
    with claudemesh.connect(socket=tmp_path / "sock") as mesh:
        start = time.monotonic()
        for call in (mesh.health, lambda: mesh.send("bob", "hi"), lambda: next(mesh.events())):
            with pytest.raises(errors.DaemonNotRunning):
                call()
        assert time.monotonic() - start < 3
        with pytest.raises(errors.DaemonNotRunning) as raised:
            mesh.send("bob", "hi", id="mine")
        assert raised.value.client_message_id == "mine"


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A socket that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        yield tmp_path / "sock"


def test_a_peer_that_says_nothing_is_no_daemon(silent: Path) -> None:
    with claudemesh.connect(socket=silent) as mesh:
        for call in (lambda: mesh.health(timeout=0.5), lambda: mesh.send("bob", "hi", timeout=0.5)):
            start = time.monotonic()
            with pytest.raises(errors.DaemonNotRunning):
                call()
            assert 0.4 < time.monotonic() - start < 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a socket of another user")
def test_a_socket_of_another_user_is_refused(silent: Path) -> None:
    os.chown(silent, 12345, 12345)
    with claudemesh.connect(socket=silent) as mesh, pytest.raises(errors.PermissionDenied):
        mesh.health()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may open every socket")
def test_a_socket_that_may_not_be_opened_is_refused(silent: Path) -> None:
    silent.chmod(0)
    with claudemesh.connect(socket=silent) as mesh, pytest.raises(errors.PermissionDenied):
        mesh.health()


def test_a_paused_daemon_ends_the_call_in_time_and_takes_it_once(mesh: DevMesh) -> None:
    alice, bob = mesh.clients()
    alice.wait_ready(connected=True)
    mesh.pause("alice")
    message_id = ulid()
    with pytest.raises(errors.DeadlineExceeded) as raised:
        alice.send("bob", "hi", id=message_id, timeout=0.5)
    assert raised.value.client_message_id == message_id
    with pytest.raises(errors.DeadlineExceeded):
        alice.health(timeout=0.5)
    mesh.resume("alice")
    alice.send("bob", "hi", id=message_id, wait="delivered")
    assert sum(m.client_message_id == message_id for m in bob.inbox()) == 1


def test_a_client_waits_for_the_daemon_to_come_back(mesh: DevMesh) -> None:
    (alice,) = mesh.clients("alice")
    alice.wait_ready(connected=True)
    with alice.events() as events:
        assert next(events).kind == "caught_up"
        mesh.stop("alice")
        with pytest.raises(errors.DaemonNotRunning):
            alice.health(timeout=0.5)
        sending = in_background(lambda: alice.send("bob", "while it was away", timeout=20))
        posting = in_background(lambda: alice.profile(summary="back", timeout=20))
        assert not sending.done()
        mesh.start("alice")
        assert sending.result(20).client_message_id
        assert posting.result(20).summary == "back"
        kinds = iter(event.kind for event in events)
        assert "caught_up" in kinds


def test_a_client_that_is_older_than_the_daemon_waits_for_it(mesh: DevMesh) -> None:
    mesh.stop("bob")
    bob = mesh.client("bob")
    waiting = in_background(lambda: bob.wait_ready(timeout=30, connected=True))
    with pytest.raises(errors.DaemonNotRunning):
        bob.wait_ready(timeout=0.3)
    mesh.start("bob")
    assert waiting.result(30).connected


def test_waiting_for_a_receiver_that_is_away(mesh: DevMesh) -> None:
    (alice,) = mesh.clients("alice")
    mesh.stop("bob")
    start = time.monotonic()
    with pytest.raises(errors.WaitTimeout) as raised:
        alice.send("bob", "hi", wait="delivered", timeout=1.5)
    assert 1 < time.monotonic() - start < 4
    assert alice.get_send(raised.value.client_message_id).status in (
        SendStatus.SEND_STATUS_QUEUED,
        SendStatus.SEND_STATUS_INFLIGHT,
        SendStatus.SEND_STATUS_ACCEPTED,
    )
    later = in_background(lambda: alice.send("bob", "again", wait="delivered", timeout=30))
    mesh.start("bob")
    assert later.result(30).status == SendStatus.SEND_STATUS_DELIVERED


def test_close_ends_what_waits(mesh: DevMesh) -> None:
    alice = mesh["alice"].connect()
    alice.wait_ready()
    events = alice.events()
    next(events)
    mesh.pause("alice")
    calls = [
        in_background(lambda: alice.send("bob", "hi", timeout=30)),
        in_background(lambda: alice.health(timeout=30)),
    ]
    iteration = in_background(lambda: list(events))
    time.sleep(0.2)
    alice.close()
    for call in calls:
        assert type(call.exception(5)) is errors.ClientClosed
    assert iteration.result(5) == []
    with pytest.raises(errors.ClientClosed):
        alice.health()
    with pytest.raises(errors.ClientClosed):
        alice.events()
    alice.close()
    mesh.resume("alice")


def test_closing_events_ends_a_wait_in_another_thread(alice: claudemesh.Mesh) -> None:
    events = alice.events()
    next(events)
    waiting = in_background(lambda: list(events))
    events.close()
    assert waiting.result(5) == []
    assert alice.health().mesh == "dev"


def test_a_forked_child_is_told(alice: claudemesh.Mesh) -> None:
    alice.send("bob", "before")
    events = alice.events()
    next(events)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        codes = []
        calls: list[Callable[[], object]] = [
            lambda: alice.send("bob", "child"),
            alice.health,
            lambda: next(events),
            lambda: list(alice.inbox()),
            lambda: alice.raw,
        ]
        for call in calls:
            try:
                call()
                codes.append("no error")
            except BaseException as error:
                codes.append(getattr(error, "code", repr(error)))
        alice.close()
        os.write(writer, " ".join(map(str, codes)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read().split() == ["client_forked"] * 5
    os.waitpid(child, 0)
    assert alice.send("bob", "after").client_message_id
    events.close()


def test_nothing_is_left_running(shared: DevMesh) -> None:
    def own() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("claudemesh-sends")}

    with shared["alice"].connect() as mesh:
        mesh.send("bob", "hi")
        assert own()
    assert eventually(lambda: not own(), 5)
    # An idle stream is given up, and opened again when it is needed.
    with shared["alice"].connect() as mesh:
        mesh.send("bob", "hi")
        assert eventually(lambda: not own(), 10)
        mesh.send("bob", "hi again")
