"""Parts that need no daemon."""

from __future__ import annotations

import os
import pickle
import re
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message as ProtobufMessage

import claudemesh
from claudemesh import _error, _model, errors
from claudemesh._io import Deadline, run
from claudemesh._retry import Backoff
from claudemesh._sends import LARGE_BATCH, MAX_BATCH, Caller, Sends
from claudemesh._ulid import ulid
from claudemesh.v1.common_pb2 import Candidate, Candidates, ErrorDetail
from claudemesh.v1.events_pb2 import StreamEventsResponse
from claudemesh.v1.messaging_pb2 import SendRequest, SendStreamRequest, SendStreamResponse


def field(number: int, value: bytes | str | int | ProtobufMessage) -> bytes:
    """One field in wire format."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, ProtobufMessage):
        value = value.SerializeToString()
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def any_of(kind: str, value: bytes) -> bytes:
    return field(3, field(1, f"type.googleapis.com/{kind}") + field(2, value))


def failed(code: grpc.StatusCode, text: str, packed: bytes) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", packed))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, text)


STATUS = (
    field(1, 5)
    + field(2, "no such peer")
    + any_of(
        "google.rpc.ErrorInfo",
        field(1, "unknown_peer")
        + field(2, "claudemesh")
        + field(3, field(1, "client_message_id") + field(2, "01"))
        + field(3, field(1, "to") + field(2, "bb")),
    )
    + any_of("google.rpc.RetryInfo", field(1, field(1, 1) + field(2, 500_000_000)))
    + any_of("google.rpc.BadRequest", field(1, field(1, "to") + field(2, "is nobody")))
    + any_of("claudemesh.v1.Candidates", Candidates(candidates=[Candidate(name="bob")]).SerializeToString())
    + any_of("somebody.else.Detail", b"\xff")
)


def test_the_details_of_a_status_become_an_error() -> None:
    error, from_daemon = _error.from_rpc(failed(grpc.StatusCode.NOT_FOUND, "no such peer", STATUS))
    assert from_daemon
    assert type(error) is errors.UnknownPeer
    assert (error.code, error.message, error.grpc_code) == ("unknown_peer", "no such peer", 5)
    assert (error.metadata, error.client_message_id) == ({"client_message_id": "01", "to": "bb"}, "01")
    assert (error.retry_after, error.retryable) == (1.5, False)
    assert [violation.field for violation in error.field_violations] == ["to"]
    assert [candidate.name for candidate in error.candidates] == ["bob"]
    assert error.url.endswith("/docs/errors/unknown_peer.md")
    assert str(error) == "unknown_peer: no such peer"


@pytest.mark.parametrize("end", range(0, len(STATUS), 3))
def test_damaged_details_do_no_harm(end: int) -> None:
    error, _ = _error.from_rpc(failed(grpc.StatusCode.NOT_FOUND, "text", STATUS[:end]))
    assert error.grpc_code == 5


@pytest.mark.parametrize("packed", [b"\xff" * 20, b"\x1b", b"\x1a\xff\xff\xff\xff\x0f", field(3, b"\x0a\x01\xff")])
def test_hostile_details_do_no_harm(packed: bytes) -> None:
    error, from_daemon = _error.from_rpc(failed(grpc.StatusCode.INTERNAL, "text", packed))
    assert (error.code, error.message, from_daemon) == ("internal_error", "text", False)


def test_a_stream_that_broke_while_it_began_is_a_lost_connection() -> None:
    error, _ = _error.from_rpc(failed(grpc.StatusCode.INTERNAL, "Internal error from Core", b""))
    assert (error.code, error.grpc_code) == ("daemon_not_running", 14)


def test_a_code_of_a_later_version_is_passed_on_in_the_class_of_its_status() -> None:
    error = _error.from_detail(ErrorDetail(code="new_thing", message="text", grpc_code=9, retry_after_ms=250))
    assert type(error) is errors.FailedPrecondition
    assert (error.code, error.retry_after, error.retryable) == ("new_thing", 0.25, False)
    later = field(1, 14) + any_of("google.rpc.ErrorInfo", field(1, "new_thing")) + any_of("google.rpc.RetryInfo", b"")
    error, _ = _error.from_rpc(failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "text", later))
    assert (type(error), error.code, error.retryable) == (errors.ResourceExhausted, "new_thing", True)
    unknown = _error.from_detail(ErrorDetail(code="new_thing", grpc_code=99))
    assert type(unknown) is errors.ClaudemeshError


def test_each_code_has_a_class_of_its_own() -> None:
    for code, kind in errors.CODES.items():
        assert kind.default_code == code
        assert kind.__name__ in errors.__all__
        assert isinstance(kind(), errors.ClaudemeshError)
    assert len(set(errors.CODES.values())) == len(errors.CODES)


def test_errors_can_be_pickled() -> None:
    error = errors.MeshRequired("which", metadata={"meshes": "a,b"}, client_message_id="01")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is errors.MeshRequired
    assert (again.message, again.metadata, again.client_message_id) == ("which", {"meshes": "a,b"}, "01")


def test_ulids_hold_the_time_and_differ() -> None:
    before = int(time.time() * 1000)
    ids = [ulid() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for made in ids:
        assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", made)
        stamp = 0
        for digit in made[:10]:
            stamp = stamp * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(digit)
        assert before <= stamp <= time.time() * 1000


def test_a_child_makes_other_ulids() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ulid().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read()[10:] != ulid()[10:]
    os.waitpid(child, 0)


def test_sends_that_wait_go_together_up_to_a_limit() -> None:
    def request(size: int = 1) -> SendStreamRequest:
        return SendStreamRequest(send=SendRequest(to="bob", message="x" * size))

    def sizes() -> list[int]:
        return [len(batch.batch) for batch in iter(sends.batch, None)]

    sends = Sends()
    caller = Caller(200, Deadline(10), lambda: None)
    many = [request() for _ in range(2 * MAX_BATCH + 3)]
    sends.add(many, caller)
    # Whose caller has given up stays here.
    sends.forget(many[:1])
    assert sizes() == [MAX_BATCH, MAX_BATCH, 2]
    sends.add([request(), request(LARGE_BATCH), request(), request()], caller)
    assert sizes() == [1, 1, 2]


def test_a_caller_is_woken_once_by_the_last_of_its_answers() -> None:
    woken: list[str] = []
    sends = Sends()
    requests = [SendStreamRequest() for _ in range(3)]
    caller = Caller(2, Deadline(10), lambda: woken.append("first"))
    sends.add(requests[:2], caller)
    other = Caller(1, Deadline(10), lambda: woken.append("other"))
    sends.add(requests[2:], other)
    answers = [SendStreamResponse(index=request.index) for request in requests]
    sends.answer(SendStreamResponse(batch=[answers[1], answers[2], answers[1]]))
    assert woken == ["other"]
    sends.answer(answers[0])
    assert woken == ["other", "first"]
    assert caller.outcomes == answers[:2]
    assert not sends


def test_backoff_doubles_up_to_its_limit() -> None:
    delays = [Backoff() for _ in range(200)]
    for expected in (0.05, 0.1, 0.2, 0.4, 0.5, 0.5):
        seen = [backoff.next() for backoff in delays]
        assert min(seen) >= expected * 0.75
        assert max(seen) <= expected * 1.25
        assert max(seen) - min(seen) > expected * 0.25


def test_a_deadline_does_not_go_below_zero() -> None:
    assert Deadline(0).remaining() == 0.0


def test_run_refuses_to_wait_for_a_loop() -> None:
    class Suspends:
        def __await__(self) -> Any:
            yield

    async def suspending() -> None:
        await Suspends()

    with pytest.raises(RuntimeError, match="suspended"):
        run(suspending())


@pytest.mark.parametrize(
    ("arguments", "field_name"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"priority": 1}, "priority"),
        ({"meta": {"a": object()}}, "meta"),
        ({"meta": {1: "a"}}, "meta"),
        ({"meta": [1]}, "meta"),
        ({"mentions": "bob"}, "mentions"),
    ],
)
def test_values_that_cannot_be_sent(arguments: dict[str, Any], field_name: str) -> None:
    with pytest.raises(errors.InvalidArgument) as raised:
        _model.send_request(claudemesh.Message("bob", "hi", **arguments), "01")
    assert [violation.field for violation in raised.value.field_violations] == [field_name]


@pytest.mark.parametrize("arguments", [{"to": 7}, {"text": 3}, {"text": "\ud800"}, {"mentions": [1]}])
def test_values_of_a_wrong_type(arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        _model.send_request(claudemesh.Message(**{"to": "bob", "text": "hi", **arguments}), "01")


def test_meta_takes_what_json_has() -> None:
    struct = _model.meta_value({"a": [1, 2.5, None, True, "x", {"b": ()}], "c": {}})
    assert struct is not None
    assert struct.fields["a"].list_value.values[5].struct_value.fields["b"].list_value.values == []
    assert _model.meta_value({}) is None


def test_times_without_a_zone_are_of_this_host() -> None:
    naive = datetime(2026, 1, 2, 3, 4, 5)
    stamp = _model.time_value("since", naive)
    assert stamp is not None
    assert stamp.ToDatetime(timezone.utc) == naive.astimezone(timezone.utc)


def test_an_event_of_a_later_version_passes_through() -> None:
    # A field of the oneof that this version does not have.
    raw = StreamEventsResponse.FromString(field(1, "g-7") + field(900, b"new"))
    event = _model.event_of(raw)
    assert (event.kind, event.event_id, event.value) == ("unknown", "g-7", None)
    assert event.raw.SerializeToString() == field(1, "g-7") + field(900, b"new")


def test_errors_are_as_the_table_says() -> None:
    """The committed classes are those of the daemon's table."""
    import json
    import runpy

    here = Path(__file__).parents[1]
    render = runpy.run_path(str(here / "gen_errors.py"))["render"]
    table = json.loads((here.parent / "errors.json").read_text("utf-8"))["codes"]
    assert render(table) == (here / "src/claudemesh/errors.py").read_text("utf-8")


def test_versions_agree() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    assert f'version = "{claudemesh.__version__}"' in project
