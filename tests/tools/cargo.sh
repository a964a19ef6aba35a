#!/usr/bin/env bash
# Runs cargo, linking with mold where it is installed: linking the test
# binaries is the slowest step of a rebuild.
set -euo pipefail
if command -v mold >/dev/null; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="${CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS:--C link-arg=-fuse-ld=mold}"
fi
exec "${CARGO:-cargo}" "$@"
