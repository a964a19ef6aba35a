"""What is seen of a client, and what it says, at a server that is not a daemon."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

import claudemesh
import claudemesh.aio
from claudemesh.v1.control_pb2 import GetHealthResponse, GetVersionResponse
from claudemesh.v1.control_pb2_grpc import ControlServiceServicer, add_ControlServiceServicer_to_server
from claudemesh.v1.messaging_pb2 import SendResponse, SendStreamResponse
from claudemesh.v1.messaging_pb2_grpc import MessagingServiceServicer, add_MessagingServiceServicer_to_server


class Peer(ControlServiceServicer, MessagingServiceServicer):
    """Keeps the trace contexts that come."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def GetVersion(self, request: Any, context: Any) -> GetVersionResponse:
        return GetVersionResponse(ipc_api="v1", ipc_features=["send", "health"], daemon_version="0.1.2")

    def GetHealth(self, request: Any, context: Any) -> GetHealthResponse:
        self.seen.append(dict(context.invocation_metadata()).get("traceparent"))
        return GetHealthResponse()

    def SendStream(self, request_iterator: Any, context: Any) -> Iterator[SendStreamResponse]:
        for message in request_iterator:
            for request in message.batch:
                self.seen.append(dict(request.trace_context).get("traceparent"))
                yield SendStreamResponse(index=request.index, response=SendResponse())


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    server = grpc.server(ThreadPoolExecutor(4))
    served = Peer()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    add_ControlServiceServicer_to_server(served, server)
    add_MessagingServiceServicer_to_server(served, server)
    server.add_insecure_port(f"unix:{tmp_path}/sock")
    server.start()
    yield served
    server.stop(None).wait()


def test_the_context_goes_along(peer: Peer, tmp_path: Path) -> None:
    tracer = TracerProvider().get_tracer("test")
    contexts = []
    with claudemesh.connect(socket=tmp_path / "sock") as mesh:
        for _ in range(2):
            with tracer.start_as_current_span("work") as span:
                contexts += 2 * [f"{span.get_span_context().trace_id:032x}-{span.get_span_context().span_id:016x}"]
                mesh.send("bob", "hi")
                mesh.health()
        mesh.send("bob", "without a span")
    assert [seen and seen[3:52] for seen in peer.seen] == [*contexts, None]


def test_the_context_goes_along_with_asyncio(peer: Peer, tmp_path: Path) -> None:
    tracer = TracerProvider().get_tracer("test")

    async def main() -> list[str]:
        async with claudemesh.aio.connect(socket=tmp_path / "sock") as mesh:

            async def send() -> str:
                with tracer.start_as_current_span("work") as span:
                    await mesh.send("bob", "hi")
                    return f"{span.get_span_context().span_id:016x}"

            return await asyncio.gather(*[send() for _ in range(10)])

    spans = asyncio.run(main())
    assert sorted(spans) == sorted((seen or "").split("-")[2] for seen in peer.seen)


def test_what_the_daemon_lacks_is_told_with_its_version(peer: Peer, tmp_path: Path) -> None:
    """Covers: R330."""
    with claudemesh.connect(socket=tmp_path / "sock") as mesh:
        for call in (mesh.topics.list, mesh.peers, lambda: next(iter(mesh.inbox()))):
            with pytest.raises(claudemesh.errors.NotServed, match=r"0\.1\.2"):
                call()
        assert mesh.send("bob", "what it has still works") is not None


def test_an_application_without_traces_sends_none(peer: Peer, tmp_path: Path) -> None:
    program = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "import claudemesh\n"
        "with claudemesh.connect(socket=sys.argv[1]) as mesh: mesh.send('bob', 'hi'); mesh.health()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "sock")], check=True)
    assert peer.seen == [None, None]
