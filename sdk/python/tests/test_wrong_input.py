"""Every call with values that it cannot take: a typed error that names the argument."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import claudemesh
import claudemesh.aio
from claudemesh import Message, errors
from claudemesh.testing import DevMesh

LONG = "x" * 20_000

# What is no text, and what is none that a message can hold.
NO_TEXT: list[Any] = [5, b"bob", ["bob"], {}, "\ud800"]
NO_FLAG: list[Any] = [None, 0, 1, "yes", []]
NO_LIST: list[Any] = [None, 5, "message", b"x", {}, [5], [None]]
NO_TIMEOUT: list[Any] = [0, -1, -1e300, "5", True, float("nan"), []]
NO_META: list[Any] = [
    5,
    "x",
    [],
    [1],
    {1: "a"},
    {"a": object()},
    {"a": b"x"},
    {"a": 10**400},
    {"a": float("nan")},
    {"a": LONG},
]

# The call's name, the arguments that are right, and the wrong ones by name. Where
# the daemon refuses a value, it names the field of its request.
Wrong = dict[str, list[Any]]
CALLS: list[tuple[str, dict[str, Any], Wrong]] = [
    (
        "send",
        {"to": "bob", "text": "hi"},
        {
            "to": [None, "", LONG, *NO_TEXT],
            "text": [None, "", "a\0b", *NO_TEXT],
            "id": [LONG, "a b", "\0", *NO_TEXT],
            "priority": ["", "urgent", 5, []],
            "meta": NO_META,
            "reply_to": [LONG, "a b", *NO_TEXT],
            "mentions": [*NO_LIST, ["x"] * 1000],
            "allow_unencrypted": NO_FLAG,
            "wait": ["", "read", 5, []],
            "timeout": NO_TIMEOUT,
        },
    ),
    (
        "post",
        {"topic": "ops", "text": "hi"},
        {
            "topic": [None, "", "#", *NO_TEXT],
            "text": [None, "", "a\0b", *NO_TEXT],
            "id": [LONG, "a b", *NO_TEXT],
            "priority": ["", "urgent", 5],
            "meta": NO_META,
            "reply_to": [LONG, *NO_TEXT],
            "mentions": [*NO_LIST, ["x"] * 1000],
            "allow_unencrypted": NO_FLAG,
            "wait": ["", "delivered", 5, []],
            "timeout": NO_TIMEOUT,
        },
    ),
    ("send_many", {"messages": []}, {"messages": [None, 5, "x", {}, ["x"], [None], [b"x"]], "timeout": NO_TIMEOUT}),
    ("get_send", {"id": "x"}, {"id": [None, "", LONG, "a b", *NO_TEXT], "timeout": NO_TIMEOUT}),
    (
        "inbox",
        {},
        {
            "since": ["2h", 5, []],
            "topic": NO_TEXT,
            "sender": [LONG, "\0", *NO_TEXT],
            "after": [LONG, "\0", *NO_TEXT],
            "limit": [-1, -(10**30), 1.5, "5", True],
            "newest_first": NO_FLAG,
            "timeout": NO_TIMEOUT,
        },
    ),
    (
        "events",
        {},
        {
            "after": NO_TEXT,
            "from_start": NO_FLAG,
            "types": [*NO_LIST, [""], ["nonsense"]],
            "topic": NO_TEXT,
            "sender": [LONG, "\0", *NO_TEXT],
        },
    ),
    ("peers", {}, {"include_offline": NO_FLAG, "roles": [*NO_LIST, [""], ["king"]], "timeout": NO_TIMEOUT}),
    (
        "profile",
        {},
        {
            "summary": [LONG, "\0", *NO_TEXT],
            "status": ["", "busy", 5],
            "visible": [0, 1, "yes", []],
            "timeout": NO_TIMEOUT,
        },
    ),
    ("topics.list", {}, {"subscribed_only": NO_FLAG, "timeout": NO_TIMEOUT}),
    (
        "topics.create",
        {"name": "ops"},
        {"name": [None, "", LONG, "A b", *NO_TEXT], "description": [LONG, "\0", *NO_TEXT], "timeout": NO_TIMEOUT},
    ),
    ("topics.subscribe", {"name": "ops"}, {"name": [None, "", LONG, "A b", *NO_TEXT], "timeout": NO_TIMEOUT}),
    ("topics.unsubscribe", {"name": "ops"}, {"name": [None, "", LONG, "A b", *NO_TEXT], "timeout": NO_TIMEOUT}),
    ("health", {}, {"timeout": NO_TIMEOUT}),
    ("version", {}, {"timeout": NO_TIMEOUT}),
    ("wait_ready", {}, {"connected": NO_FLAG, "timeout": NO_TIMEOUT}),
]

# What the daemon calls some arguments.
FIELDS = {
    "text": {"text", "message"},
    "id": {"id", "client_message_id"},
    "reply_to": {"reply_to", "reply_to_id"},
    "name": {"name", "topic"},
}

CASES = [
    (call, {**right, name: value}, name)
    for call, right, wrong in CALLS
    for name, values in wrong.items()
    for value in values
]


@pytest.fixture(scope="module")
def alice(shared: DevMesh) -> Iterator[claudemesh.Mesh]:
    with shared["alice"].connect() as mesh:
        yield mesh


def judge(error: errors.ClaudemeshError, call: str, name: str) -> None:
    assert isinstance(error, (errors.InvalidArgument, errors.IdempotencyKeyInvalid)), error
    assert {violation.field for violation in error.field_violations} <= FIELDS.get(name, {name})
    assert error.field_violations
    assert name in error.message or error.field_violations[0].field in error.message or name == "name"
    if call in ("send", "post"):
        assert error.client_message_id


def method(mesh: Any, call: str) -> Callable[..., Any]:
    for name in call.split("."):
        mesh = getattr(mesh, name)
    return mesh  # type: ignore[no-any-return]


@pytest.mark.parametrize(("call", "arguments", "name"), CASES)
def test_a_wrong_value_is_refused(alice: claudemesh.Mesh, call: str, arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(errors.ClaudemeshError) as raised:
        made = method(alice, call)(**arguments)
        if call in ("inbox", "events"):
            next(iter(made))
    judge(raised.value, call, name)


def test_a_wrong_value_is_refused_with_asyncio(shared: DevMesh) -> None:
    async def main() -> None:
        async with shared["alice"].connect_async() as mesh:
            for call, arguments, name in CASES:
                with pytest.raises(errors.ClaudemeshError) as raised:
                    made = method(mesh, call)(**arguments)
                    await (anext(made) if call in ("inbox", "events") else made)
                judge(raised.value, call, name)

    asyncio.run(main())


def test_a_wrong_message_of_many_fails_alone(alice: claudemesh.Mesh) -> None:
    wrong: list[Any] = [
        Message("bob", 5),  # type: ignore[arg-type]  # pyright: ignore
        Message(None, "hi"),  # type: ignore[arg-type]  # pyright: ignore
        Message("bob", "hi", id=5),  # type: ignore[arg-type]  # pyright: ignore
        Message("bob", "hi", meta=[1]),  # type: ignore[arg-type]  # pyright: ignore
    ]
    results = alice.send_many([*wrong, Message("bob", "fine")])
    found = [result.error.field_violations[0].field if result.error else "" for result in results]
    assert found == ["text", "to", "id", "meta", ""]
    assert all(isinstance(result.id, str) and len(result.id) == 26 for result in results)


def test_huge_numbers_are_as_good_as_none(alice: claudemesh.Mesh) -> None:
    for timeout in (float("inf"), 1e300, 10**400):
        assert alice.health(timeout=timeout).mesh == "dev"
    assert list(alice.inbox(limit=10**30)) == list(alice.inbox())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("socket", {"socket": 5}),
        ("socket", {"socket": b"/sock"}),
        ("socket", {"socket": "a\0b"}),
        ("address", {"address": 5, "token": "x"}),
        ("address", {"address": "nowhere", "token": "x"}),
        ("address", {"address": "127.0.0.1:99999", "token": "x"}),
        ("token", {"address": "127.0.0.1:1", "token": 5}),
        ("token", {"address": "127.0.0.1:1", "token": "ä\n"}),
        ("token_file", {"address": "127.0.0.1:1", "token_file": 5}),
        ("token_file", {"address": "127.0.0.1:1", "token_file": "a\0b"}),
        ("mesh", {"mesh": 5}),
        ("mesh", {"mesh": "../elsewhere"}),
        ("mesh", {"mesh": LONG}),
    ],
)
def test_a_wrong_place_is_refused(name: str, arguments: dict[str, Any]) -> None:
    for connect in (claudemesh.connect, claudemesh.aio.connect):
        with pytest.raises(errors.InvalidArgument) as raised:
            connect(**arguments)
        assert [violation.field for violation in raised.value.field_violations] == [name]
