#!/usr/bin/env bash
# Measures each stage beside a peer, in turn and in one run, and prints medians
# and ratios. Machines differ and drift: only the ratios are worth quoting.
#
#   scripts/bench.sh            all of it, on a million records
#   scripts/bench.sh replay     one part: stages, replay, latency
#
# RECORDS and RUNS change the size. Needs python3 for the peers (orjson where it
# is there), jq where it is there, GNU time for memory where it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
records=${RECORDS:-1000000}
runs=${RUNS:-5}
parts=${*:-stages replay latency}

if [[ -z "${RV_BIN:-}" ]]; then
  cargo build --release --bins --quiet
  RV_BIN=$PWD/target/release
fi
export PATH="$RV_BIN:$PATH"
work=$(mktemp --directory "${TMPDIR:-/tmp}/rv-bench-XXXXXX")
jobs_started=()
cleanup() {
  ((${#jobs_started[@]})) && kill "${jobs_started[@]}" 2> /dev/null
  rm --recursive --force "$work"
}
trap cleanup EXIT
cd "$work"

# Seconds that a shell command takes. One that fails is not measured.
seconds() {
  local TIMEFORMAT=%R
  { time bash -euo pipefail -c "$1" > /dev/null 2> errors.log; } 2>&1 || {
    echo "bench: failed: $1" >&2
    cat errors.log >&2
    return 1
  }
}

median() { sort --numeric-sort | sed --quiet "$(((runs + 1) / 2))p"; }

# compare NAME COMMAND [NAME COMMAND]...: in turn, so that all drift together.
# Ratios are to the last one.
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

echo "== $records records, median of $runs runs, $(nproc) cores; x: how many times as fast as the last"
awk -v count="$records" '{ line[NR] = $0 } END {
  srand(7)
  for (i = 0; i < count; i++)
    printf "{\"messageId\":\"%08x-%04x-4%03x-a%03x-%06x%06x\",\"timestamp\":%.6f,\"modelInput\":%s}\n",
      rand() * 2 ^ 32, rand() * 65536, rand() * 4096, rand() * 4096, rand() * 2 ^ 24, rand() * 2 ^ 24,
      1700000000 + i / 1000 + rand() / 2000, line[i % NR + 1]
}' "$here/fixtures/flowers.ndjson" > requests
train() {
  rv-score train --input "$here/fixtures/iris.csv" --target target --quiet \
    --features sepalLength,sepalWidth,petalLength,petalWidth "$@"
}
train --algorithm decision-tree --name dt --model-version 1 --output dt.json
train --algorithm logistic-regression --name lr --model-version 0 --output lr.json
rv-score --model dt.json --rescore --assume-elapsed 3ms --quiet < requests > dt.scores
rv-score --model lr.json --rescore --assume-elapsed 1ms --quiet < requests > lr.scores

for part in $parts; do
  case $part in
    stages)
      echo '== one stage, from a file to /dev/null'
      sed 's/.*"modelInput":\(.*\)}$/\1/' requests > inputs
      loop='import sys, json
for line in sys.stdin: sys.stdout.write(json.dumps(json.loads(line)) + "\n")'
      rv-archive --dir logs < requests
      peers=()
      command -v jq > /dev/null && peers+=('jq -c .' 'jq -c . < requests')
      peers+=('Python loads and dumps' "python3 -c '$loop' < requests")
      compare \
        'cat' 'cat requests | cat' \
        'rv-decoy' 'rv-decoy < requests' \
        'rv-archive cat' 'rv-archive cat logs' \
        'rv-request' 'rv-request < inputs' \
        'rv-score (tree)' 'rv-score --model dt.json < requests' \
        'rv-score (regression)' 'rv-score --model lr.json < requests' \
        'rv-archive' 'rm -rf new && rv-archive --dir new < requests' \
        'gzip -6' 'gzip -6 < requests' \
        "${peers[@]}"
      ;;
    replay)
      echo '== a replay of requests and the scores of two models'
      replay='rv-rendezvous --replay --requests requests --scores dt.scores lr.scores --quiet
        --prefer dt@1,lr@0 --deadline 100ms'
      compare \
        'cat of the same bytes' 'cat requests dt.scores lr.scores | cat' \
        'rv-rendezvous --replay' "${replay//$'\n'/}" \
        'Python dict join' "python3 $here/scripts/bench/join.py requests dt.scores lr.scores"
      if [[ -x /usr/bin/time ]]; then
        for part_of in 10 1; do
          head --lines=$((records / part_of)) requests > some.requests
          head --lines=$((records / part_of)) dt.scores > some.dt
          head --lines=$((records / part_of)) lr.scores > some.lr
          /usr/bin/time --format="  $((records / part_of)) requests: %M KiB at most" \
            rv-rendezvous --replay --requests some.requests --scores some.dt some.lr --quiet \
            --prefer dt@1,lr@0 --deadline 100ms > /dev/null
        done
      fi
      ;;
    latency)
      echo '== one request at a time through pipes: from rv-request and back to it'
      for ((i = 0; i < 100; i++)); do cat "$here/fixtures/flowers.ndjson"; done > few
      for ((run = 0; run < runs; run++)); do
        for kind in cat rendezvous; do
          rm --force requests.fifo score.in middle.in scores.fifo responses.fifo
          mkfifo requests.fifo score.in middle.in scores.fifo responses.fifo
          tee score.in < requests.fifo > middle.in &
          jobs_started+=($!)
          rv-score --model dt.json -i score.in -o scores.fifo &
          jobs_started+=($!)
          if [[ $kind == cat ]]; then
            cat middle.in > /dev/null &
            jobs_started+=($!)
            cat scores.fifo > responses.fifo &
          else
            rv-rendezvous --requests middle.in --scores scores.fifo --prefer dt@1 \
              --deadline 1s --linger 0s -o responses.fifo &
          fi
          jobs_started+=($!)
          rv-request -i few -o requests.fifo --responses responses.fifo --max-in-flight 1 \
            --stats "$kind.json" --quiet
          wait "${jobs_started[@]}" || true
          jobs_started=()
          sed 's/.*"answer_ms":{[^}]*"p50":\([0-9.]*\),.*"p99":\([0-9.]*\),.*/\1 \2/' "$kind.json" >> "$kind.latency"
        done
      done
      for kind in cat rendezvous; do
        p50=$(cut --delimiter=' ' --fields=1 "$kind.latency" | median)
        p99=$(cut --delimiter=' ' --fields=2 "$kind.latency" | median)
        printf '  %-34s p50 %s ms  p99 %s ms\n' "with $kind" "$p50" "$p99"
      done
      ;;
    *)
      echo "bench: no part $part; there are stages, replay, latency" >&2
      exit 2
      ;;
  esac
done
