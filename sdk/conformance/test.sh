#!/usr/bin/env bash
# Checks the harness and runs the whole suite, or what the options of run.py choose.
# CLAUDEMESH_BIN is the binary to test.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
environment=$here/../../target/sdk/conformance
if [[ ! $environment/complete -nt $here/requirements.txt ]]; then
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  touch "$environment/complete"
fi
"$environment/bin/python" "$here/test_harness.py" --quiet
exec "$environment/bin/python" "$here/run.py" "$@"
