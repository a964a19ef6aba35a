#!/bin/sh
# Sends and events while the daemons end and start ten times: CLAUDEMESH_SOAK_MESSAGES
# of them, 100,000 when that is not set.
set -eu
: "${CLAUDEMESH_BIN:?name the binary of the daemon}"
cd "$(dirname "$0")"
export CLAUDEMESH_SOAK_MESSAGES="${CLAUDEMESH_SOAK_MESSAGES:-100000}"
exec go test -count 1 -timeout 60m -run '^TestRestartsAreNotSeenByCallers$' -v .
