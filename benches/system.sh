#!/usr/bin/env bash
# Installs what the benchmarks are measured against, where it is missing: as
# root on Debian and its like. A peer that is not there is reported as missing.
set -euo pipefail
missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v pgbench >/dev/null || [ -n "$(ls /usr/lib/postgresql/*/bin/pgbench 2>/dev/null)" ] || missing+=(postgresql)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"
else
  echo "Not measured against: ${missing[*]} (install them, or run this as root on Debian)" >&2
fi
