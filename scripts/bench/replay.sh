# shellcheck shell=bash disable=SC2154
# Compares a replay of requests and the scores of two models with a join in Python.
# Sourced by bench.sh.

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
