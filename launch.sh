#!/usr/bin/env bash
# Runs an experiment, the tests or another tool of closure_jax; the first start installs it into .venv beside this file.
# Needs bash (3.2 or newer) and Python 3.11 to 3.14, on Linux, macOS or WSL2. `./launch.sh --help` says how it is used.
set -euo pipefail
unset CDPATH

# name | what python runs | what it does. A new sub-command is a new line here.
commands=(
  'demo|closure_jax.commands.demo|couple a trained closure to the solver and animate it'
  'sweep|closure_jax.commands.sweep|run the matrix of experiments, skipping what is done, and compare them'
  'study|closure_jax.commands.study|questions that take many runs: data_efficiency[:preset]'
  'bench|closure_jax.commands.bench|time the parts of a closure beside the least time that this device allows'
  'compare|closure_jax.commands.compare|put finished runs beside each other: compare DIR... --output=DIR [--docs=FILE.md]'
  'test|pytest|run the tests (pytest arguments may follow; paths count from the repository)'
)

usage() {
  local line name module what
  cat <<'TEXT'
usage: ./launch.sh experiments/NAME.py[:preset] [--workdir=DIR] [--mode=train|evaluate] [--config.field=value ...]
                   [--dry_run] [--require_accelerator]
       ./launch.sh COMMAND [arguments]
       ./launch.sh --help

The experiment's path is looked up from the current folder, then from the folder of launch.sh. Commands:
TEXT
  for line in "${commands[@]}"; do
    IFS='|' read -r name module what <<<"$line"
    printf '  %-9s %s\n' "$name" "$what"
  done
  cat <<'TEXT'

The first start installs into .venv beside launch.sh: about a minute, several with a GPU. Environment variables:
  CLOSURE_JAX_ACCELERATOR=cpu|cuda12|cuda13|tpu  install for this, whatever the machine seems to have
  CLOSURE_JAX_DATA=DIR                           keep simulated data there instead of data/ beside launch.sh
  CLOSURE_JAX_PYTHON=/path/to/python             use that Python with its packages as they are, and install nothing
TEXT
}

say() { printf 'launch.sh: %s\n' "$*" >&2; }

# Bad input or a machine that lacks something: one line and status 2.
die() {
  say "$*"
  exit 2
}

# --- the experiment ---------------------------------------------------------------------------------------------------

