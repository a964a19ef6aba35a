#!/bin/sh
# Compares Send with the generated client; CLAUDEMESH_BIN names the daemon's binary.
set -eu
: "${CLAUDEMESH_BIN:?name the binary of the daemon}"
CLAUDEMESH_BIN=$(realpath "$CLAUDEMESH_BIN")
export CLAUDEMESH_BIN
cd "$(dirname "$0")"
exec go test -tags bench -count 1 -run '^TestBench$' -v .
