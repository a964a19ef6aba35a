#!/bin/sh
# Builds the runner of the conformance cases and becomes it.
set -eu
cd "$(dirname "$0")"
bin=../../target/sdk/go/conformance
mkdir -p "${bin%/*}"
if [ ! -x "$bin" ] || [ -n "$(find . go.mod -name '*.go' -newer "$bin" -print -quit)" ]; then
  # Written beside and moved, since several may start at once.
  go build -o "$bin.$$" ./internal/conformance >&2
  mv "$bin.$$" "$bin"
fi
errors="$PWD/../errors.json"
bin="$PWD/$bin"
cd "$OLDPWD"
exec "$bin" "$errors"
