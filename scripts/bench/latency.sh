# shellcheck shell=bash disable=SC2154
# Sends one request at a time through a chain of pipes, with the rendezvous and with
# `cat` in its place. Sourced by bench.sh.

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
