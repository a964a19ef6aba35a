#!/bin/sh
# Compares Send with the generated client; CLAUDEMESH_BIN names the daemon's binary.
set -eu
cd "$(dirname "$0")"
exec go test -tags bench -count 1 -run '^TestBench$' -v .
