#!/usr/bin/env bash
# Everything for this package: types, lint, tests against real daemons, the packed package. CLAUDEMESH_BIN names the
# daemon's program.
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

node --test --test-timeout=120000 build/test/*.test.js

# The next long-term version of Node, where the package `node` has it for this machine.
tools=$(cd ../.. && pwd)/target/sdk/ts
node22=$tools/node_modules/node/bin/node
[[ -x $node22 ]] || npm install --silent --no-audit --no-fund --no-save --prefix "$tools" node@22.23.3
echo "again on Node $("$node22" --version)"
"$node22" --test --test-timeout=120000 build/test/{discovery,kit,mesh,trace,wrong-input}.test.js

npx --no-install vitest run

./test/package.sh
