"""The runner of the conformance suite, see sdk/conformance/README.md.

`conformance_runner.py sync` makes the calls with `claudemesh.connect()`, `async`
with `claudemesh.aio.connect()`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

import claudemesh
import claudemesh.aio
from claudemesh import errors
from claudemesh.v1.control_pb2 import GetVersionRequest

Json = dict[str, Any]
T = TypeVar("T")


def as_json(value: Any) -> Any:
    """A result as the suite reads it."""
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True)
    if isinstance(value, claudemesh.Event):
        event = as_json(value.raw)
        data = {"kind": value.kind, "event_id": value.event_id, "time": event.get("time")}
        return data if value.value is None else {**data, "value": as_json(value.value)}
    if isinstance(value, claudemesh.SendResult):
        outcome = {"error": error_json(value.error)} if value.error else {"response": as_json(value.response)}
        return {"id": value.id, **outcome}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, bool):
        return {"was_subscribed": value}
    return {} if value is None else value


def error_json(error: BaseException) -> Json:
    if not isinstance(error, claudemesh.ClaudemeshError):
        return {"unexpected": repr(error)}
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "retry_after": error.retry_after,
        "grpc_code": error.grpc_code,
        "client_message_id": error.client_message_id,
        "metadata": error.metadata,
        "candidates": as_json(error.candidates),
        "field_violations": as_json(error.field_violations),
        "url": error.url,
        "type": next((code for code, kind in errors.CODES.items() if isinstance(error, kind)), ""),
    }


def call(client: Any, op: str, args: Json) -> Any:
    """Makes a call; with the client for asyncio the result is to be awaited."""
    args = dict(args)
    if op in ("send", "post"):
        return getattr(client, op)(args.pop("to" if op == "send" else "topic"), args.pop("text"), **args)
    if op == "send_many":
        return client.send_many([claudemesh.Message(**message) for message in args.pop("messages")], **args)
    if op == "get_send":
        return client.get_send(args.pop("id"), **args)
    if op == "raw":
        return client.raw.control.GetVersion(GetVersionRequest(), timeout=10)
    if op.startswith("topics."):
        names = [args.pop("name")] if "name" in args else []
        return getattr(client.topics, op.removeprefix("topics."))(*names, **args)
    if op == "inbox":
        if "since" in args:
            args["since"] = datetime.fromisoformat(args["since"].replace("Z", "+00:00"))
        return client.inbox(**args)
    if op in ("peers", "profile", "health", "version", "wait_ready", "close"):
        return getattr(client, op)(**args)
    raise ValueError(f"no such call: {op}")


def forked(client: Any, request: Json) -> Json:
    """What a call gives in a child of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            value = call(client, request["args"]["op"], request["args"].get("args", {}))
            if asyncio.iscoroutine(value):
                value = asyncio.new_event_loop().run_until_complete(value)
            text = json.dumps({"result": as_json(value)})
        except BaseException as error:
            text = json.dumps({"error": error_json(error)})
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer: Json = json.loads(file.read())
    os.waitpid(child, 0)
    return answer


