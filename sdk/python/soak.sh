#!/usr/bin/env bash
# Sends and events while the daemons end and start ten times: CLAUDEMESH_SOAK_MESSAGES
# of them, 100,000 when that is not set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${CLAUDEMESH_BIN:?set it to the path of the claudemesh program}"
python=$("$here/environment.sh" newest)
cd "$here"
CLAUDEMESH_SOAK_MESSAGES=${CLAUDEMESH_SOAK_MESSAGES:-100000} exec "$python" -m pytest -q tests/test_soak.py
