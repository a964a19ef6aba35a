#!/usr/bin/env bash
# Makes the environment NAME below target/sdk/python when it is not there, and
# prints its python: `newest` and `lowest` hold the development tools and the
# newest or the lowest releases that the package is declared to work with.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
name=$1
dir=$root/target/sdk/python/$name
inputs=("$here/pyproject.toml" "$here/requirements-dev.txt" "$here/environment.sh")
mkdir -p "$root/target/sdk/python"
# Several callers may come at once.
exec 9>"$root/target/sdk/python/$name.lock"
flock 9
if ! cat "${inputs[@]}" | cmp --silent - "$dir/inputs"; then
    rm -rf "$dir"
    "${PYTHON:-python3}" -m venv "$dir" >&2
    pip=("$dir/bin/python" -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" --requirement "$here/requirements-dev.txt" >&2
    case $name in
        newest) "${pip[@]}" --upgrade --editable "$here" 'grpcio<2' 'protobuf<8' >&2 ;;
        lowest) "${pip[@]}" --editable "$here" grpcio==1.76.0 protobuf==6.31.1 >&2 ;;
        *) echo "no such environment: $name" >&2; exit 2 ;;
    esac
    cat "${inputs[@]}" >"$dir/inputs"
fi
echo "$dir/bin/python"
