#!/usr/bin/env bash
# Becomes the runner that sdk/conformance/run.py talks to.
set -euo pipefail
cd "$(dirname "$0")"
# Several may start at once; the first builds.
exec 9>>.build.lock
flock 9
./build.sh >&2
exec 9>&-
cd - >/dev/null
exec node "$OLDPWD/build/test/conformance.js"
