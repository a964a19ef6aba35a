#!/usr/bin/env bash
# The runner of the conformance suite: conformance.sh sync|async
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/environment.sh" newest)
exec "$python" "$here/conformance_runner.py" "$@"
