#!/usr/bin/env bash
# Installs what the build and the tests need from the system, where it is
# missing. Only Debian and its like, and only as root; elsewhere it says what
# is missing.
set -euo pipefail

missing=()
need() { # need <package> <test of its presence...>
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
need bubblewrap bwrap --version
need build-essential cc --version
need curl curl --version
need faketime faketime --version
need iproute2 ss --version
need mold mold --version
need openssl openssl version
need mount mount --version
need postgresql-15 sh -c 'ls /usr/lib/postgresql/*/bin/initdb'
need python3-venv python3 -c 'import ensurepip, venv'
need sqlite3 sqlite3 --version
need strace strace --version
need util-linux unshare --version

[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "These packages are missing: ${missing[*]}. Install them, or run this as root on Debian." >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"
