# shellcheck shell=bash
# Functions that several scripts share. Source this file before changing the folder.

lib_checkout=$(dirname -- "$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")")

# Puts the programs first on PATH. Takes them from the folder RV_BIN, or builds them if
# RV_BIN is not set: find_programs FLAG OF cargo build...
find_programs() {
  [[ -n "${RV_BIN:-}" ]] || RV_BIN=$("$lib_checkout/scripts/programs.sh" "$@")
  RV_BIN=$(realpath -- "$RV_BIN")
  export RV_BIN PATH="$RV_BIN:$PATH"
}

# Prints the comment at the head of a script as its usage, and exits with status 2.
usage() {
  sed --quiet '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$(realpath -- "$0")" >&2
  exit 2
}

# Makes an empty folder and prints its path, with links resolved: make_work NAME.
make_work() {
  realpath -- "$(mktemp --directory -- "${TMPDIR:-/tmp}/rv-$1-XXXXXX")"
}

# Trains a model on the iris data: train FLAGS OF rv-score train...
train() {
  rv-score train --quiet --input "$lib_checkout/fixtures/iris.csv" --target target \
    --features sepalLength,sepalWidth,petalLength,petalWidth "$@"
}

# Waits for the address of a front end in its log, and prints it: listen_address LOG
# [NAME]. NAME is `listening` for calls and `admin` for the second listener.
listen_address() {
  local log=$1 name=${2:-listening} address
  for _ in {1..100}; do
    address=$(sed --quiet "s|.*$name at http://||p" "$log")
    [[ -n "$address" ]] && echo "$address" && return
    sleep 0.1
  done
  echo "the front end did not start:" >&2
  cat -- "$log" >&2
  return 1
}

# Makes a Python environment in target/python/NAME, and puts its programs first on PATH:
# python_packages NAME ARGUMENTS OF pip install... An environment with the same packages,
# also those of a --requirement file, is used again.
python_packages() {
  local folder="$lib_checkout/target/python/$1" wanted argument
  shift
  wanted=$(printf '%s\n' "$@")
  for argument; do
    [[ ! -f $argument ]] || wanted+=$'\n'$(< "$argument")
  done
  if [[ "$(cat -- "$folder/packages.txt" 2> /dev/null)" != "$wanted" ]]; then
    rm --recursive --force -- "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
    echo "$wanted" > "$folder/packages.txt"
  fi
  PATH="$folder/bin:$PATH"
}
