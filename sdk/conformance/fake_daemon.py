"""A stand-in for a daemon that shows what a real one does not; README.md describes it.

Commands come as JSON lines on standard input and are answered on standard output:
{"id": 1, "do": "new", "dir": ..., "fake": {...}} makes one and gives its place,
{"id": 2, "do": "seen", "fake": 1} and the like speak to it, {"do": "end"} ends it.
"""

import asyncio
import json
import os
import pathlib
import sys
import time

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

import protos

FEATURES = ["send", "topic", "inbox", "peers", "profile", "events", "health"]
KEY = "ab" * 32
# Clients ping every 10 s, which grpc's server takes for an attack by default.
OPTIONS = [
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.max_send_message_length", 8 << 20),
]


class Relay:
    """Stands before the server, so that connections can be cut, stalled or left unanswered."""

    def __init__(self, fake, backend):
        self.fake, self.backend = fake, backend
        self.transports, self.tasks = set(), set()
        self.listener = None

    async def open(self, **place):
        if "path" in place:
            self.listener = await asyncio.start_unix_server(self.serve, **place)
            os.chmod(place["path"], 0o600)
        else:
            self.listener = await asyncio.start_server(self.serve, **place)
        return self.listener.sockets[0].getsockname()

    async def serve(self, reader, writer):
        self.fake.connections += 1
        self.transports.add(writer.transport)
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            if self.fake.conf["connections"] == "silent":
                while await reader.read(1 << 16):
                    pass
                return
            back_reader, back_writer = await asyncio.open_unix_connection(self.backend)
            self.transports.add(back_writer.transport)
            number = self.fake.connections
            await asyncio.gather(self.pump(number, reader, back_writer), self.pump(number, back_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self.tasks.discard(task)

    async def pump(self, number, reader, writer):
        while data := await reader.read(1 << 16):
            while number <= self.fake.stalled:
                await asyncio.sleep(0.02)
            writer.write(data)
            await writer.drain()
        writer.close()

    def cut(self):
        for transport in self.transports:
            transport.abort()
        self.transports.clear()

    async def close(self):
        if self.listener:
            self.listener.close()
        self.cut()
        for task in list(self.tasks):
            task.cancel()


class Break(Exception):
    """The connections were cut instead of an answer."""


class Fake:
    def __init__(self, directory, conf):
        self.dir = pathlib.Path(directory)
        self.conf = {
            "ipc_api": "v1",
            "ipc_features": FEATURES,
            "daemon_version": "0.9.0",
            "token": "secret",
            "connections": "serve",
            "rules": [],
        }
        self.set(conf)
        self.calls = []
        self.connections = 0
        self.streams = self.open_streams = 0
        # Connections up to this number are stalled.
        self.stalled = 0
        self.sends = {}
        self.servers, self.relays = [], []
        self.port = None

    def set(self, conf):
        unknown = set(conf) - set(self.conf)
        if unknown:
            raise ValueError(f"unknown settings of the fake daemon: {sorted(unknown)}")
        self.conf.update(json.loads(json.dumps(conf)))

    async def new(self):
        token_file = self.dir / "token"
        token_file.write_text(self.conf["token"] + "\n")
        token_file.chmod(0o600)
        for name in ("unix", "tcp"):
            server = aio.server(options=OPTIONS, maximum_concurrent_rpcs=None)
            services = {}
            for method in protos.METHODS.values():
                handler = self.handler(method, checks_token=name == "tcp")
                services.setdefault(method.containing_service.full_name, {})[method.name] = handler
            for service, handlers in services.items():
                server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
            backend = str(self.dir / f"backend-{name}")
            server.add_insecure_port(f"unix:{backend}")
            await server.start()
            self.servers.append(server)
            self.relays.append(Relay(self, backend))
        await self.start()
        return {
            "name": "fake",
            "socket": str(self.dir / "sock"),
            "address": f"127.0.0.1:{self.port}",
            "token_file": str(token_file),
            "home": str(self.dir),
            "pubkey": KEY,
            "member_id": "fake",
        }

    async def start(self):
        (self.dir / "sock").unlink(missing_ok=True)
        await self.relays[0].open(path=str(self.dir / "sock"))
        place = await self.relays[1].open(host="127.0.0.1", port=self.port or 0)
        self.port = place[1]

    async def stop(self):
        for relay in self.relays:
            await relay.close()
        (self.dir / "sock").unlink(missing_ok=True)

    async def end(self):
        await self.stop()
        for server in self.servers:
            await server.stop(None)

    def cut(self):
        for relay in self.relays:
            relay.cut()

    def rule(self, method):
        for rule in self.conf["rules"]:
            if rule["on"] != method:
                continue
            if rule.get("skip", 0) > 0:
                rule["skip"] -= 1
                continue
            times = rule.get("times")
            if times == 0:
                continue
            if times is not None:
                rule["times"] = times - 1
            return rule["do"]
        return {}

    def note(self, method, request, context, **more):
        metadata = {}
        for key, value in context.invocation_metadata() or ():
            metadata[key] = value if isinstance(value, str) else value.hex()
        call = {
            "method": method.name,
            "request": protos.to_json(request),
            "metadata": metadata,
            "time": time.time(),
            "code": "",
            **more,
        }
        self.calls.append(call)
        return call

    def usual(self, name, request):
        """The answer of a daemon with nothing special about it."""
        if name in ("Send", "PostTopic"):
            number = len(self.sends) + 1
            id = request.client_message_id or f"MINTED{number}"
            answer = {"client_message_id": id, "status": "SEND_STATUS_QUEUED", "queued_at": "2026-11-30T12:00:00Z"}
            if name == "Send":
                answer["recipient"] = {"kind": "MESSAGE_KIND_DIRECT", "name": request.to, "pubkey": KEY}
            else:
                answer["recipient"] = {"kind": "MESSAGE_KIND_TOPIC", "name": request.topic.removeprefix("#")}
            self.sends[id] = answer
            return answer
        if name == "GetSend":
            return self.sends.get(request.client_message_id) or self.fail(
                {"code": "send_not_found", "grpc": 5, "message": "no send has this id"}
            )
        if name == "GetHealth":
            return {
                "connected": True,
                "mesh": "fake",
                "member_pubkey": KEY,
                "state": "HEALTH_STATE_READY",
                "daemon_version": self.conf["daemon_version"],
            }
        if name == "GetVersion":
            return {key: self.conf[key] for key in ("daemon_version", "ipc_api", "ipc_features")}
        if name == "SetProfile":
            return {"summary": request.summary, "status": request.status, "visible": request.visible}
        if name in ("CreateTopic", "SubscribeTopic"):
            return {"topic": {"id": "T", "name": request.topic.removeprefix("#"), "subscribed": True, "epoch": 1}}
        return {}

    def fail(self, error):
        raise Failure(error)

    def token_is_right(self, context):
        shown = dict(context.invocation_metadata() or ()).get("authorization")
        return shown == f"Bearer {self.conf['token']}"

    def handler(self, method, checks_token):
        request_class = protos.message_class(method.input_type)

        async def guarded(run, request, context):
            if checks_token and not self.token_is_right(context):
                if request is not None:
                    self.note(method, request, context)["code"] = "unauthenticated"
                error = {"code": "unauthenticated", "grpc": 16, "message": "the token is missing or wrong"}
                await abort(context, error)
            try:
                return await run(request, context)
            except Failure as failure:
                await abort(context, failure.error)
            except Break:
                self.cut()
                await asyncio.sleep(3600)

        async def unary(request, context):
            call = self.note(method, request, context)
            do = self.rule(method.name)
            call["code"] = (do.get("error") or {}).get("code", "ok" if not do else next(iter(do)))
            return await self.act(method, do, request, context)

        async def events(request, context):
            self.note(method, request, context)
            await self.stream_events(self.rule(method.name), context)

        async def sends(_, context):
            self.streams += 1
            self.open_streams += 1
            try:
                await self.send_stream(method, self.streams, context)
            finally:
                self.open_streams -= 1

        async def behaviour(request, context):
            run = {"StreamEvents": events, "SendStream": sends}.get(method.name, unary)
            return await guarded(run, request if method.name != "SendStream" else None, context)

        make = {
            "StreamEvents": grpc.unary_stream_rpc_method_handler,
            "SendStream": grpc.stream_stream_rpc_method_handler,
        }.get(method.name, grpc.unary_unary_rpc_method_handler)
        return make(behaviour, request_deserializer=request_class.FromString, response_serializer=lambda data: data)

    async def act(self, method, do, request, context):
        """What a rule says, else the usual answer, as bytes."""
        if "error" in do:
            raise Failure(do["error"])
        if "silence" in do:
            if do["silence"] == "headers":
                await context.send_initial_metadata(())
            await asyncio.sleep(3600)
        if do.get("break") is True:
            raise Break
        if "delay" in do:
            await asyncio.sleep(do["delay"])
        answer = do["answer"] if "answer" in do else self.usual(method.name, request)
        data = encode(method.output_type, answer, do.get("extra", ""))
        if do.get("break") == "after":
            raise Break
        return data

    async def stream_events(self, do, context):
        if "error" in do:
            raise Failure(do["error"])
        if "silence" in do:
            if do["silence"] == "headers":
                await context.send_initial_metadata(())
            await asyncio.sleep(3600)
        if "break" in do:
            raise Break
        await context.send_initial_metadata(())
        for event in do.get("events", [{"event_id": "F-0", "caught_up": {}}]):
            extra = event.pop("extra", "") if isinstance(event, dict) else ""
            await context.write(encode("StreamEventsResponse", event, extra))
            if extra:
                event["extra"] = extra
        then = do.get("then", "hold")
        if isinstance(then, dict):
            raise Failure(then["error"])
        if then == "end":
            return
        if then == "break":
            # What was written must be out before the cut.
            await asyncio.sleep(0.3)
            raise Break
        if then == "stall":
            await asyncio.sleep(0.3)
            self.stalled = self.connections
        await asyncio.sleep(3600)

    async def send_stream(self, method, stream, context):
        lock = asyncio.Lock()
        tasks = set()

        async def answer(request, do, call):
            if do.get("break") is True:
                self.cut()
                return
            if "silence" in do:
                return
            await asyncio.sleep(do.get("delay", 0))
            result = {"index": request.index}
            try:
                if "error" in do:
                    raise Failure(do["error"])
                result["response"] = do["answer"] if "answer" in do else self.usual("Send", request.send)
            except Failure as failure:
                call["code"] = failure.error.get("code", "")
                result["error"] = failure.detail(request.send.client_message_id)
            data = encode(method.output_type, result, do.get("extra", ""))
            if do.get("break") == "after":
                self.cut()
                return
            async with lock:
                await context.write(data)

        async def requests():
            while (message := await context.read()) is not aio.EOF:
                for request in message.batch or [message]:
                    yield request

        async for request in requests():
            call = self.note(method, request.send, context, stream=stream, trace_context=dict(request.trace_context))
            do = self.rule("SendStream")
            call["code"] = "ok" if not do else next(iter(do))
            if do.get("error", {}).get("stream"):
                raise Failure(do["error"])
            task = asyncio.ensure_future(answer(request, do, call))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


def encode(descriptor, value, extra):
    return protos.from_json(descriptor, value).SerializeToString() + bytes.fromhex(extra)


class Failure(Exception):
    def __init__(self, error):
        super().__init__(error.get("message", ""))
        self.error = error

    def detail(self, id):
        """As the answer of one send of a stream."""
        error = self.error
        return {
            "code": error.get("code", ""),
            "message": error.get("message", "as the case says"),
            "metadata": {**({"client_message_id": id} if id else {}), **error.get("metadata", {})},
            "retryable": error.get("grpc") in (4, 8, 14),
            "retry_after_ms": int(error.get("retry_after", 0) * 1000),
            "grpc_code": error.get("grpc", 2),
            "candidates": error.get("candidates", []),
            "field_violations": error.get("field_violations", []),
        }


async def abort(context, error):
    """Ends a call as the daemon does: a status with details."""
    code, text = error.get("grpc", 2), error.get("message", "as the case says")
    trailers = ()
    if "code" in error:
        status = status_pb2.Status(code=code, message=text)

        def add(message):
            status.details.add().Pack(message)

        add(error_details_pb2.ErrorInfo(reason=error["code"], domain="claudemesh", metadata=error.get("metadata", {})))
        if "retry_after" in error:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(error["retry_after"] * 1e9))
            add(error_details_pb2.RetryInfo(retry_delay=delay))
        if "field_violations" in error:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(**violation) for violation in error["field_violations"]
            ]
            add(error_details_pb2.BadRequest(field_violations=violations))
        if "candidates" in error:
            candidates = protos.from_json("Candidates", {"candidates": error["candidates"]})
            type_url = "type.googleapis.com/claudemesh.v1.Candidates"
            status.details.append(any_pb2.Any(type_url=type_url, value=candidates.SerializeToString()))
        trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    codes = {item.value[0]: item for item in grpc.StatusCode}
    await context.abort(codes[code], text, trailers)


