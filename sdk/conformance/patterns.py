"""The patterns and values of cases; README.md describes them."""

import collections
import collections.abc
import datetime
import json
import os
import pathlib
import re
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
MATCHERS = {"$any", "$absent", "$match", "$len", "$has", "$each", "$not", "$eq", "$in", "$ge", "$le"}
MISSING = object()
ERRORS = pathlib.Path(__file__).resolve().parents[1] / "errors.json"


def ulid():
    number = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def path(value, dotted):
    """The part of a value that `save` and `${a.b}` name; `MISSING` where there is none."""
    for name in dotted.split(".") if dotted != "." else ():
        if isinstance(value, list) and re.fullmatch(r"-?\d+", name):
            value = value[int(name)] if -len(value) <= int(name) < len(value) else MISSING
        elif isinstance(value, collections.abc.Mapping):
            value = value.get(name, MISSING)
        else:
            return MISSING
    return value


def _made(name):
    """A value that is made anew, else `MISSING`."""
    if name == "ulid":
        return ulid()
    if match := re.fullmatch(r"repeat:(.*):(\d+)", name, re.DOTALL):
        return match[1] * int(match[2])
    if match := re.fullmatch(r"codes:([A-Z_]+)", name):
        table = json.loads(ERRORS.read_text())["codes"]
        return [code for code in table if code["grpc_status"] == match[1]]
    if match := re.fullmatch(r"now([+-]\d+)?", name):
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=int(match[1] or 0))
        return moment.isoformat().replace("+00:00", "Z")
    return MISSING


def fill(value, variables):
    """The value with its `${...}` replaced."""
    if isinstance(value, dict) and "$times" in value:
        numbers = range(1, value["$times"] + 1)
        return [fill(value["of"], collections.ChainMap({"i": str(i)}, variables)) for i in numbers]
    if isinstance(value, dict):
        return {fill(key, variables): fill(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, variables) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value

    def look_up(name):
        found = path(variables, name)
        if found is MISSING:
            found = _made(name)
        if found is MISSING:
            raise KeyError(f"nothing is known as ${{{name}}}")
        return found

    if whole := re.fullmatch(r"\$\{([^}]+)\}", value):
        return look_up(whole[1])
    return re.sub(r"\$\{([^}]+)\}", lambda match: str(look_up(match[1])), value)


def show(value):
    text = "nothing" if value is MISSING else repr(value)
    return text if len(text) <= 300 else f"{text[:200]}... ({len(text)} characters)"


def mismatch(pattern, value, where="it"):
    """Why the value does not match, as a text; `None` when it does."""
    if isinstance(pattern, dict) and any(key in MATCHERS for key in pattern):
        for name, argument in pattern.items():
            if (problem := _matcher(name, argument, value, where)) is not None:
                return problem
        return None
    if isinstance(pattern, dict):
        if not pattern and (value is MISSING or value is None):
            return None
        if not isinstance(value, dict):
            return f"{where} is {show(value)}, not an object"
        for key, item in pattern.items():
            if (problem := mismatch(item, value.get(key, MISSING), f"{where}.{key}")) is not None:
                return problem
        return None
    if isinstance(pattern, list) and isinstance(value, list):
        if len(pattern) != len(value):
            return f"{where} has {len(value)} items, not {len(pattern)}: {show(value)}"
        problems = (mismatch(one, other, f"{where}.{i}") for i, (one, other) in enumerate(zip(pattern, value)))
        return next((problem for problem in problems if problem is not None), None)
    if value is MISSING and (pattern in (0, "") or pattern == []) or _same(pattern, value):
        return None
    return f"{where} is {show(value)}, not {show(pattern)}"


def _same(one, other):
    # True == 1 in Python, not here.
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _matcher(name, argument, value, where):
    def unless(ok, what):
        return None if ok else f"{where} is {show(value)}, {what}"

    if name == "$any":
        return unless(
            value is not MISSING and value not in (None, "", 0, [], {}) and value is not False, "not anything"
        )
    if name == "$absent":
        return unless(value is MISSING or value is None, "and should not be there")
    if name == "$match":
        ok = isinstance(value, str) and re.search(argument, value, re.DOTALL)
        return unless(ok, f"which /{argument}/ does not match")
    if name == "$len":
        items = [] if value is MISSING else value
        return unless(hasattr(items, "__len__") and len(items) == argument, f"not {argument} long")
    if name == "$has":
        wanted = argument if isinstance(argument, list) else [argument]
        for item in wanted:
            if not isinstance(value, list) or all(mismatch(item, other) is not None for other in value):
                return f"{where} has no item like {show(item)}: {show(value)}"
        return None
    if name == "$each":
        items = [] if value is MISSING else value
        problems = (mismatch(argument, item, f"{where}.{i}") for i, item in enumerate(items))
        return next((problem for problem in problems if problem is not None), None)
    if name == "$not":
        return unless(mismatch(argument, value) is not None, f"which matches {show(argument)}")
    if name == "$eq":
        return unless(_same(argument, value), f"not {show(argument)}")
    if name == "$in":
        return unless(any(mismatch(item, value) is None for item in argument), f"none of {show(argument)}")
    number = 0 if value is MISSING else value
    if not isinstance(number, (int, float)) or isinstance(number, bool):
        return f"{where} is {show(value)}, not a number"
    return unless(number >= argument if name == "$ge" else number <= argument, f"not {name[1:]} {argument}")
