#!/usr/bin/env bash
# Compares each stage with a peer. The two programs run in turn. Prints medians and
# ratios. Machines differ and drift, so quote only the ratios.
#
#   scripts/bench.sh            all parts, on a million records
#   scripts/bench.sh replay     one part; each .sh file in scripts/bench is a part
#
# RECORDS and RUNS change the number of records and of runs. Needs python3 for the
# peers. Uses orjson, jq, and GNU time (for memory) if they are installed.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
here=$PWD
source scripts/lib.sh
records=${RECORDS:-1000000}
runs=${RUNS:-5}
parts=${*:-$(cd scripts/bench && basename --multiple --suffix=.sh -- *.sh)}

find_programs --release
work=$(make_work bench)
jobs_started=()
cleanup() {
  ((${#jobs_started[@]})) && kill "${jobs_started[@]}" 2> /dev/null
  rm --recursive --force "$work"
}
trap cleanup EXIT
cd "$work"

# Prints how many seconds a shell command takes. Fails if the command fails.
seconds() {
  local TIMEFORMAT=%R
  { time bash -euo pipefail -c "$1" > /dev/null 2> errors.log; } 2>&1 || {
    echo "bench: failed: $1" >&2
    cat errors.log >&2
    return 1
  }
}

median() { sort --numeric-sort | sed --quiet "$(((runs + 1) / 2))p"; }

# compare NAME COMMAND [NAME COMMAND]...: runs the commands in turn, so that drift
# affects all of them. Ratios are relative to the last command.
compare() {
  local -A times=()
  local names=() commands=() run index
  while (($#)); do
    names+=("$1") commands+=("$2")
    shift 2
  done
  for ((run = 0; run < runs; run++)); do
    for index in "${!names[@]}"; do
      local time
      time=$(seconds "${commands[index]}")
      times[$index]+=$time$'\n'
    done
  done
  local last
  last=$(printf %s "${times[$((${#names[@]} - 1))]}" | median)
  for index in "${!names[@]}"; do
    local time
    time=$(printf %s "${times[$index]}" | median)
    awk -v name="${names[index]}" -v time="$time" -v last="$last" -v records="$records" \
      'BEGIN { printf "  %-34s %8.3f s  %10.0f records/s  %7.2f x\n", name, time, records / time, last / time }'
  done
}

echo "== $records records, median of $runs runs, $(nproc) cores; x: speed relative to the last line"
awk -v count="$records" '{ line[NR] = $0 } END {
  srand(7)
  for (i = 0; i < count; i++)
    printf "{\"messageId\":\"%08x-%04x-4%03x-a%03x-%06x%06x\",\"timestamp\":%.6f,\"modelInput\":%s}\n",
      rand() * 2 ^ 32, rand() * 65536, rand() * 4096, rand() * 4096, rand() * 2 ^ 24, rand() * 2 ^ 24,
      1700000000 + i / 1000 + rand() / 2000, line[i % NR + 1]
}' "$here/fixtures/flowers.ndjson" > requests
train --algorithm decision-tree --name dt --model-version 1 --output dt.json
train --algorithm logistic-regression --name lr --model-version 0 --output lr.json
rv-score --model dt.json --rescore --assume-elapsed 3ms --quiet < requests > dt.scores
rv-score --model lr.json --rescore --assume-elapsed 1ms --quiet < requests > lr.scores

for part in $parts; do
  if [[ ! -f $here/scripts/bench/$part.sh ]]; then
    echo "bench: no part $part; each .sh file in scripts/bench is a part" >&2
    exit 2
  fi
  # shellcheck disable=SC1090
  source "$here/scripts/bench/$part.sh"
done