class Commands:
    def __init__(self):
        self.fakes = {}

    async def run(self, command):
        do = command.pop("do")
        if do == "new":
            fake = Fake(command["dir"], command["fake"])
            number = len(self.fakes) + 1
            self.fakes[number] = fake
            return {"fake": number, "member": await fake.new()}
        fake = self.fakes[command.pop("fake")]
        if do == "seen":
            wanted = command.get("method")
            calls = [call for call in fake.calls if wanted in (None, call["method"])]
            return {
                "calls": calls,
                "count": len(calls),
                "connections": fake.connections,
                "open_connections": sum(len(relay.tasks) for relay in fake.relays),
                "streams": fake.streams,
                "open_streams": fake.open_streams,
            }
        if do == "set":
            fake.set(command)
        elif do == "break":
            fake.cut()
        elif do == "stall":
            fake.stalled = fake.connections
        elif do in ("stop", "start", "end"):
            await getattr(fake, do)()
        else:
            raise ValueError(f"the fake daemon has no command {do!r}")
        return {}


async def main():
    reader = asyncio.StreamReader(limit=64 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    commands = Commands()
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        command = json.loads(line)
        id = command.pop("id")
        try:
            answer = {"id": id, "result": await commands.run(command)}
        except Exception as error:
            answer = {"id": id, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
