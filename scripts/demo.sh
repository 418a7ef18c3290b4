#!/usr/bin/env bash
# Runs the whole architecture on the iris data: trains a canary and a production model,
# sends the 150 flowers through a pipeline of named pipes, sends one more over HTTP, and
# shows the results. At the end it stops everything that it has started.
#
#   scripts/demo.sh           build, run, check, stop
#   scripts/demo.sh --serve   keep it running at 127.0.0.1:8000 until Ctrl-C
#
# RV_BIN names a folder with the programs. If RV_BIN is not set, the script builds them.
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
source scripts/lib.sh

serve=no
case "${1:-}" in
  '') ;;
  --serve) serve=yes ;;
  *) usage ;;
esac

[[ -n "${RV_BIN:-}" ]] || echo '== building'
find_programs --release
fixtures=$PWD/fixtures
work=$(make_work demo)
cd -- "$work"

stages=()
stop() {
  status=$?
  trap - EXIT
  if ((${#stages[@]})); then
    kill "${stages[@]}" 2> /dev/null || true
    wait "${stages[@]}" 2> /dev/null || true
  fi
  if ((status == 0)); then
    rm --recursive --force "$work"
  else
    echo "demo: failed; the logs of the stages are in $work:" >&2
    tail --lines=20 "$work"/*.log >&2 || true
  fi
  exit "$status"
}
trap stop EXIT

fail() {
  echo "demo: $*" >&2
  exit 1
}

# Starts a stage in the background; its messages go to NAME.log.
stage() {
  local name=$1
  shift
  "$@" 2> "$name.log" &
  stages+=($!)
}

# Waits until all stages have ended. Each must exit with status 0.
drain() {
  local pid
  for pid in "${stages[@]}"; do
    wait "$pid" || fail "a stage ended with status $?"
  done
  stages=()
}

# Starts all stages behind the front end, from `requests` to `responses`.
start_pipeline() {
  rm --force requests dt.in lr.in decoy.in rendezvous.in dt.scores lr.scores responses
  mkfifo requests dt.in lr.in decoy.in rendezvous.in dt.scores lr.scores responses
  stage rendezvous rv-rendezvous --policy "$fixtures/policy.toml" --requests rendezvous.in \
    --scores dt.scores --scores lr.scores --output responses --stats rendezvous.json
  stage dt rv-score --model dt.json --input dt.in --output dt.scores
  stage lr rv-score --model lr.json --input lr.in --output lr.scores
  stage decoy sh -c 'rv-decoy --input decoy.in | rv-archive --dir logs'
  stage tee rv-tee --input requests --output rendezvous.in --live dt.in --live lr.in decoy.in
}

# Makes an HTTP call with bash alone: METHOD PATH BODY.
call() {
  exec 3<> "/dev/tcp/${address%:*}/${address##*:}"
  printf '%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
    "$1" "$2" "$address" "${#3}" "$3" >&3
  cat <&3
  exec 3<&-
}

# Repeats a call until the pipeline behind the front end is ready.
call_when_ready() {
  local reply
  for _ in {1..100}; do
    reply=$(call "$@" | tr --delete '\r')
    [[ "$reply" == 'HTTP/1.1 503 '* ]] || break
    sleep 0.1
  done
  echo "$reply"
}

echo '== training the canary lr@0 and the production model dt@1'
train --algorithm logistic-regression --name lr --model-version 0 --output lr.json
train --algorithm decision-tree --name dt --model-version 1 --output dt.json

if [[ $serve == yes ]]; then
  start_pipeline
  stage front rv-request --listen 127.0.0.1:8000 --responses responses --output requests
  address=$(listen_address front.log)
  reply=$(call_when_ready POST /predict '{"sepalLength":9,"sepalWidth":10,"petalLength":11,"petalWidth":12}')
  [[ "$reply" == 'HTTP/1.1 200 '* ]] || fail "no answer: $reply"
  echo "== up at http://$address until Ctrl-C; try"
  echo "curl -d '{\"sepalLength\":9,\"sepalWidth\":10,\"petalLength\":11,\"petalWidth\":12}' http://$address/predict"
  # Ctrl-C reaches the stages too: the front end stops, the others drain.
  trap 'echo; echo "== stopping"' INT
  wait "${stages[-1]}" || true
  trap '' INT
  drain
  echo '== stopped'
  exit 0
fi

echo '== 150 flowers through the pipeline'
start_pipeline
rv-request --input "$fixtures/flowers.ndjson" --output requests \
  --responses responses --answers answers.ndjson --max-in-flight 64 2> request.log
drain
head --lines=3 answers.ndjson
answers=$(wc --lines < answers.ndjson)
((answers == 150)) || fail "$answers answers to 150 flowers"
ids=$(sed 's/.*"messageId":"\([^"]*\)".*/\1/' answers.ndjson | sort --unique | wc --lines)
((ids == 150)) || fail "150 answers have only $ids different ids"
! grep --quiet '"modelName":"default"' answers.ndjson || fail 'a flower got the default'
sed 's/,"scores".*/}/' rendezvous.json

echo '== one more over HTTP'
start_pipeline
stage front rv-request --listen 127.0.0.1:0 --responses responses --output requests
address=$(listen_address front.log)
call GET /ping '' | tail --lines=1
reply=$(call_when_ready POST /predict '{
  "sepalLength": 9,
  "sepalWidth": 10,
  "petalLength": 11,
  "petalWidth": 12
}')
echo "$reply"
[[ "$reply" == 'HTTP/1.1 200 '*'"modelResult":{"modelName":"dt","result":2'* ]] ||
  fail 'the answer is not the one of dt'
kill "${stages[-1]}"
drain

echo '== the archive'
ls -l logs
archived=$(rv-archive cat logs | wc --lines)
echo "$archived requests archived"
((archived == 151)) || fail "$archived requests in the archive, not 151"

echo '== the archive, scored again by the other model'
rv-archive cat logs | rv-score --rescore --model lr.json > rescored.ndjson
for class in 0 1 2; do
  echo "class $class: $(grep --count "\"modelName\":\"lr\",\"result\":$class," rescored.ndjson)"
done
rescored=$(wc --lines < rescored.ndjson)
((rescored == 151)) || fail "$rescored scores for 151 archived requests"
echo '== all answered'
