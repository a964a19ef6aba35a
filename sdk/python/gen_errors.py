"""Writes `src/claudemesh/errors.py` from `sdk/errors.json`, the daemon's own table.

`claudemesh explain --json > sdk/errors.json` writes that file.
"""

import json
import keyword
from pathlib import Path

# The statuses of gRPC, by number from 1.
STATUSES = [
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
]

HEAD = '''\
"""The errors of claudemesh, one class for each code.

Written by gen_errors.py from the daemon's table; do not edit.
"""

from claudemesh._error import URL, ClaudemeshError
from claudemesh.v1.common_pb2 import Candidate, FieldViolation

'''

CLASS = '''

class {name}(ClaudemeshError):
    """{title}."""

    default_code = "{code}"
    default_grpc_code = {grpc}
    default_retryable = {retryable}
'''

TABLES = """

# By code.
CODES: dict[str, type[ClaudemeshError]] = {{
{codes}
}}

# By number of a gRPC status, for codes that this version does not know.
STATUSES: dict[int, type[ClaudemeshError]] = {{
{statuses}
}}
"""


def class_name(code: str) -> str:
    name = "".join(part.capitalize() for part in code.split("_"))
    assert name.isidentifier() and not keyword.iskeyword(name), code
    return name


def render(table: list[dict[str, object]]) -> str:
    entries = {str(entry["code"]): entry for entry in table}
    classes = []
    for code, entry in entries.items():
        grpc = STATUSES.index(str(entry["grpc_status"]).lower()) + 1
        classes.append(
            CLASS.format(
                name=class_name(code), title=entry["title"], code=code, grpc=grpc, retryable=bool(entry["retryable"])
            )
        )
    for number, status in enumerate(STATUSES, 1):
        if status not in entries:
            title = f"A failure of the gRPC status {status.upper()} whose code this version does not know"
            classes.append(
                CLASS.format(
                    name=class_name(status), title=title, code=status, grpc=number, retryable=status == "unavailable"
                )
            )
    names = sorted([*map(class_name, entries), *(class_name(s) for s in STATUSES if s not in entries)])
    exported = sorted(["CODES", "STATUSES", "URL", "Candidate", "ClaudemeshError", "FieldViolation", *names])
    head = HEAD + "__all__ = [\n" + "".join(f'    "{name}",\n' for name in exported) + "]\n"
    tables = TABLES.format(
        codes="\n".join(f'    "{code}": {class_name(code)},' for code in entries),
        statuses="\n".join(f"    {number}: {class_name(status)}," for number, status in enumerate(STATUSES, 1)),
    )
    return head + "".join(classes) + tables


def main() -> None:
    here = Path(__file__).parent
    table = json.loads((here.parent / "errors.json").read_text("utf-8"))["codes"]
    (here / "src/claudemesh/errors.py").write_text(render(table), "utf-8")


if __name__ == "__main__":
    main()
