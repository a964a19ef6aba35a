"""Reads the case files and checks their form."""

import json
import pathlib
import re

from patterns import MATCHERS

SDKS = ("python-sync", "python-async", "go", "ts")
OTHERS = ("cli", "rest")
TRANSPORTS = ("unix", "tcp")

CASE_KEYS = {"id", "title", "covers", "mesh", "fake", "also", "n/a", "transports", "timeout", "steps"}
STEP_KEYS = {"op", "as", "args", "expect", "error", "save", "until", "within", "at_least", "background", "steps"}
MESSAGE = {"id", "priority", "meta", "reply_to", "mentions", "allow_unencrypted"}
PLACE = {"socket", "address", "token_file", "token", "mesh"}
# What each op takes. Those of the runner first.
RUNNER_OPS = {
    "connect": PLACE | {"name", "env", "cwd", "unprivileged"},
    "close": set(),
    "send": MESSAGE | {"to", "text", "wait", "timeout"},
    "post": MESSAGE | {"topic", "text", "wait", "timeout"},
    "send_many": {"messages", "timeout"},
    "get_send": {"id", "timeout"},
    "inbox": {"since", "topic", "sender", "after", "limit", "newest_first", "timeout"},
    "events.open": {"stream", "after", "from_start", "types", "topic", "sender"},
    "events.next": {"stream", "timeout"},
    "events.close": {"stream"},
    "peers": {"include_offline", "roles", "timeout"},
    "profile": {"summary", "status", "visible", "timeout"},
    "topics.list": {"subscribed_only", "timeout"},
    "topics.create": {"name", "description", "timeout"},
    "topics.subscribe": {"name", "timeout"},
    "topics.unsubscribe": {"name", "timeout"},
    "health": {"timeout"},
    "version": {"timeout"},
    "wait_ready": {"timeout", "connected"},
    "raw": set(),
    "fork": {"op", "args"},
}
HARNESS_OPS = {
    "await": {"call"},
    "cancel": {"call"},
    "mesh": None,
    "fake": None,
    "parallel": set(),
    "repeat": {"times", "over", "parallel"},
    "write": {"path", "text", "mode"},
    "remove": {"path"},
    "chmod": {"path", "mode"},
    "mkdir": {"path"},
    "lock": {"path"},
    "listen": {"path", "mode"},
    "check": {"value", "distinct"},
}
OPS = RUNNER_OPS | HARNESS_OPS
FAKE_KEYS = {"ipc_api", "ipc_features", "daemon_version", "token", "connections", "rules"}
RULE_KEYS = {"on", "times", "skip", "do"}
DO_KEYS = {"error", "answer", "extra", "silence", "delay", "break", "events", "then"}
GENERATED = re.compile(
    r"ulid|repeat:.*:\d+|codes:[A-Z_]+|now([+-]\d+)?|tmp|case|transport|i|item(\.[a-z_]+)?", re.DOTALL
)


def load(directory):
    """All cases of the directory, and what is wrong with them."""
    cases, problems, seen = [], [], set()
    for path in sorted(pathlib.Path(directory).glob("*.json")):
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            problems.append(f"{path.name}: {error}")
            continue
        for case in found:
            name = case.get("id", f"a case of {path.name} without id")
            if name in seen:
                problems.append(f"{name}: another case has this id")
            if not name.startswith(path.stem + "."):
                problems.append(f"{name}: does not begin with {path.stem}.")
            seen.add(name)
            cases.append(case)
            problems += [f"{name}: {problem}" for problem in check(case)]
    return cases, problems


def members(case):
    mesh = case.get("mesh", "none" if "fake" in case else "shared")
    if "fake" in case:
        return ["fake"]
    if mesh == "none":
        return []
    if mesh == "shared":
        return ["alice", "bob", "carol"]
    return mesh.get("members", ["alice", "bob"]) if isinstance(mesh, dict) else ["alice", "bob"]


def runs(case, runner):
    """Whether the case belongs to the set of the runner."""
    return runner in SDKS or runner in case.get("also", [])


def check(case):
    if unknown := set(case) - CASE_KEYS:
        yield f"unknown keys {sorted(unknown)}"
    if not case.get("title"):
        yield "has no title"
    if not case.get("steps"):
        yield "has no steps"
    if unknown := set(case.get("also", [])) - set(OTHERS) | set(case.get("n/a", {})) - set(SDKS):
        yield f"unknown runners {sorted(unknown)}"
    if not all(case.get("n/a", {"": "x"}).values()):
        yield "a runner is n/a without a reason"
    if unknown := set(case.get("transports", [])) - set(TRANSPORTS):
        yield f"unknown transports {sorted(unknown)}"
    mesh = case.get("mesh", "shared")
    if mesh not in ("shared", "fresh", "none") and not (isinstance(mesh, dict) and set(mesh) <= {"members", "clock"}):
        yield f"unknown mesh {mesh!r}"
    if "fake" in case:
        yield from check_fake(case["fake"])
        if mesh not in ("none", "shared"):
            yield "has a fake daemon and a mesh"
    known = set(members(case))
    clients = set(known)
    calls = set()
    for step in walk(case.get("steps", [])):
        op = step.get("op")
        if unknown := set(step) - STEP_KEYS:
            yield f"{op}: unknown keys {sorted(unknown)}"
        if op not in OPS:
            yield f"unknown op {op!r}"
            continue
        args = step.get("args", {})
        if OPS[op] is not None and (unknown := set(args) - OPS[op]):
            yield f"{op}: unknown args {sorted(unknown)}"
        if op == "connect":
            clients.add(args.get("name"))
        if op == "mesh" and args.get("do") == "add":
            clients.add(args.get("member"))
            known.add(args.get("member"))
        if op == "mesh" and mesh == "shared":
            yield "changes a mesh that others use"
        if op == "fake" and "fake" not in case:
            yield "has no fake daemon"
        if op in RUNNER_OPS and op != "connect":
            user = step.get("as", "fake" if "fake" in case else "alice")
            if user not in clients and "${" not in user:
                yield f"{op}: nobody is called {user!r}"
        if "background" in step:
            calls.add(step["background"])
        if op in ("await", "cancel") and args.get("call") not in calls:
            yield f"{op}: no background call {args.get('call')!r}"
        if "expect" in step and "error" in step:
            yield f"{op}: has expect and error"
        for part in ("expect", "error"):
            yield from check_pattern(step.get(part))
    saved = {name.removesuffix("[]") for step in walk(case.get("steps", [])) for name in step.get("save", {})}
    for name in sorted(set(re.findall(r"\$\{([^}]+)\}", json.dumps(case)))):
        if not GENERATED.fullmatch(name) and name.split(".")[0] not in saved | known:
            yield f"nothing is known as ${{{name}}}"


def check_fake(fake):
    if unknown := set(fake) - FAKE_KEYS:
        yield f"fake: unknown keys {sorted(unknown)}"
    for rule in fake.get("rules", []):
        if unknown := set(rule) - RULE_KEYS | set(rule.get("do", {})) - DO_KEYS:
            yield f"fake: unknown keys {sorted(unknown)} in a rule"


def check_pattern(pattern):
    if isinstance(pattern, dict):
        for key, value in pattern.items():
            if key.startswith("$") and not key.startswith("${") and key not in MATCHERS | {"$times"}:
                yield f"unknown matcher {key}"
            if key not in ("$match", "$eq"):
                yield from check_pattern(value)
    elif isinstance(pattern, list):
        for value in pattern:
            yield from check_pattern(value)


def walk(steps):
    for step in steps:
        yield step
        yield from walk(step.get("steps", []))
