#!/usr/bin/env bash
# Runs an experiment, the tests or another command of closure_jax; the first start installs it into .venv beside this
# file. Needs bash (3.2 or newer) and Python 3.11 to 3.14, on Linux, macOS or WSL2. This file finds a Python;
# the folder launcher/ does the rest. `./launch.sh --help` says how it is used.
set -euo pipefail
unset CDPATH

# Bad input or a machine that lacks something: one line and status 2.
die() {
  printf 'launch.sh: %s\n' "$*" >&2
  exit 2
}

# Prints the folder of this file, through any symbolic links.
own_folder() {
  local file=$1 target
  while [ -L "$file" ]; do
    target=$(readlink "$file")
    [[ $target == /* ]] || target=$(dirname -- "$file")/$target
    file=$target
  done
  cd -P -- "$(dirname -- "$file")" && pwd
}

# Prints a Python that can make the environment, of the versions for which the pinned packages have wheels; where there
# is none, that of a finished environment, which can still start.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python "$1/.venv/bin/python"; do
    name=$(command -v "$name") || continue
    "$name" -I -c 'import sys, ensurepip, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1 || continue
    printf '%s\n' "$name"
    return
  done
  return 1
}

main() {
  local home python
  home=$(own_folder "${BASH_SOURCE[0]}")
  if [ -n "${CLOSURE_JAX_PYTHON:-}" ]; then
    python=$(command -v "$CLOSURE_JAX_PYTHON") && [ -x "$python" ] ||
      die "CLOSURE_JAX_PYTHON=$CLOSURE_JAX_PYTHON is no program that can be run"
    [ "$("$python" -c 'print(6 * 7)' 2>/dev/null)" = 42 ] || die "CLOSURE_JAX_PYTHON=$CLOSURE_JAX_PYTHON is no Python"
    [[ $python == /* ]] || python=$PWD/$python
    exec "$python" "$home/launcher" "$python" "$@"
  fi
  python=$(find_python "$home") ||
    die 'needs Python 3.11, 3.12, 3.13 or 3.14 with its venv module, and found none on PATH' \
      '(on Debian and Ubuntu: apt install python3 python3-venv)'
  exec "$python" -I "$home/launcher" "$python" "$@"
}

# Called at the end, so that bash has read the whole file before an update can change it.
main "$@"
