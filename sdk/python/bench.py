"""What the thin layer costs beside the generated client, against a real daemon.

With one caller `send` may take 10 % longer than a unary call of the generated
client; with 64 callers it has to get at least 1.5 times as many messages
through, since they share a stream. Rounds of both alternate, and the median of their ratios counts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import claudemesh
import claudemesh.aio
from claudemesh._ulid import ulid
from claudemesh.testing import DevMesh
from claudemesh.v1.messaging_pb2 import SendRequest

GREATEST_OVERHEAD = 1.10
LEAST_GAIN = 1.5


def request() -> SendRequest:
    return SendRequest(to="bob", message="hello", client_message_id=ulid())


def blocking(mesh: claudemesh.Mesh, sends: int) -> dict[str, Callable[[int], float]]:
    def timed(send: Callable[[], object]) -> Callable[[int], float]:
        def run(callers: int) -> float:
            with ThreadPoolExecutor(callers) as pool:
                start = time.perf_counter()
                list(pool.map(lambda _: [send() for _ in range(sends // callers)], range(callers)))
                return (time.perf_counter() - start) / (sends // callers * callers)

        return run

    raw = mesh.raw.messaging
    return {
        "raw": timed(lambda: raw.Send(request(), timeout=10)),
        "send": timed(lambda: mesh.send("bob", "hello")),
    }


async def asynchronous(member_sock: str, sends: int, rounds: int, callers: int) -> dict[str, list[float]]:
    async with claudemesh.aio.connect(socket=member_sock) as mesh:
        raw = mesh.raw.messaging

        async def raw_send() -> None:
            await raw.Send(request(), timeout=10)

        async def send() -> None:
            await mesh.send("bob", "hello")

        async def timed(call: Callable[[], Awaitable[None]]) -> float:
            async def several() -> None:
                for _ in range(sends // callers):
                    await call()

            start = time.perf_counter()
            await asyncio.gather(*[several() for _ in range(callers)])
            return (time.perf_counter() - start) / (sends // callers * callers)

        times: dict[str, list[float]] = {"raw": [], "send": []}
        for _ in range(rounds):
            times["raw"].append(await timed(raw_send))
            times["send"].append(await timed(send))
        return times


def judge(name: str, callers: int, times: dict[str, list[float]]) -> bool:
    """Prints what the rounds after the first gave, and tells whether it holds."""
    raw, send = (statistics.median(times[kind][1:]) for kind in ("raw", "send"))
    # Of each pair by itself, since the machine may be busy with other things for a while.
    gain = statistics.median(
        of_raw / of_send for of_raw, of_send in zip(times["raw"][1:], times["send"][1:], strict=True)
    )
    good = gain >= (1 / GREATEST_OVERHEAD if callers == 1 else LEAST_GAIN)
    print(
        f"{name:6} {callers:3} callers  raw {raw * 1e6:7.0f} us  send {send * 1e6:7.0f} us  "
        f"{gain:5.2f} x raw  {'ok' if good else 'MISSED'}"
    )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sends", type=int, default=1280, help="messages of a round")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    good = True
    with DevMesh() as dev:
        # Without a link only this host is measured.
        dev.cut("alice")
        for callers in (1, 64):
            kinds = blocking(dev.client("alice"), options.sends)
            times: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(options.rounds):
                for kind, run in kinds.items():
                    times[kind].append(run(callers))
            good &= judge("sync", callers, times)
            times = asyncio.run(asynchronous(dev["alice"].sock, options.sends, options.rounds, callers))
            good &= judge("async", callers, times)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
