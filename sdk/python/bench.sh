#!/usr/bin/env bash
# What `send` costs over the generated client; options are those of bench.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${CLAUDEMESH_BIN:?set it to the path of the claudemesh program}"
python=$("$here/environment.sh" newest)
exec "$python" "$here/bench.py" "$@"
