"""Messages and events while the daemons end and start again ten times."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import claudemesh
from claudemesh.testing import DevMesh

MESSAGES = int(os.environ.get("CLAUDEMESH_SOAK_MESSAGES") or 2000)
CALLERS = 16
ENDS = 10


class Ender(threading.Thread):
    """Ends and starts daemons in turn, spread over the sends."""

    def __init__(self, dev: DevMesh) -> None:
        super().__init__(daemon=True)
        self._dev = dev
        self._sent = threading.Semaphore(0)
        self.error: BaseException | None = None

    def count(self) -> None:
        self._sent.release()

    def run(self) -> None:
        try:
            for turn in range(ENDS):
                for _ in range(MESSAGES // (ENDS + 1)):
                    self._sent.acquire()
                member = ("alice", "bob")[turn % 2]
                if turn % 4 < 2:
                    self._dev.kill(member)
                    self._dev.start(member)
                else:
                    self._dev.restart(member)
        except BaseException as error:
            self.error = error


def check(texts: list[str], ids: list[str]) -> None:
    """Nothing is lost and nothing repeated."""
    counts = Counter(texts)
    assert [text for text, count in counts.items() if count > 1] == []
    assert sorted(counts, key=int) == [str(number) for number in range(MESSAGES)]
    assert len(set(ids)) == MESSAGES


def test_blocking(mesh: DevMesh) -> None:
    """Covers: R328. Callers notice nothing of a restart but its time."""
    alice, bob = mesh.clients()
    ender = Ender(mesh)
    texts: list[str] = []

    def follow() -> None:
        with bob.events(from_start=True, types=["message"]) as events:
            for event in events:
                if event.kind == "message":
                    texts.append(event.value.body)
                if len(texts) >= MESSAGES:
                    return

    def send(number: int) -> str:
        sent = alice.send("bob", str(number), timeout=60)
        ender.count()
        return sent.client_message_id

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    ender.start()
    with ThreadPoolExecutor(CALLERS) as pool:
        ids = list(pool.map(send, range(MESSAGES)))
    ender.join(120)
    assert ender.error is None
    follower.join(60 + MESSAGES / 50)
    assert not follower.is_alive(), f"{len(texts)} of {MESSAGES} came"
    check(texts, ids)
    check([message.body for message in bob.inbox()], ids)


def test_asyncio(mesh: DevMesh) -> None:
    """Covers: R328. The same for asyncio."""

    async def main() -> None:
        ender = Ender(mesh)
        texts: list[str] = []
        numbers = iter(range(MESSAGES))
        ids: list[str] = []
        async with mesh["alice"].connect_async() as alice, mesh["bob"].connect_async() as bob:

            async def follow() -> None:
                async with bob.events(from_start=True, types=["message"]) as events:
                    async for event in events:
                        if event.kind == "message":
                            texts.append(event.value.body)
                        if len(texts) >= MESSAGES:
                            return

            async def send() -> None:
                for number in numbers:
                    ids.append((await alice.send("bob", str(number), timeout=60)).client_message_id)
                    ender.count()

            following = asyncio.create_task(follow())
            ender.start()
            await asyncio.gather(*[send() for _ in range(CALLERS)])
            await asyncio.to_thread(ender.join, 120)
            assert ender.error is None
            await asyncio.wait_for(following, 60 + MESSAGES / 50)
        check(texts, ids)

    asyncio.run(main())


def test_lists(mesh: DevMesh) -> None:
    """A list of messages keeps its order over a daemon that is killed in the middle."""
    alice, bob = mesh.clients()
    number = min(MESSAGES, 2000)
    messages = [claudemesh.Message("bob", str(n)) for n in range(number)]
    ended = threading.Event()

    def end() -> None:
        # In the middle of the list, as far as the sender's daemon tells.
        while alice.health(timeout=60).uptime_s > 1000:
            pass
        for _ in range(3):
            mesh.kill("alice")
            mesh.start("alice")
        ended.set()

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    results = alice.send_many(messages, timeout=120)
    assert [result.error for result in results if result.error] == []
    assert ended.wait(60)
    with bob.events(from_start=True, types=["message"]) as events:
        bodies: list[str] = []
        for event in events:
            if event.kind == "message":
                bodies.append(event.value.body)
            if len(bodies) == number:
                break
    assert bodies == [str(n) for n in range(number)]
