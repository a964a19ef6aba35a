#!/usr/bin/env bash
# Everything for this package: types, lint, tests against real daemons, the packed package. CLAUDEMESH_BIN names the
# daemon's program. CLAUDEMESH_NODES may name further Node binaries to run the tests with.
set -euo pipefail
cd "$(dirname "$0")"
: "${CLAUDEMESH_BIN:?set it to the path of the claudemesh program}"
CLAUDEMESH_BIN=$(realpath "$CLAUDEMESH_BIN")
export CLAUDEMESH_BIN

# What is generated is committed, and is what would be generated now.
node scripts/gen-errors.mjs
git diff --exit-code -- src/errors.ts

./build.sh
npx --no-install biome check .

for node in node ${CLAUDEMESH_NODES:-}; do
  echo "tests on Node $("$node" --version)"
  "$node" --test --test-timeout=120000 build/test/*.test.js
done
npx --no-install vitest run

./test/package.sh
