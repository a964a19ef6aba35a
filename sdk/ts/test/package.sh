#!/usr/bin/env bash
# Packs the package, checks it, installs it into an empty directory and uses it from there, in JavaScript and TypeScript.
set -euo pipefail
package=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$package"
npx --no-install publint --strict
npm pack --silent --pack-destination "$work" >/dev/null
tarball=$(echo "$work"/*.tgz)
npx --no-install attw "$tarball" --profile esm-only
if tar -tzf "$tarball" | grep -vE '^package/(dist/|src/|package.json$|README.md$|CHANGELOG.md$|LICENSE)'; then
  echo 'the package holds files that do not belong there' >&2
  exit 1
fi

mkdir "$work/app"
cd "$work/app"
echo '{ "name": "app", "private": true, "type": "module" }' >package.json
npm install --silent --no-audit --no-fund --ignore-scripts "$tarball"
if [[ -e node_modules/@opentelemetry ]]; then
  echo 'the optional peer was installed' >&2
  exit 1
fi

# The program of the README, between two members.
cat >first.mjs <<'JS'
import assert from "node:assert/strict";
import { devMesh } from "@claudemesh/sdk/testing";
import { connect, UnknownPeerError } from "@claudemesh/sdk";

const dev = await devMesh();
process.env.CLAUDEMESH_DAEMON_SOCK = dev.members.alice.socket;
const mesh = connect();
await mesh.send("bob", "hi", { wait: "delivered" });
await assert.rejects(mesh.send("nobody", "hi"), UnknownPeerError);
await mesh.close();
await dev.close();
console.log("JavaScript: sent from the installed package");
JS
node first.mjs

cat >typed.ts <<'TS'
import { ClaudemeshError, connect, type KnownError, type Mesh } from "@claudemesh/sdk";
import { devMesh } from "@claudemesh/sdk/testing";

await using dev = await devMesh({ members: ["ann", "ben"] });
const mesh: Mesh = connect({ socket: dev.members.ann.socket });
// @ts-expect-error There is no such member.
dev.members.carol;
// @ts-expect-error There is no such priority.
const wrong = () => mesh.send("ben", "hi", { priority: "urgent" });
try {
  await mesh.send("bem", "hi");
} catch (error) {
  if (!(error instanceof ClaudemeshError)) throw error;
  const known = error as KnownError;
  if (known.code === "unknown_peer") console.log(`TypeScript: ${known.constructor.name} from the installed package`);
  else throw error;
}
for await (const event of mesh.events({ types: ["message", "peer_join"] })) {
  if (event.kind === "peer_join") event.value.displayName satisfies string;
  if (event.kind === "message") event.value.body satisfies string;
  break;
}
await mesh.close();
void wrong;
TS
ln -s "$package/node_modules/@types" node_modules/@types
"$package/node_modules/.bin/tsc" --strict --target es2022 --module nodenext --lib es2022,esnext.disposable,dom --types node typed.ts
node typed.js
