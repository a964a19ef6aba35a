#!/bin/sh
# What `send` costs over the generated client.
set -eu
: "${CLAUDEMESH_BIN:?name the binary of the daemon}"
cd "$(dirname "$0")"
npm run --silent bench
