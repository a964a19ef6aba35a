"""The client for asyncio against real daemons: what differs from the blocking one."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import claudemesh
import claudemesh.aio
from claudemesh import errors
from claudemesh._ulid import ulid
from claudemesh.aio import AsyncMesh
from claudemesh.testing import DevMesh
from claudemesh.v1.common_pb2 import SendStatus
from claudemesh.v1.control_pb2 import GetVersionRequest
from conftest import eventually


def run(dev: DevMesh, test: Callable[[AsyncMesh, AsyncMesh], Awaitable[None]]) -> None:
    """Runs a test with clients of alice and bob."""

    async def main() -> None:
        async with dev["alice"].connect_async() as alice, dev["bob"].connect_async() as bob:
            await test(alice, bob)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_all_calls(mesh: DevMesh) -> None:
    async def test(alice: AsyncMesh, bob: AsyncMesh) -> None:
        assert (await alice.wait_ready(connected=True)).mesh == "dev"
        assert (await alice.version()).ipc_api == "v1"
        assert (await alice.raw.control.GetVersion(GetVersionRequest(), timeout=5)).ipc_api == "v1"
        text = ulid()
        async with bob.events(types=["message"]) as events:
            assert (await anext(events)).kind == "caught_up"
            sent = await alice.send("bob", text, wait="delivered")
            assert sent.status == SendStatus.SEND_STATUS_DELIVERED
            assert (await anext(events)).value.body == text
        assert [m.body async for m in bob.inbox(newest_first=True, limit=1)] == [text]
        assert (await alice.get_send(sent.client_message_id)).HasField("delivered_at")
        results = await alice.send_many([claudemesh.Message("bob", f"{n}") for n in range(300)], timeout=60)
        assert all(result.response for result in results)
        name = f"t{ulid().lower()}"
        await alice.topics.create(name)
        assert (await bob.topics.subscribe(name)).subscribed
        await alice.post(name, "hello", wait="accepted")
        assert name in [topic.name for topic in await bob.topics.list(subscribed_only=True)]
        assert await bob.topics.unsubscribe(name)
        assert (await alice.profile(summary=text)).summary == text
        assert len(await alice.peers(include_offline=True)) == 2
        with pytest.raises(errors.UnknownPeer) as raised:
            await alice.send("nobody-at-all", "hi")
        assert raised.value.client_message_id

    run(mesh, test)


def test_tasks_share_a_client(shared: DevMesh) -> None:
    async def test(alice: AsyncMesh, _: AsyncMesh) -> None:
        sent = await asyncio.gather(*[alice.send("bob", f"{n}", timeout=30) for n in range(500)])
        assert len({response.client_message_id for response in sent}) == 500

    run(shared, test)


def test_over_tcp(shared: DevMesh) -> None:
    async def main() -> None:
        async with shared["alice"].connect_async(tcp=True) as mesh:
            assert (await mesh.send("bob", "over tcp")).client_message_id
            assert (await mesh.raw.control.GetVersion(GetVersionRequest(), timeout=5)).ipc_api == "v1"
            async with mesh.events() as events:
                assert (await anext(events)).kind == "caught_up"

    asyncio.run(main())


def test_a_cancelled_task_harms_nobody_else(mesh: DevMesh) -> None:
    async def test(alice: AsyncMesh, bob: AsyncMesh) -> None:
        await alice.wait_ready(connected=True)
        await alice.send("bob", "first")
        mesh.pause("alice")
        message_id = ulid()
        cancelled = asyncio.create_task(alice.send("bob", "cancelled", id=message_id, timeout=30))
        other = asyncio.create_task(alice.send("bob", "other", timeout=30))
        health = asyncio.create_task(alice.health(timeout=30))
        await asyncio.sleep(0.2)
        cancelled.cancel()
        health.cancel()
        for task in (cancelled, health):
            with pytest.raises(asyncio.CancelledError):
                await task
        mesh.resume("alice")
        assert (await other).client_message_id
        await alice.send("bob", "cancelled", id=message_id, wait="delivered")
        assert len([m async for m in bob.inbox() if m.client_message_id == message_id]) == 1

    run(mesh, test)


def test_each_send_has_its_own_time(mesh: DevMesh) -> None:
    async def test(alice: AsyncMesh, _: AsyncMesh) -> None:
        await alice.send("bob", "first")
        mesh.pause("alice")

        async def late(timeout: float) -> float:
            start = time.monotonic()
            with pytest.raises(errors.DeadlineExceeded):
                await alice.send("bob", "late", timeout=timeout)
            return time.monotonic() - start

        timeouts = [0.9, 0.3, 0.6, 0.301]
        patient = asyncio.create_task(alice.send("bob", "patient", timeout=30))
        for timeout, took in zip(timeouts, await asyncio.gather(*map(late, timeouts)), strict=True):
            assert timeout <= took < timeout + 1
        mesh.resume("alice")
        assert (await patient).client_message_id

    run(mesh, test)


def test_a_cancelled_wait_for_an_event_loses_none(mesh: DevMesh) -> None:
    async def test(alice: AsyncMesh, bob: AsyncMesh) -> None:
        async with bob.events(types=["message"]) as events:
            assert (await anext(events)).kind == "caught_up"
            for n in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(events), 0.05)
                await alice.send("bob", f"{n}", wait="delivered")
                event = await anext(events)
                assert (event.kind, event.value.body) == ("message", f"{n}")

    run(mesh, test)


def test_close_ends_what_waits(mesh: DevMesh) -> None:
    async def main() -> None:
        alice = mesh["alice"].connect_async()
        await alice.wait_ready()
        events = alice.events()
        await anext(events)
        mesh.pause("alice")

        async def all_events() -> list[claudemesh.Event]:
            return [event async for event in events]

        iteration = asyncio.create_task(all_events())
        calls = [
            asyncio.create_task(alice.send("bob", "hi", timeout=30)),
            asyncio.create_task(alice.health(timeout=30)),
        ]
        await asyncio.sleep(0.2)
        await alice.close()
        for call in calls:
            with pytest.raises(errors.ClientClosed):
                await asyncio.wait_for(call, 5)
        assert await asyncio.wait_for(iteration, 5) == []
        with pytest.raises(errors.ClientClosed):
            await alice.health()
        await alice.close()

    asyncio.run(main())
    mesh.resume("alice")


def test_close_ends_a_send_that_just_began(shared: DevMesh) -> None:
    async def main() -> None:
        alice = shared["alice"].connect_async()
        with pytest.raises(errors.SendNotFound):
            await alice.get_send(ulid())
        sending = asyncio.create_task(alice.send("bob", "hi", timeout=30))
        closing = asyncio.create_task(alice.close())
        with pytest.raises(errors.ClientClosed):
            await asyncio.wait_for(sending, 5)
        await closing

    asyncio.run(main())


def test_closing_events_ends_a_wait_in_another_task(shared: DevMesh) -> None:
    async def test(alice: AsyncMesh, _: AsyncMesh) -> None:
        events = alice.events()
        await anext(events)

        async def all_events() -> list[claudemesh.Event]:
            return [event async for event in events]

        iteration = asyncio.create_task(all_events())
        await asyncio.sleep(0.1)
        await events.aclose()
        assert await asyncio.wait_for(iteration, 5) == []
        assert (await alice.health()).mesh == "dev"

    run(shared, test)


def test_the_daemon_comes_back(mesh: DevMesh) -> None:
    async def test(alice: AsyncMesh, _: AsyncMesh) -> None:
        await alice.wait_ready(connected=True)
        async with alice.events() as events:
            assert (await anext(events)).kind == "caught_up"
            mesh.stop("alice")
            with pytest.raises(errors.DaemonNotRunning):
                await alice.health(timeout=0.5)
            sending = asyncio.create_task(alice.send("bob", "while it was away", timeout=20))
            await asyncio.to_thread(mesh.start, "alice")
            assert (await sending).client_message_id
            async for event in events:
                if event.kind == "caught_up":
                    break

    run(mesh, test)


def test_no_daemon_and_a_silent_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with claudemesh.aio.connect(socket=tmp_path / "absent") as mesh:
            for call in (mesh.health(), mesh.send("bob", "hi"), anext(mesh.events())):
                with pytest.raises(errors.DaemonNotRunning):
                    await asyncio.wait_for(call, 5)
        async with claudemesh.aio.connect(socket=tmp_path / "sock") as mesh:
            for call in (mesh.health(timeout=0.5), mesh.send("bob", "hi", timeout=0.5)):
                start = time.monotonic()
                with pytest.raises(errors.DaemonNotRunning):
                    await call
                assert 0.4 < time.monotonic() - start < 3

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        asyncio.run(main())


def test_a_client_belongs_to_one_loop(shared: DevMesh) -> None:
    client = shared["alice"].connect_async()
    asyncio.run(_health(client))
    with pytest.raises(errors.InvalidArgument, match="event loop"):
        asyncio.run(_health(client))


async def _health(client: AsyncMesh) -> Any:
    return await client.health()


def test_an_idle_stream_is_given_up_and_opened_again(shared: DevMesh) -> None:
    async def test(alice: AsyncMesh, _: AsyncMesh) -> None:
        await alice.send("bob", "hi")
        loop = asyncio.get_running_loop()

        def own() -> list[str]:
            names = [task.get_name() for task in asyncio.all_tasks(loop)]
            return [name for name in names if name.startswith("claudemesh-sends")]

        assert own()
        assert await asyncio.to_thread(eventually, lambda: not own(), 10)
        await alice.send("bob", "hi again")

    run(shared, test)
