# shellcheck shell=bash disable=SC2154
# Measures the latency of answers while one model floods its pipe of scores, and without
# a flood. Sourced by bench.sh. FLOOD_SECONDS is the time of one measurement; a run
# makes eight.

echo '== one request at a time through a rendezvous while another pipe is flooded; x: p99 against that without'
kinds=(none equal distinct duplicates versions late rejects huge)
for ((run = 0; run < runs; run++)); do
  for kind in "${kinds[@]}"; do
    timeout 120 python3 "$here/scripts/bench/flood.py" "$kind" "${FLOOD_SECONDS:-3}" >> "$kind.flood"
  done
done
for kind in "${kinds[@]}"; do
  # The ratio is computed within each run, because the machine drifts.
  paste --delimiters=' ' "$kind.flood" none.flood |
    awk '{ printf "%.2f\n", $2 / $5 }' | median > "$kind.ratio"
  printf '  %-34s p50 %s ms  p99 %s ms  longest %s ms  %s x\n' "$kind" \
    "$(cut --delimiter=' ' --fields=1 "$kind.flood" | median)" \
    "$(cut --delimiter=' ' --fields=2 "$kind.flood" | median)" \
    "$(cut --delimiter=' ' --fields=3 "$kind.flood" | median)" \
    "$(cat "$kind.ratio")"
done
