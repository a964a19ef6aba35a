"""Writes the code of src/claudemesh/v1 from proto/; `--check` tells whether it differs.

Does for this package alone what `buf generate` does for all of them in `proto/`,
with the generators of an environment of their own, since they need another
protobuf than the newest.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto"
GENERATED = HERE / "src/claudemesh/v1"


def own_part(template: str) -> str:
    """The parts of buf.gen.yaml that write into this package."""
    head, *plugins = re.split(r"(?m)^(?=  (?:#.*\n  )*- local:)", template)
    return head + "".join(plugin for plugin in plugins if "../sdk/python/src" in plugin)


def generate(out: Path) -> None:
    python = subprocess.run([HERE / "environment.sh", "generate"], check=True, stdout=subprocess.PIPE, text=True).stdout
    tools = Path(python.strip()).parent
    template = out / "buf.gen.yaml"
    plugins = own_part((PROTO / "buf.gen.yaml").read_text("utf-8"))
    template.write_text(plugins.replace("../sdk/python/src", str(out)), "utf-8")
    variables = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run([tools / "buf", "generate", "--template", template], cwd=PROTO, env=variables, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        written = Path(folder) / "claudemesh/v1"
        names = sorted(path.name for path in written.iterdir())
        committed = sorted(path.name for path in GENERATED.iterdir() if "_pb2" in path.name)
        _, different, missing = filecmp.cmpfiles(written, GENERATED, names, shallow=False)
        stale = sorted({*different, *missing, *(set(committed) - set(names))})
        if options.check:
            if stale:
                print("not as generated from proto/:", *stale, "\nrun sdk/python/generate.py", file=sys.stderr)
            return 1 if stale else 0
        for name in set(committed) - set(names):
            (GENERATED / name).unlink()
        for name in names:
            shutil.copy(written / name, GENERATED / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
