#!/usr/bin/env bash
# A real mesh on this machine: a broker, the daemons of alice and bob, messages
# between them, an outage in the middle, and a search of the broker's files for
# what was said. Everything lies in one temporary directory and is gone
# afterwards. Any step that fails ends it with a non-zero exit code.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ -t 1 ]]; then bold=$'\033[1m' plain=$'\033[0m'; else bold='' plain=''; fi
step() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
proves() { printf '   proves: %s\n' "$*"; }
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

step 'Build'
tests/tools/cargo.sh build
PATH=$PWD/target/debug:$PATH
# A hook of the caller's shell must not choose another mesh than the demo's.
unset CLAUDEMESH_MESH CLAUDEMESH_DAEMON_SOCK CLAUDEMESH_ADDR CLAUDEMESH_TOKEN_FILE

# A Unix socket's path is limited to 107 bytes, so the directory is short.
home=$(mktemp -d /tmp/cm-demo.XXXXXX)
broker_pid=
finish() {
  for who in alice bob; do
    CLAUDEMESH_HOME=$home/$who claudemesh daemon down --mesh demo >/dev/null 2>&1 || true
  done
  if [[ -n $broker_pid ]]; then kill "$broker_pid" 2>/dev/null && wait "$broker_pid" 2>/dev/null || true; fi
  rm -rf "$home"
}
trap finish EXIT

as() { # as <who> <claudemesh arguments...>
  local who=$1
  shift
  printf '%s$ claudemesh %s\n' "$who" "$*"
  CLAUDEMESH_HOME=$home/$who claudemesh "$@"
}

quietly_as() { CLAUDEMESH_HOME=$home/$1 claudemesh "${@:2}"; }

wait_for() { # wait_for <what> <command...>
  local what=$1
  shift
  for _ in $(seq 600); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.05
  done
  fail "gave up waiting for $what"
}

start_broker() { # start_broker <address>
  printf '$ claudemesh broker serve --listen %s\n' "$1"
  claudemesh broker serve --dir "$home/broker" --listen "$1" 2>>"$home/broker.log" &
  broker_pid=$!
  wait_for 'the broker' test -s "$home/broker/addr"
  address=$(cat "$home/broker/addr")
  wait_for 'the broker' curl --noproxy '*' -fsS "http://$address/readyz"
}

pid_of() { cat "$home/$1/daemon/demo/pid"; }
has() { quietly_as "$1" inbox --limit 1000 | grep -qF -- "$2"; }

# What is said. The search at the end looks for each of them.
first='Hello bob, this is alice; the code word is heliotrope.'
second='Alice again: the broker is down while I write this.'

step 'A broker'
start_broker 127.0.0.1:0
echo "broker pid $broker_pid"
proves 'one binary is the broker, too; its tables are an embedded database'

step 'A mesh, made by alice; an invitation for bob'
as alice mesh create demo --broker "ws://$address/ws" --admin-token-file "$home/broker/admin_token" --display-name alice 2>/dev/null
printf 'alice$ claudemesh mesh invite demo\n'
link=$(quietly_as alice mesh invite demo 2>/dev/null)
echo "${link:0:60}..."
printf 'bob$ claudemesh join <the link>\n'
quietly_as bob join "$link" --display-name bob 2>/dev/null
proves 'membership comes from an invitation that the owner of the mesh has signed'

step 'Their daemons'
as alice daemon up --mesh demo
as bob daemon up --mesh demo
alice_pid=$(pid_of alice) bob_pid=$(pid_of bob)
[[ $(printf '%s\n' "$broker_pid" "$alice_pid" "$bob_pid" | sort -u | wc -l) == 3 ]] || fail 'the three processes are not three'
echo "pids: broker $broker_pid, alice $alice_pid, bob $bob_pid"
proves 'three processes, each with its own files and its own key'

step 'A message'
sent=$(quietly_as alice send bob "$first" 2>/dev/null)
printf 'alice$ claudemesh send bob "%s"\n%s\n' "$first" "$sent"
[[ $sent == queued* ]] || fail "the answer is not \"queued\": $sent"
wait_for "the message in bob's inbox" has bob "$first"
as bob inbox
proves 'queued: on disk at alice; then encrypted, carried by the broker, and stored by bob'

step 'The broker goes away, alice sends, and her daemon is killed'
kill "$broker_pid" && wait "$broker_pid" 2>/dev/null || true
broker_pid=
sent=$(quietly_as alice send bob "$second" 2>/dev/null)
printf 'alice$ claudemesh send bob "%s"\n%s\n' "$second" "$sent"
[[ $sent == queued* ]] || fail "a send without a broker is not \"queued\": $sent"
printf '$ kill -9 %s\n' "$alice_pid"
kill -9 "$alice_pid"
wait_for "the end of alice's daemon" bash -c "! kill -0 $alice_pid"
as alice daemon up --mesh demo 2>/dev/null
[[ $(pid_of alice) != "$alice_pid" ]] || fail 'alice has no new process'
has bob "$second" && fail 'the message came before the broker was back'
start_broker "$address"
echo "broker pid $broker_pid"
wait_for 'the second message' has bob "$second"
as bob inbox
copies=$(quietly_as bob inbox --limit 1000 | grep -cF -- "$second")
[[ $copies == 1 ]] || fail "the message is there $copies times"
proves 'what was answered "queued" outlives the broker, the daemon and both together, and arrives once'

step "A search of the broker's files for what was said"
for text in "$first" "$second"; do
  # The middle of the base64 form does not depend on what stands before it,
  # if each of the three alignments is tried.
  mapfile -t forms < <(python3 - "$text" <<'PY'
import base64, sys
text = sys.argv[1].encode()
print(text.decode())
print(text.hex())
print(text.hex().upper())
for shift in range(3):
    print(base64.b64encode(text[shift:])[4:40].decode())
PY
  )
  for form in "${forms[@]}"; do
    if grep -rqaF -- "$form" "$home/broker" "$home/broker.log"; then fail "the broker holds: $form"; fi
  done
done
# The same search finds it where it belongs, so it can find things.
grep -rqaF -- "$second" "$home/bob/daemon/demo" || fail "the search finds nothing even in bob's own files"
echo "$(find "$home/broker" -type f | wc -l) files searched: raw, base64, hex. Nothing."
proves 'the broker has carried both messages and can read neither'

step 'Done: every step did what it says'
