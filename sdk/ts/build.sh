#!/usr/bin/env bash
# Installs what package-lock.json pins and compiles, both only when something has changed.
set -euo pipefail
cd "$(dirname "$0")"
# Several may start at once; the first builds.
exec 9>>.build.lock
flock 9
stamp=node_modules/.package-lock.json
if [[ ! -e $stamp || package-lock.json -nt $stamp ]]; then
  npm ci --ignore-scripts --no-audit --no-fund
  touch "$stamp"
fi
built=build/.complete
if [[ ! -e $built || -n $(find package.json tsconfig*.json "$stamp" src test examples bench -newer "$built" -print -quit) ]]; then
  # Overwritten and not removed first, since somebody may be running what is there.
  began=$(mktemp)
  npx --no-install tsc -p tsconfig.build.json
  npx --no-install tsc -p tsconfig.json
  find dist build -type f ! -newer "$began" -delete
  rm "$began"
  touch "$built"
fi
