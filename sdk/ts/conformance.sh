#!/usr/bin/env bash
# Becomes the runner that sdk/conformance/run.py talks to.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$here/build.sh" >&2
exec node "$here/build/test/conformance.js"
