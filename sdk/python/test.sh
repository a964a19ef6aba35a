#!/usr/bin/env bash
# Every check and every test of this package. CLAUDEMESH_BIN names the program to
# test with. What is fetched stays below target/sdk/python.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
: "${CLAUDEMESH_BIN:?set it to the path of the claudemesh program}"
CLAUDEMESH_BIN=$(realpath "$CLAUDEMESH_BIN")
export CLAUDEMESH_BIN

newest=$(./environment.sh newest)
lowest=$(./environment.sh lowest)

"$newest" -m ruff format --check --quiet .
"$newest" -m ruff check --quiet .
"$newest" -m mypy
"$newest" -m pyright --pythonpath "$newest"

# Both ends of what is declared: everything with the newest releases, and what
# touches them with the lowest.
"$newest" -m pytest -q
"$lowest" -m pytest -q tests/test_units.py tests/test_sync.py tests/test_async.py tests/test_wrong_input.py
