#!/usr/bin/env bash
# Writes everything of the SDKs that is generated: the code of proto/, and the
# types of the errors from the daemon's own table. With --check it writes too, and
# fails when that changed anything. CLAUDEMESH_BIN is the daemon's binary; buf and
# the Python generators are on the path (tests/tools/requirements.txt).
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CLAUDEMESH_BIN:?name the binary of the daemon}"
command -v buf protoc-gen-mypy >/dev/null || { echo "buf and protoc-gen-mypy are missing; use: make gen" >&2; exit 1; }
generated=(sdk/errors.json sdk/python/src/claudemesh/v1 sdk/python/src/claudemesh/errors.py
  sdk/go/gen sdk/go/errors_gen.go sdk/ts/src/gen sdk/ts/src/errors.ts)

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
[ "${1:-}" != --check ] || cp -r --parents "${generated[@]}" "$before"

"$CLAUDEMESH_BIN" explain --json | python3 -m json.tool > sdk/errors.json
(cd sdk/ts && npm ci --ignore-scripts --no-audit --no-fund --silent)
rm -rf sdk/python/src/claudemesh/v1/*_pb2* sdk/go/gen sdk/ts/src/gen
(cd proto && buf generate)
python3 sdk/python/gen_errors.py
(cd sdk/go && go generate ./...)
(cd sdk/ts && npm run --silent gen:errors)

[ "${1:-}" = --check ] || exit 0
for path in "${generated[@]}"; do
  diff --recursive --brief "$before/$path" "$path" || { echo "generated code differs; run: make gen" >&2; exit 1; }
done
