#!/usr/bin/env bash
# A real mesh on this machine: a broker, the daemons of alice and bob, and a
# message from one to the other. Everything lies in one temporary directory
# and is gone afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; }

step 'Build'
tests/tools/cargo.sh build
bin=$PWD/target/debug
PATH=$bin:$PATH

# A Unix socket's path is limited to 107 bytes, so the directory is short.
home=$(mktemp -d /tmp/cm-demo.XXXXXX)
pids=()
finish() {
  for who in alice bob; do
    CLAUDEMESH_HOME=$home/$who claudemesh daemon down --mesh demo >/dev/null 2>&1 || true
  done
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$home"
}
trap finish EXIT

as() { # as <who> <claudemesh arguments...>
  local who=$1
  shift
  printf '%s$ claudemesh %s\n' "$who" "$*"
  CLAUDEMESH_HOME=$home/$who claudemesh "$@"
}

wait_for() { # wait_for <what> <command...>
  local what=$1
  shift
  for _ in $(seq 200); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.05
  done
  echo "gave up waiting for $what" >&2
  exit 1
}

step 'A broker'
show 'claudemesh broker serve'
claudemesh broker serve --dir "$home/broker" --listen 127.0.0.1:0 &
pids+=($!)
wait_for 'the broker' test -s "$home/broker/addr"
address=$(cat "$home/broker/addr")
wait_for 'the broker' curl --noproxy '*' -fsS "http://$address/readyz"

step 'A mesh, made by alice; an invitation for bob'
as alice mesh create demo --broker "ws://$address/ws" --admin-token-file "$home/broker/admin_token" --display-name alice
printf 'alice$ claudemesh mesh invite demo\n'
link=$(CLAUDEMESH_HOME=$home/alice claudemesh mesh invite demo)
echo "${link:0:60}..."
printf 'bob$ claudemesh join <link>\n'
CLAUDEMESH_HOME=$home/bob claudemesh join "$link" --display-name bob

step 'Their daemons'
as alice daemon up --mesh demo
as bob daemon up --mesh demo

step 'A message'
as alice send bob 'Hello from alice.'
received() { CLAUDEMESH_HOME=$home/bob claudemesh inbox | grep -q 'Hello from alice.'; }
wait_for 'the message' received
as bob inbox

step 'What the broker holds'
if grep -q 'Hello from alice.' "$home"/broker/broker.db*; then
  echo 'the text is readable at the broker: this must not be' >&2
  exit 1
fi
echo 'Ciphertext only: the text is nowhere in its database.'
step 'Done'