class Answers:
    """Standard output, a line for each answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, answer: Json) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    def ready(self, runner: str) -> None:
        self.write({"ready": True, "runner": runner, "version": claudemesh.__version__})


class SyncRunner:
    """A thread for each request."""

    def __init__(self) -> None:
        self._answers = Answers()
        self._clients: dict[str, claudemesh.Mesh] = {}
        self._streams: dict[tuple[str, str], claudemesh.Events | Refused] = {}
        self._waiting: dict[tuple[str, str], Future[Any]] = {}

    def run(self) -> None:
        self._answers.ready("python-sync")
        for line in sys.stdin:
            request = json.loads(line)
            if request["op"] == "connect":
                self._answer(request)
            else:
                threading.Thread(target=self._answer, args=(request,), daemon=True).start()
        for client in self._clients.values():
            client.close()

    def _answer(self, request: Json) -> None:
        try:
            answer = self._result(request)
        except Exception as error:
            answer = {"error": error_json(error)}
        self._answers.write({"id": request["id"], **answer})

    def _result(self, request: Json) -> Json:
        op, args = request["op"], request.get("args", {})
        if op == "connect":
            self._clients[request["client"]] = claudemesh.connect(**args)
            return {"result": {}}
        if op == "cancel":
            raise NotImplementedError("a blocking call cannot be cancelled")
        client = self._clients[request["client"]]
        if op == "fork":
            return forked(client, request)
        if op == "events.open":
            filters = {name: value for name, value in args.items() if name != "stream"}
            self._streams[request["client"], args["stream"]] = opened(lambda: client.events(**filters))
            return {"result": {}}
        if op == "events.close":
            self._streams[request["client"], args["stream"]].close()
            return {"result": {}}
        if op == "events.next":
            return {"result": self._next((request["client"], args["stream"]), args.get("timeout"))}
        value = call(client, op, args)
        return {"result": as_json(list(value) if op == "inbox" else value)}

    def _next(self, name: tuple[str, str], timeout: float | None) -> Any:
        waiting = self._waiting.pop(name, None)
        if waiting is None:
            waiting = in_thread(lambda: next(self._streams[name], None))
        try:
            event = waiting.result(timeout)
        except FutureTimeout:
            self._waiting[name] = waiting
            return {"timeout": True}
        return {"ended": True} if event is None else as_json(event)


class Refused:
    """An iteration that was refused when it was made; the suite looks for the error at its first step."""

    def __init__(self, error: claudemesh.ClaudemeshError) -> None:
        self._error = error

    def __next__(self) -> claudemesh.Event:
        raise self._error

    async def __anext__(self) -> claudemesh.Event:
        raise self._error

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def opened(make: Callable[[], T]) -> T | Refused:
    try:
        return make()
    except claudemesh.ClaudemeshError as error:
        return Refused(error)


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class AsyncRunner:
    """A task for each request."""

    def __init__(self) -> None:
        self._answers = Answers()
        self._clients: dict[str, claudemesh.aio.AsyncMesh] = {}
        self._streams: dict[tuple[str, str], claudemesh.aio.AsyncEvents | Refused] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        self._answers.ready("python-async")
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            if request["op"] == "connect":
                await self._answer(request)
            else:
                self._tasks[request["id"]] = asyncio.create_task(self._answer(request))
        for client in self._clients.values():
            await client.close()

    async def _answer(self, request: Json) -> None:
        try:
            answer = await self._result(request)
        except asyncio.CancelledError:
            # The language's own way to say it; the code is the one of the contract.
            answer = {"error": error_json(errors.Cancelled("the task was cancelled"))}
        except Exception as error:
            answer = {"error": error_json(error)}
        self._answers.write({"id": request["id"], **answer})

    async def _result(self, request: Json) -> Json:
        op, args = request["op"], request.get("args", {})
        if op == "connect":
            self._clients[request["client"]] = claudemesh.aio.connect(**args)
            return {"result": {}}
        if op == "cancel":
            self._tasks[args["call"]].cancel()
            return {"result": {}}
        client = self._clients[request["client"]]
        if op == "fork":
            return forked(client, request)
        if op == "events.open":
            filters = {name: value for name, value in args.items() if name != "stream"}
            self._streams[request["client"], args["stream"]] = opened(lambda: client.events(**filters))
            return {"result": {}}
        if op == "events.close":
            await self._streams[request["client"], args["stream"]].aclose()
            return {"result": {}}
        if op == "events.next":
            return {"result": await self._next((request["client"], args["stream"]), args.get("timeout"))}
        value = call(client, op, args)
        return {"result": as_json([item async for item in value] if op == "inbox" else await value)}

    async def _next(self, name: tuple[str, str], timeout: float | None) -> Any:
        following: Coroutine[Any, Any, claudemesh.Event] = self._streams[name].__anext__()
        try:
            return as_json(await asyncio.wait_for(following, timeout))
        except asyncio.TimeoutError:
            return {"timeout": True}
        except StopAsyncIteration:
            return {"ended": True}


if __name__ == "__main__":
    if sys.argv[1] == "sync":
        SyncRunner().run()
    else:
        asyncio.run(AsyncRunner().run())