# Prints the Levenshtein distance between two short words.
distance() {
  local a=$1 b=$2 i j corner above best
  local -a row
  for ((j = 0; j <= ${#b}; j++)); do row[j]=$j; done
  for ((i = 1; i <= ${#a}; i++)); do
    corner=${row[0]}
    row[0]=$i
    for ((j = 1; j <= ${#b}; j++)); do
      above=${row[j]}
      best=$corner
      [[ ${a:i-1:1} == "${b:j-1:1}" ]] || best=$((corner + 1))
      ((above + 1 < best)) && best=$((above + 1))
      ((row[j - 1] + 1 < best)) && best=$((row[j - 1] + 1))
      row[j]=$best
      corner=$above
    done
  done
  printf '%s\n' "${row[${#b}]}"
}

# Prints the three experiments whose names are nearest to $1, on one line.
near_experiments() {
  local file name list=''
  while read -r _ name; do
    list="$list${list:+, }experiments/$name.py"
  done < <(
    for file in "$home"/experiments/*.py; do
      [ -f "$file" ] || continue
      name=$(basename -- "$file" .py)
      [ "$name" = __init__ ] || printf '%s %s\n' "$(distance "$1" "$name")" "$name"
    done | sort -n | sed -n 1,3p
  )
  printf '%s\n' "${list:-none, as experiments/ is empty}"
}

# Sets config to the absolute path of the experiment PATH.py[:preset], with its preset.
find_experiment() {
  local path=$1 preset='' found
  case "$path" in *.py:*)
    preset=":${path##*.py:}"
    path="${path%.py:*}.py"
    ;;
  esac
  if [ -f "$path" ]; then
    found=$path
  elif [[ $path != /* && -f $home/$path ]]; then
    found=$home/$path
  else
    die "no experiment $path; near: $(near_experiments "$(basename -- "$path" .py)")"
  fi
  config="$(cd -- "$(dirname -- "$found")" && pwd)/$(basename -- "$found")$preset"
}

# --- the accelerator --------------------------------------------------------------------------------------------------

has_tpu() {
  local vendor id
  [ -z "${TPU_NAME:-}" ] || return 0
  [ ! -e /dev/accel0 ] || return 0
  # Newer TPU machines show the chips on PCI alone. Google's network cards have the same vendor: the device counts too.
  for vendor in /sys/bus/pci/devices/*/vendor; do
    [ -r "$vendor" ] && read -r id <"$vendor" && [ "$id" = 0x1ae0 ] || continue
    read -r id <"${vendor%vendor}device" || continue
    case "$id" in 0x0027 | 0x0056 | 0x005e | 0x0062 | 0x0063 | 0x006f | 0x0076) return 0 ;; esac
  done
  return 1
}

# Prints "driver's major version, least compute capability in tenths" of the NVIDIA GPUs, either of which may be empty;
# fails where there is no driver.
nvidia() {
  local driver='' capability='' line seen
  if command -v nvidia-smi >/dev/null &&
    line=$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null); then
    while IFS=', ' read -r seen line; do
      [[ $seen =~ ^([0-9]+)\. ]] && driver=${BASH_REMATCH[1]}
      [[ $line =~ ^([0-9]+)\.([0-9]) ]] || continue
      seen=$((BASH_REMATCH[1] * 10 + BASH_REMATCH[2]))
      [[ -n $capability && $capability -le $seen ]] || capability=$seen
    done <<<"$line"
  elif [ -r /proc/driver/nvidia/version ]; then
    line=$(cat /proc/driver/nvidia/version)
    [[ $line =~ ' '([0-9]{3})\.[0-9]+ ]] && driver=${BASH_REMATCH[1]}
  else
    return 1
  fi
  printf '%s,%s\n' "$driver" "$capability"
}

# Prints the build that this machine's hardware calls for: cpu, cuda12, cuda13 or tpu.
detect_accelerator() {
  local found driver capability
  if [[ $OSTYPE != linux* ]]; then
    echo cpu
  elif has_tpu; then
    echo tpu
  elif found=$(nvidia); then
    driver=${found%,*} capability=${found#*,}
    # CUDA 13 needs driver 580 and Turing (7.5); CUDA 12 needs driver 525. An unknown driver gets what most have.
    if [ "${driver:-525}" -ge 580 ] && [ "${capability:-75}" -ge 75 ]; then
      echo cuda13
    elif [ "${driver:-525}" -ge 525 ]; then
      echo cuda12
    else
      say "NVIDIA driver $driver is older than 525, which the GPU build needs: taking the CPU build"
      echo cpu
    fi
  else
    echo cpu
  fi
}

# --- the environment --------------------------------------------------------------------------------------------------

# Sets digest to what the installation depends on, beside the accelerator. The folder is in it because an editable
# installation points to it.
compute_digest() {
  digest=$({
    cat -- "$home/pyproject.toml" "$home/constraints.txt"
    printf '%s' "$home"
  } | cksum)
  digest=${digest// /-}
}

# True where .venv is whole, and is what pyproject.toml, constraints.txt and the accelerator call for.
ready() {
  local have_digest='' have_kind=''
  [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ ! -e "$unfinished" ] || return 1
  read -r have_digest have_kind <"$stamp" || return 1
  [ "$have_digest" = "$digest" ] || return 1
  if [ -n "$wanted" ]; then
    [ "$have_kind" = "$wanted" ] || return 1
  elif [ "$have_kind" = cpu ]; then
    # The other way round, an accelerator's build runs on a CPU as well: a cluster's nodes can share one .venv.
    [ "$(detect_accelerator 2>/dev/null)" = cpu ] || return 1
  fi
  # A base Python that was upgraded under .venv leaves the stamp, but not the packages.
  "$venv/bin/python" -I -c 'import sys
from importlib.util import find_spec
sys.exit(not (find_spec("jax") and find_spec("closure_jax")))' 2>/dev/null
}

# Prints a Python that can make the environment: the versions for which the pinned packages have wheels.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    name=$(command -v "$name") || continue
    "$name" -I -c 'import sys, ensurepip, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1 || continue
    printf '%s\n' "$name"
    return
  done
  return 1
}

# Takes the lock on file descriptor 9, waiting where another start has it. The kernel gives the lock back when this
# shell and the pip it started have ended, however they ended, so that no lock goes stale. Python takes it because
# flock(1) is not everywhere; the lock belongs to the open file, and so stays with this shell.
take_lock() {
  { exec 9>"$home/.venv.lock"; } 2>/dev/null ||
    die "cannot write to $home, where .venv is to be made; CLOSURE_JAX_PYTHON can name a Python that has the packages"
  "$1" -I -c 'import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    try:
        fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("launch.sh: another start is installing into .venv: waiting for it", file=sys.stderr, flush=True)
        fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    print("launch.sh: this file system has no locks: do not start a second time meanwhile", file=sys.stderr)'
}

# Runs a command such that a signal to this script can end it: bash itself would wait for it first.
child=''
run_child() {
  local status=0
  "$@" &
  child=$!
  wait "$child" || status=$?
  child=''
  return "$status"
}

# shellcheck disable=SC2329  # the traps call it
interrupted() {
  trap '' INT TERM HUP
  if [ -n "$child" ]; then
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  [ "$created" = no ] || rm -rf "$venv"
  say 'installation interrupted; the next start begins it again'
  exit "$1"
}

# Makes .venv afresh unless there is a usable one. `unfinished` marks it until the installation is complete.
make_venv() {
  local python=$1
  if [ ! -e "$unfinished" ] && "$venv/bin/python" -I -c 'import sys
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
    : >"$unfinished"
  else
    if [ -n "$(find "$venv/" -type f 2>/dev/null | sed 1q)" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
      die "$venv is there, but is no Python environment: move it away"
    fi
    created=yes
    # Without pip this takes no time, so that next to no start is interrupted before the mark is there.
    run_child "$python" -I -m venv --clear --without-pip "$venv" && : >"$unfinished" || return 1
  fi
  "$venv/bin/python" -I -c 'import pip' 2>/dev/null ||
    run_child "$venv/bin/python" -I -m ensurepip --default-pip >/dev/null
}

# Installs the repository, which is the current folder, with extras where $1 has some. What pip says shows only if it
# fails.
run_pip() {
  local log=$venv/closure_jax.log
  PIP_USER=0 run_child "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input \
    -c constraints.txt -e "$1" >"$log" 2>&1 && return
  cat "$log" >&2
  return 1
}

# Takes away what an earlier installation for other hardware than $1 left: jax's GPU plugins exclude one another.
drop_other_plugins() {
  local package
  local -a others=()
  for package in jax-cuda12-plugin jax-cuda12-pjrt jax-cuda13-plugin jax-cuda13-pjrt libtpu; do
    case "$1:$package" in
      cuda12:jax-cuda12-* | cuda13:jax-cuda13-* | tpu:libtpu) ;;
      *) others+=("$package") ;;
    esac
  done
  run_child "$venv/bin/python" -I -m pip uninstall --quiet --yes "${others[@]}" >/dev/null 2>&1
}

# Installs under the lock, unless another start has done it meanwhile.
install() {
  local python kind extra='' note='about a minute'
  python=$(find_python) || die 'needs Python 3.11, 3.12, 3.13 or 3.14 with its venv module, and found none on PATH' \
    '(on Debian and Ubuntu: apt install python3 python3-venv)'
  take_lock "$python"
  if ready; then
    exec 9>&-
    return
  fi
  kind=${wanted:-$(detect_accelerator)}
  if [ "$kind" != cpu ]; then
    extra="[$kind]" note='several minutes, some GB'
  fi
  say "installing closure_jax and its packages for $kind into $venv ($note) ..."
  created=no
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM
  trap 'interrupted 129' HUP
  if ! { make_venv "$python" && cd -- "$home" && run_pip ".$extra" &&
    { [ "$created" = yes ] || drop_other_plugins "$kind"; }; }; then
    # What was there before is as good as before; what was not is taken away.
    if [ "$created" = yes ]; then rm -rf "$venv"; else rm -f "$unfinished"; fi
    say 'the installation failed: the lines above say why; the next start tries again'
    exit 1
  fi
  cd -- "$start"
  printf '%s %s\n' "$digest" "$kind" >"$stamp"
  rm -f "$unfinished"
  trap - INT TERM HUP
  exec 9>&-
}

# Refuses a Python of the user's that lacks a package named in pyproject.toml.
check_python() {
  local reason newline=$'\n'
  reason=$("$python" -c 'import sys
if sys.version_info < (3, 11):
    sys.exit("is Python %d.%d, and 3.11 or newer is needed" % sys.version_info[:2])
sys.path[:] = [folder for folder in sys.path if folder]
import re, tomllib
from importlib.metadata import PackageNotFoundError, version
numbers = lambda text: [int(part) for part in re.findall(r"\d+", text)]
missing = []
with open(sys.argv[1], "rb") as file:
    needs = tomllib.load(file)["project"]["dependencies"]
for need in needs:
    name, least = re.match(r"([\w.-]+)(?:>=([\d.]+))?", need).groups()
    try:
        found = version(name)
    except PackageNotFoundError:
        missing.append(name)
    else:
        if least and numbers(found) < numbers(least):
            missing.append(f"{need} (it has {found})")
if missing:
    sys.exit("lacks " + ", ".join(missing))' "$home/pyproject.toml" 2>&1) ||
    die "CLOSURE_JAX_PYTHON=$python ${reason##*"$newline"}; install what is needed with" \
      "\"$python\" -m pip install -e \"$home\", or unset CLOSURE_JAX_PYTHON and launch.sh makes its own environment"
}

# Sets python to the one that is to run: the user's, or that of .venv, installed where need be.
choose_python() {
  venv=$home/.venv
  stamp=$venv/closure_jax.stamp
  unfinished=$venv/closure_jax.unfinished
  wanted=${CLOSURE_JAX_ACCELERATOR:-}
  case "$wanted" in
    '' | cpu | cuda12 | cuda13 | tpu) ;;
    *) die "CLOSURE_JAX_ACCELERATOR=$wanted: must be cpu, cuda12, cuda13 or tpu" ;;
  esac
  if [ -n "${CLOSURE_JAX_PYTHON:-}" ]; then
    python=$(command -v "$CLOSURE_JAX_PYTHON") && [ -x "$python" ] ||
      die "CLOSURE_JAX_PYTHON=$CLOSURE_JAX_PYTHON is no program that can be run"
    [[ $python == /* ]] || python=$start/$python
    check_python
    export PYTHONPATH="$home${PYTHONPATH:+:$PYTHONPATH}"
  else
    case "$OSTYPE" in msys* | cygwin*) die 'runs on Linux, macOS and WSL2: on Windows, start it inside WSL2' ;; esac
    compute_digest
    ready || install
    python=$venv/bin/python
  fi
  export CLOSURE_JAX_HOME=$home
  # Large pages for large arrays, where the C library and the kernel offer them: on a CPU the same numbers in less time.
  export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
}

# --- the start --------------------------------------------------------------------------------------------------------

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

main() {
  local line name module what known='' command=${1:-}
  home=$(own_folder "${BASH_SOURCE[0]}")
  start=$PWD
  case "$command" in
    '')
      usage >&2
      exit 2
      ;;
    -h | --help | help)
      usage
      exit 0
      ;;
    *.py | *.py:*)
      find_experiment "$command"
      shift
      choose_python
      # -P: a file of the current folder must not stand in for a module of the same name.
      exec "$python" -P -m closure_jax "--config=$config" "$@"
      ;;
    -*) die "$command: an experiment or a command comes first; ./launch.sh --help says more" ;;
  esac
  for line in "${commands[@]}"; do
    IFS='|' read -r name module what <<<"$line"
    known="$known${known:+, }$name"
    [ "$name" = "$command" ] || continue
    shift
    choose_python
    if [ "$name" = test ]; then
      cd -- "$home"
      exec "$python" -m "$module" "$@"
    fi
    exec "$python" -P -m "$module" "$@"
  done
  die "$command is neither an experiment (experiments/NAME.py) nor a command ($known); ./launch.sh --help says more"
}

# Called at the end, so that bash has read the whole file before an update can change it.
main "$@"
